"""The server of a watched page: it answers only this machine, this host name, this path, GET and HEAD."""

import json
import re
import socket
import struct
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from grokscope import GrokscopeError
from grokscope.watch import Server

STATE = {"version": 3, "status": "Training is in progress."}


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        server.publish(b"<p>the page</p>", **STATE)
        yield server


def request(
    server: Server, method: str, path: str, hosts: list[str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request with these Host headers, by default the right one; return status, headers and content."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for host in [f"127.0.0.1:{server.port}"] if hosts is None else hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def page_path(server: Server) -> str:
    return "/" + server.address.split("/", 3)[3]


def test_page_and_state_are_served_with_safe_headers(server):
    assert server._server.socket.getsockname() == ("127.0.0.1", server.port)
    assert re.fullmatch(rf"http://127\.0\.0\.1:{server.port}/[A-Za-z0-9_-]{{43}}/", server.address)
    status, headers, content = request(server, "GET", page_path(server))
    assert (status, content) == (200, b"<p>the page</p>")
    assert headers["content-type"] == "text/html; charset=utf-8" and headers["content-length"] == "15"
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "frame-ancestors 'none'" and headers["server"] == "grokscope"
    assert not any(key.startswith("access-control") for key in headers)
    status, headers, content = request(server, "GET", page_path(server) + "state")
    assert (status, json.loads(content), headers["content-type"]) == (200, STATE, "application/json")


def test_head_equals_get_without_content(server):
    for path in (page_path(server), page_path(server) + "state"):
        status, headers, content = request(server, "HEAD", path)
        _, _, full_content = request(server, "GET", path)
        assert (status, content) == (200, b"") and headers["content-length"] == str(len(full_content))


def test_every_server_has_its_own_token(server):
    with Server() as second:
        assert page_path(second) != page_path(server)
        assert request(second, "GET", page_path(server))[0] == 404


def test_other_paths_are_not_found_without_a_hint(server):
    path = page_path(server)
    wrong_token = path[:-2] + ("A" if path[-2] != "A" else "B") + "/"
    variants = [path[:-1], path.lower(), "/." + path, wrong_token]
    variants += [path + suffix for suffix in ("?", "config.json", "../", "state/")]
    for wrong in ["/", "/state", "//", "*", "/favicon.ico", "/..%2f..%2fetc/passwd", *variants]:
        status, _, content = request(server, "GET", wrong)
        assert (status, content) == (404, b"404 Not Found\n"), wrong


def test_path_that_is_not_ascii_is_not_found(server, capsys):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"GET /\xe9/ HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode("latin-1"))
        assert client.recv(1000).startswith(b"HTTP/1.0 404 ")
    assert capsys.readouterr() == ("", "")


def test_other_host_names_are_refused(server):
    port, path = server.port, page_path(server)
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert request(server, "GET", path, [host])[0] == 200
    wrong = [
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        "localhost",
        f"127.0.0.1:{port + 1}",
        f"[::1]:{port}",
        "",
    ]
    for hosts in [[], *([host] for host in wrong), [f"localhost:{port}", "evil.example"], [f"localhost:{port}"] * 2]:
        for target in (path, path + "state", "/"):
            assert request(server, "GET", target, hosts)[0] == 403, hosts


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_get_and_head_are_answered(server, method):
    status, _, content = request(server, method, page_path(server))
    assert status == (501 if method == "BREW" else 405) and b"the page" not in content


def test_reader_that_disconnects_is_ignored(server, capsys):
    server.publish(b"x" * 2**24, 4, "")
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(f"GET {page_path(server)} HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        client.recv(1000)
    assert request(server, "GET", page_path(server) + "state")[0] == 200
    assert capsys.readouterr() == ("", "")


def test_port_that_is_not_available_is_refused(server):
    message = f"Port {server.port} of 127.0.0.1 is not available: .*another --port, or 0"
    with pytest.raises(GrokscopeError, match=message):
        Server(server.port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_number_that_is_not_a_port_is_refused(port):
    with pytest.raises(GrokscopeError, match=f"--port {port}: not a port. Allowed: .* to 65535"):
        Server(port)


def test_reader_is_outdated_until_it_loads_the_page(server):
    assert not server.has_outdated_reader(60)
    request(server, "GET", page_path(server) + "state")
    assert server.has_outdated_reader(60) and not server.has_outdated_reader(0)
    request(server, "GET", page_path(server))
    assert not server.has_outdated_reader(60)
