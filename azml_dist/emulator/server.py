"""The way in: a proxy port on loopback that ends TLS for every host name and hands requests to one function.

A client is sent here by HTTPS_PROXY, so it keeps Azure's own host names in its URLs, its Host headers and its SAS
signatures, and nothing in it has to be told that this is not Azure. The other way, AZUREML_DEV_URL_MFE, moves the ARM
calls only: blobs and run history keep their host names and would need a way in of their own.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import trustme

from azml_dist.emulator.wire import Headers, Part, Reply

Serve = Callable[[str, str, str, Headers, "bytes | Path"], "Reply | None"]
"""(method, host, target, headers, body, or the file that holds it) -> the reply; None resets the connection."""
_IN_MEMORY = 8 << 20
"""The largest body that is not put into a file, in bytes."""
_PIECE = 1 << 20


USER = "emulator"
"""Who logs in at the proxy."""


class ProxyServer:
    """Listens on 127.0.0.1, speaks HTTP CONNECT, ends TLS with certificates of a throw-away authority.

    Who has not the `secret` is refused: other users of this machine can reach the port too. A request without a tunnel
    is for the emulator itself (host ``) or, as `/-/HOST/PATH`, for one of its hosts.
    """

    def __init__(self, serve: Serve, authority: trustme.CA, *, secret: str, port: int = 0) -> None:
        self._serve = serve
        self._authority = authority
        self._secret = secret
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.certified_as: str | None = None
        """The host name in all certificates, in place of each host's own."""
        self.certified_for: dict[str, Any] = {}
        """`not_before` and `not_after` of all certificates."""
        self.spool: Path | None = None
        """The folder for bodies that are too large for memory; the system's own by default."""
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", port), _Connection)
        self._http.front = self
        self._thread = threading.Thread(target=self._http.accept_all, name="emulator", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._http.server_port

    @property
    def url(self) -> str:
        """What HTTPS_PROXY should hold."""
        return f"http://{USER}:{self._secret}@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection; returns when all threads are done."""
        self._http.close_connections()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._http.server_close()

    def lets_in(self, sent: str | None) -> bool:
        """Whether this is the `Proxy-Authorization` of someone who knows the secret."""
        right = "Basic " + base64.b64encode(f"{USER}:{self._secret}".encode()).decode()
        return hmac.compare_digest((sent or "").encode(), right.encode())

    def forget_certificates(self) -> None:
        """Make new ones for all hosts."""
        with self._lock:
            self._contexts.clear()

    def serve(self, method: str, host: str, target: str, headers: Headers, body: bytes | Path) -> Reply | None:
        """Answer one request."""
        return self._serve(method, host, target, headers, body)

    def tls(self, host: str) -> ssl.SSLContext:
        """A server context with a certificate for this host name."""
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(self.certified_as or host, **self.certified_for).configure_cert(context)
                self._contexts[host] = context
            return self._contexts[host]


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them
    block_on_close = True
    request_queue_size = 1024
    front: ProxyServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._is_closing = False

    def accept_all(self) -> None:
        """Until the end; asleep while nobody comes."""
        while True:
            try:
                connection, address = self.socket.accept()
            except OSError:
                if self._is_closing:
                    return
                time.sleep(0.05)  # too many open files: some are closed soon
                continue
            if self._is_closing:
                connection.close()
                return
            try:
                self.process_request(connection, address)
            except RuntimeError:  # too many threads
                self.shutdown_request(connection)

    def opened(self, connection: socket.socket) -> None:
        with self._open_lock:
            self._open.add(connection)
            if self._is_closing:
                _wake(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._open_lock:
            self._open.discard(connection)

    def close_connections(self) -> None:
        """Wake every thread that waits: for a client, or for a client's next request."""
        with self._open_lock:
            self._is_closing = True
            for connection in self._open:
                _wake(connection)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server_port), timeout=1):
            pass

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that disconnected; the emulator itself reports an error in a route."""


def _wake(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body
    disable_nagle_algorithm = True
    server: _Server
    host: str | None = None

    def setup(self) -> None:
        super().setup()
        self.server.opened(self.connection)

    def do_CONNECT(self) -> None:
        """Open the tunnel, end its TLS here, and go on reading requests from inside."""
        if not self.server.front.lets_in(self.headers["Proxy-Authorization"]):
            self._send(Reply(407, headers={"Proxy-Authenticate": 'Basic realm="the emulator"'}))
            self.close_connection = True
            return
        self.host = self.path.rpartition(":")[0]
        plain = self.connection
        plain.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self.connection = self.request = self.server.front.tls(self.host).wrap_socket(plain, server_side=True)
        self.server.closed(plain)
        self.server.opened(self.connection)
        self.rfile = self.connection.makefile("rb", -1)
        self.wfile = self.connection.makefile("wb", -1)
        self.close_connection = False

    def _answer(self) -> None:
        host, target = self.host, self.path
        if host is None and not target.startswith("/"):
            self.send_error(501, "This proxy tunnels TLS only")
            return
        if host is None:
            host, target = _addressed(target)
        self._acknowledge()
        body = self._read_body()
        try:
            reply = None if body is None else self.server.front.serve(self.command, host, target, self.headers, body)
        finally:
            if isinstance(body, Path):
                body.unlink(missing_ok=True)
        if reply is None:
            self._reset()
            return
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        length = reply.length
        self.send_response_only(reply.status)
        reply.headers.setdefault("Date", formatdate(usegmt=True))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304) and "content-length" not in {name.lower() for name in reply.headers}:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(reply)
        self.wfile.flush()

    def _send_body(self, reply: Reply) -> None:
        if not isinstance(reply.body, Part):
            self.wfile.write(reply.encoded())
            return
        with reply.body.file as content:
            content.seek(reply.body.start)
            left = reply.body.length
            while left and (piece := content.read(min(left, _PIECE))):
                self.wfile.write(piece)
                left -= len(piece)
        self.close_connection = self.close_connection or left > 0  # the file is shorter now: the client sees it

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = _answer  # noqa: N815

    def _acknowledge(self) -> None:
        """Tell the client at once that the head arrived.

        To a proxy urllib3 sends with Nagle's algorithm on: the body waits for this, which may take the kernel 40 ms.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _read_body(self) -> bytes | Path | None:
        """The body, in a file if it is large; None if the client hung up before its end."""
        try:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                return self._collected(_chunks(self.rfile))
            return self._collected(_pieces(self.rfile, int(self.headers.get("Content-Length") or 0)))
        except (EOFError, ValueError):
            return None

    def _collected(self, pieces: Iterator[bytes]) -> bytes | Path:
        parts: list[bytes] = []
        size = 0
        for piece in pieces:
            parts.append(piece)
            size += len(piece)
            if size > _IN_MEMORY:
                return self._spooled(parts, pieces)
        return b"".join(parts)

    def _spooled(self, parts: list[bytes], pieces: Iterator[bytes]) -> Path:
        descriptor, name = tempfile.mkstemp(dir=self.server.front.spool, prefix="upload-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(parts)
                parts.clear()
                file.writelines(pieces)
        except BaseException:
            os.unlink(name)
            raise
        return Path(name)

    def _reset(self) -> None:
        """Close with RST: linger zero. The client sees `Connection reset by peer`, not a clean end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        descriptor = self.connection.detach()
        with contextlib.suppress(OSError):
            socket.close(descriptor)

    def finish(self) -> None:
        self.server.closed(self.connection)
        with contextlib.suppress(OSError, ValueError):
            super().finish()
        for stream in (self.wfile, self.rfile):  # a file that still has to be flushed keeps the socket open
            with contextlib.suppress(OSError, ValueError):
                stream.close()
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named by http.server)
        """Requests are recorded, not printed."""


def _addressed(target: str) -> tuple[str, str]:
    """Host and path of a request without a tunnel: `/-/HOST/PATH`, or a path of the emulator itself."""
    if not target.startswith("/-/"):
        return "", target
    host, _, path = target[3:].partition("/")
    return host, f"/{path}"


def _pieces(source: BufferedIOBase, length: int) -> Iterator[bytes]:
    if length < 0:
        raise ValueError(length)
    while length:
        piece = source.read(min(length, _PIECE))
        if not piece:
            raise EOFError
        length -= len(piece)
        yield piece


def _chunks(source: BufferedIOBase) -> Iterator[bytes]:
    while size := int(source.readline().split(b";")[0], 16):
        yield from _pieces(source, size)
        source.readline()
    source.readline()
