"""A TCP proxy before a server: it can be slow, cut a reply in its middle, hold everything back, or change servers."""

import contextlib
import random
import socket
import time
from pathlib import Path
from threading import Event, Lock, Thread

_PIECE = 65536


class Proxy:
    """Connections to `url`, as the user `worker`, go to the server at the socket `upstream`. Use `close` at the end."""

    def __init__(self, upstream: Path, rng: random.Random) -> None:
        self.upstream = upstream
        self.delay_seconds = 0.0
        """Each piece of a reply waits so long."""
        self._rng = rng
        self._flowing = Event()
        self._flowing.set()
        self._to_cut = 0
        self._lock = Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://worker:any@127.0.0.1:{self._listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def cut_replies(self, number: int) -> None:
        """End the next connections in the middle of a reply, of one each."""
        with self._lock:
            self._to_cut += number

    def partition(self) -> None:
        """Hold back what is sent, both ways; nobody is told. What was under way arrives after `heal`."""
        self._flowing.clear()

    def heal(self) -> None:
        self._flowing.set()

    def reset(self) -> None:
        """End all connections."""
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.heal()
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        with self._lock:
            self._open |= {client, server}
        try:
            self._flowing.wait()
            server.connect(str(self.upstream))
            replies = Thread(target=self._pump, args=(server, client, True), daemon=True)
            replies.start()
            self._pump(client, server, False)
            replies.join()
        except OSError:
            pass  # no server there: the client sees its connection end
        finally:
            with self._lock:
                self._open -= {client, server}
            client.close()
            server.close()

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        try:
            while piece := source.recv(_PIECE):
                self._flowing.wait()
                if replies and self.delay_seconds:
                    time.sleep(self.delay_seconds)
                if replies and self._cuts():
                    sink.sendall(piece[: self._rng.randrange(len(piece))])
                    break
                sink.sendall(piece)
        except OSError:
            pass
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _cuts(self) -> bool:
        with self._lock:
            cuts = self._to_cut > 0
            self._to_cut -= cuts
            return cuts
