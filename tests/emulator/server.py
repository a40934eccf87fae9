"""The way in: a proxy port on loopback that ends TLS for every host name and hands requests to one function.

A client is sent here by HTTPS_PROXY, so it keeps Azure's own host names in its URLs, its Host headers and its SAS
signatures, and nothing in it has to be told that this is not Azure. The other way, AZUREML_DEV_URL_MFE, moves the ARM
calls only: blobs and run history keep their host names and would need a way in of their own.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme

from .wire import Headers, Reply

Serve = Callable[[str, str, str, Headers, bytes], "Reply | None"]
"""(method, host, target, headers, body) -> the reply; None resets the connection."""


class ProxyServer:
    """Listens on 127.0.0.1, speaks HTTP CONNECT, ends TLS with certificates of a throw-away authority."""

    def __init__(self, serve: Serve, authority: trustme.CA) -> None:
        self._serve = serve
        self._authority = authority
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.certified_as: str | None = None
        """The host name in all certificates, in place of each host's own."""
        self._lock = threading.Lock()
        self._http = _Server(("127.0.0.1", 0), _Connection)
        self._http.front = self
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """What HTTPS_PROXY should hold."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection; returns when all threads are done."""
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join(timeout=10)

    def serve(self, method: str, host: str, target: str, headers: Headers, body: bytes) -> Reply | None:
        """Answer one request."""
        return self._serve(method, host, target, headers, body)

    def tls(self, host: str) -> ssl.SSLContext:
        """A server context with a certificate for this host name."""
        with self._lock:
            if host not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._authority.issue_cert(self.certified_as or host).configure_cert(context)
                self._contexts[host] = context
            return self._contexts[host]


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them
    block_on_close = True
    request_queue_size = 128
    front: ProxyServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        self._is_closing = False

    def opened(self, connection: socket.socket) -> None:
        with self._open_lock:
            self._open.add(connection)
            if self._is_closing:
                _wake(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._open_lock:
            self._open.discard(connection)

    def close_connections(self) -> None:
        """Wake every thread that waits for a client's next request."""
        with self._open_lock:
            self._is_closing = True
            for connection in self._open:
                _wake(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; one in a route is reported by the emulator itself."""


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
        if self.host is None:
            self.send_error(501, "This proxy tunnels TLS only")
            return
        self._acknowledge()
        body = self._read_body()
        reply = self.server.front.serve(self.command, self.host, self.path, self.headers, body)
        if reply is None:
            self._reset()
            return
        payload = reply.encoded()
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 204 and "content-length" not in {name.lower() for name in reply.headers}:
            self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815

    def _acknowledge(self) -> None:
        """Tell the client at once that the head arrived.

        To a proxy urllib3 sends with Nagle's algorithm on: the body waits for this, which may take the kernel 40 ms.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

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
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (named by http.server)
        """Requests are recorded, not printed."""
