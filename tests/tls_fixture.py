"""TLS in front of a test's server, and certificates for it. (The bundled Valkey is built without TLS.)

A server with TLS refuses and alerts by the same OpenSSL, so that what a client sees is the same.
"""

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme


class Certificates:
    """Two authorities of which one has signed the certificates of `localhost` and of a client, as files."""

    def __init__(self, directory: Path) -> None:
        self.authority, self.other = trustme.CA(), trustme.CA()
        self.server = self.authority.issue_cert("localhost")
        self.ours = self._folder(directory / "ours", self.authority, self.authority)
        """A directory as PIECEWORK_REDIS_TLS_DIR wants it."""
        self.of_another = self._folder(directory / "another", self.other, self.other)
        self.unknown_client = self._folder(directory / "unknown-client", self.authority, self.other)
        self.without_client = self._folder(directory / "without-client", self.authority, None)

    @staticmethod
    def _folder(directory: Path, authority: trustme.CA, client: trustme.CA | None) -> Path:
        directory.mkdir()
        authority.cert_pem.write_to_path(directory / "ca.crt")
        if client is not None:
            issued = client.issue_cert("worker@example.org")
            issued.cert_chain_pems[0].write_to_path(directory / "tls.crt")
            issued.private_key_pem.write_to_path(directory / "tls.key")
        return directory


class TlsServer:
    """Listens on a port of 127.0.0.1 and passes on to a Unix socket; it wants a client certificate."""

    def __init__(self, socket_path: Path, certificates: Certificates) -> None:
        self._path = socket_path
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificates.server.configure_cert(self._context)
        certificates.authority.configure_trust(self._context)
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(accepted,), daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), accepted, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self._path))
            with self._context.wrap_socket(accepted, server_side=True) as client:
                while True:
                    readable = [client] if client.pending() else select.select([client, server], [], [])[0]
                    for one, other in ((client, server), (server, client)):
                        if one in readable:
                            data = one.recv(65536)
                            if not data:
                                return
                            other.sendall(data)
