"""A local server with the part of the Hugging Face Hub's interface that a push and a pull use."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Repositories in memory. Files that end in .safetensors are large files, the others are git blobs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.n_received: list[int] = []
        """The number of files in each commit."""
        self.n_sent = 0
        self.fails_after: int | None = None
        """After so many requests for commits or contents, the server answers 500; None never fails."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def is_failing(self) -> bool:
        if self.fails_after is None:
            return False
        self.fails_after -= 1
        return self.fails_after < 0


class Handler(BaseHTTPRequestHandler):
    server: HubServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        path, body = urlparse(self.path).path, self.body()
        if path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted['organization']}/{wanted['name']}"
            status = 409 if repo in self.server.repos else 200
            self.server.repos.setdefault(repo, {})
            self.answer({"url": f"{self.server.address}/{repo}"}, status)
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            self.answer({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.server.address}/upload/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            if self.server.is_failing():
                return self.answer({"error": "out of order"}, 400)
            name = "/".join(path.split("/")[3:5])
            repo = self.server.repos[name]
            operations = [json.loads(line) for line in body.splitlines()]
            for operation in operations:
                value = operation["value"]
                if operation["key"] == "file":
                    repo[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile":
                    repo[value["path"]] = self.server.objects[value["oid"]]
            self.server.n_received.append(len(operations) - 1)
            address = f"{self.server.address}/{name}/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": address})
        else:
            self.answer({"error": path}, 404)

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_GET(self) -> None:
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo = self.server.repos.get("/".join(parts[2:4]))
            if repo is None:
                return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            if len(parts) > 4 and parts[4] == "tree":
                return self.answer([entry(name, content) for name, content in repo.items()])
            files = [{"rfilename": name} for name in repo]
            return self.answer({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": files})
        repo, name = self.server.repos.get("/".join(parts[:2]), {}), "/".join(parts[4:])
        if name not in repo:
            return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        if self.command == "GET":
            if self.server.is_failing():
                return self.answer({"error": "out of order"}, 400)
            self.server.n_sent += 1
        self.answer(repo[name], ETag=f'"{hashlib.sha256(repo[name]).hexdigest()}"')

    do_HEAD = do_GET


def entry(name: str, content: bytes) -> dict[str, object]:
    """Return a file's entry in the list of a repository."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    described: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if name.endswith(".safetensors"):
        digest = hashlib.sha256(content).hexdigest()
        described["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return described


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Serve an empty Hub inside the block."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
