"""A server for one page, to this machine alone: bound to 127.0.0.1, at a secret path, refusing other hosts' names."""

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


class _Shown(NamedTuple):
    page: bytes
    version: int
    state: bytes


class Server:
    """Serves the page that it was last given by `show`, on a thread of its own, for as long as the block lasts.

    `address` is http://127.0.0.1:PORT/TOKEN/ with a token of 256 random bits; beside the page lies `state`, which a
    page asks for to know whether there is a newer one. Anything else is 404 Not Found, without a word on what there
    is; a request whose Host is not this very server, as of a page elsewhere that had its name point here, is 403
    Forbidden; methods other than GET and HEAD are 405 or 501. Raise GrokscopeError if the port cannot be had.
    """

    def __init__(self, port: int = 0):
        self._token = secrets.token_urlsafe(32)
        self._shown = _Shown(b"", 0, b"")
        self._asked_at, self._loaded = -float("inf"), 0
        if not 0 <= port < 2**16:
            raise GrokscopeError(f"--port {port}: allowed: a whole number from 0, any that is free, to 65535.")
        try:
            self._server = _Quiet((LOOPBACK, port), self._handler())
        except OSError as error:
            raise GrokscopeError(
                f"Port {port} of {LOOPBACK} cannot be had: {error.strerror}; choose another --port, or 0."
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
        """The port that it listens at."""
        return self._server.server_address[1]

    @property
    def address(self) -> str:
        """The address of the page; who has it may read the page, from this machine."""
        return f"http://{LOOPBACK}:{self.port}/{self._token}/"

    def show(self, page: bytes, version: int, sentence: str) -> None:
        """Serve a page from now on; `version` is another for each page, and `sentence` says how the run stands."""
        self._shown = _Shown(page, version, json.dumps({"version": version, "sentence": sentence}).encode())

    def is_behind(self, seconds: float) -> bool:
        """Whether a page has asked for news in the last `seconds`, and has not loaded the newest page yet."""
        return time.monotonic() - self._asked_at < seconds and self._loaded != self._shown.version

    def _found(self, path: str) -> tuple[str, bytes] | None:
        """Return the kind and the content of what lies at a path, or None."""
        asked, shown = path.encode("latin-1", "replace"), self._shown
        if secrets.compare_digest(asked, f"/{self._token}/".encode()):
            self._loaded = shown.version
            return "text/html; charset=utf-8", shown.page
        if secrets.compare_digest(asked, f"/{self._token}/state".encode()):
            self._asked_at = time.monotonic()
            return "application/json", shown.state
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
                found = server._found(self.path)
                if found is None:
                    return self.send_error(HTTPStatus.NOT_FOUND)
                kind, content = found
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
                # What a policy in the page itself cannot say, and nothing of the address to anybody.
                self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Cross-Origin-Resource-Policy", "same-origin")
                self.send_header("Referrer-Policy", "no-referrer")
                self.send_header("Cache-Control", "no-store")
                super().end_headers()

            def version_string(self) -> str:
                return "grokscope"

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader that went away in the middle of an answer; a fault of our own is told as ever."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
