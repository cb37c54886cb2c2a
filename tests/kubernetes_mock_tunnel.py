"""The mock's side of a port-forward: WebSocket frames with a channel byte, bridged to a socket."""

import base64
import hashlib
import select
import socket
import struct
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def tunnel(handler: BaseHTTPRequestHandler, ports: dict[int, tuple[str, int]]) -> None:
    """Serve one connection until either side ends it. A host that starts with a slash is a Unix socket."""
    port = int(parse_qs(urlsplit(handler.path).query)["ports"][0])
    key = handler.headers["Sec-WebSocket-Key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest()).decode()
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", accept)
    handler.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
    handler.end_headers()
    near = handler.connection
    for channel in (0, 1):
        near.sendall(_frame(bytes([channel]) + struct.pack("<H", port)))
    if port not in ports:
        near.sendall(_frame(b"\x01no such port in the pod"))
        near.sendall(b"\x88\x00")
        return
    host, number = ports[port]
    unix = host.startswith("/")
    far = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    far.connect(host if unix else (host, number))
    with far:
        while True:
            readable, _, _ = select.select([near, far], [], [])
            if far in readable:
                data = far.recv(65536)
                if not data:
                    near.sendall(b"\x88\x00")
                    return
                near.sendall(_frame(b"\x00" + data))
            if near in readable:
                opcode, payload = _read(handler)
                if opcode == 8:
                    return
                if opcode == 2 and payload[:1] == b"\x00":
                    far.sendall(payload[1:])


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", 0x82, size) + payload
    return struct.pack("!BBH" if size < 65536 else "!BBQ", 0x82, 126 if size < 65536 else 127, size) + payload


def _read(handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
    head = _exactly(handler.connection, 2)
    if len(head) < 2:
        return 8, b""
    size = head[1] & 127
    if size == 126:
        size = struct.unpack("!H", _exactly(handler.connection, 2))[0]
    elif size == 127:
        size = struct.unpack("!Q", _exactly(handler.connection, 8))[0]
    mask = _exactly(handler.connection, 4)
    payload = _exactly(handler.connection, size)
    return head[0] & 15, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def _exactly(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            break
        data += part
    return data
