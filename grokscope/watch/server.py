"""Serve one page to this machine only: bound to 127.0.0.1, at a secret path, under no other host name."""

import json
import secrets
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from grokscope.errors import GrokscopeError

LOOPBACK = "127.0.0.1"
_MAX_PORT = 2**16 - 1


class _Published(NamedTuple):
    page: bytes
    version: int
    state: bytes


class Server:
    """Serve the page last passed to `publish`, on a thread of its own, while the context manager is open.

    The page is at http://127.0.0.1:PORT/TOKEN/, with a token of 256 random bits. Next to it, `state` gives the page's
    version and the run's status as JSON.

    - Every other path gives 404 Not Found, without a hint of what exists.
    - A request with another Host header gives 403 Forbidden: it comes from a web page whose name resolves to this
      machine.
    - Methods other than GET and HEAD give 405 or 501.

    Args:
        port: The port, from 0 to 65535. 0, the default, takes any free port.

    Raises:
        GrokscopeError: The port is out of range or not available.
    """

    def __init__(self, port: int = 0):
        self._token = secrets.token_urlsafe(32)
        self._published = _Published(b"", 0, b"")
        self._last_poll, self._loaded_version = -float("inf"), 0
        if not 0 <= port <= _MAX_PORT:
            raise GrokscopeError(f"--port {port}: not a port. Allowed: 0 (any free port) to {_MAX_PORT}.")
        try:
            self._server = _QuietServer((LOOPBACK, port), self._handler())
        except OSError as error:
            raise GrokscopeError(
                f"Port {port} of {LOOPBACK} is not available: {error.strerror}. Choose another --port, or 0 for any "
                "free port."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        """The port of the server."""
        return self._server.server_address[1]

    @property
    def address(self) -> str:
        """The page's address; everybody on this machine who knows it can read the page."""
        return f"http://{LOOPBACK}:{self.port}/{self._token}/"

    def publish(self, page: bytes, version: int, status: str) -> None:
        """Serve a page from now on.

        Args:
            page: The HTML.
            version: The number of the page. Open pages with another number reload themselves.
            status: The state of the run, in one sentence.
        """
        self._published = _Published(page, version, json.dumps({"version": version, "status": status}).encode())

    def has_outdated_reader(self, seconds: float) -> bool:
        """Return whether a page asked for news in the last `seconds` and has not loaded the newest version since."""
        return time.monotonic() - self._last_poll < seconds and self._loaded_version != self._published.version

    def _resource(self, path: str) -> tuple[str, bytes] | None:
        """Return the type and the content of the resource at a path, or None."""
        requested, published = path.encode("latin-1", "replace"), self._published
        # Comparison in constant time: the path contains the secret.
        if secrets.compare_digest(requested, f"/{self._token}/".encode()):
            self._loaded_version = published.version
            return "text/html; charset=utf-8", published.page
        if secrets.compare_digest(requested, f"/{self._token}/state".encode()):
            self._last_poll = time.monotonic()
            return "application/json", published.state
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10
            error_content_type = "text/plain"
            error_message_format = "%(code)d %(message)s\n"

            def answer(self) -> None:
                hosts = self.headers.get_all("Host", [])
                if hosts not in ([f"{LOOPBACK}:{server.port}"], [f"localhost:{server.port}"]):
                    return self.send_error(HTTPStatus.FORBIDDEN)
                resource = server._resource(self.path)
                if resource is None:
                    return self.send_error(HTTPStatus.NOT_FOUND)
                kind, content = resource
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def refuse(self) -> None:
                self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

            do_GET = do_HEAD = answer
            do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = refuse

            def end_headers(self) -> None:
                # A policy in the page itself cannot forbid frames.
                self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Cross-Origin-Resource-Policy", "same-origin")
                # The address contains the secret.
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("Cache-Control", "no-store")
                super().end_headers()

            def version_string(self) -> str:
                return "grokscope"

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a reader that disconnects during the answer; report every other error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
