"""A server on this machine that speaks as much of the Hub's file API as downloading and uploading a model takes.

Tests start it, point HF_ENDPOINT at it in a process of its own (`huggingface_hub` reads the variable once, on import),
and look at the requests that came.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parent.parent


class Request(NamedTuple):
    """One request that the server got."""

    method: str
    path: str
    range: str | None
    authorization: str | None


class HubServer:
    """Repositories by id, each a dict from paths to bytes.

    Attributes:
        repositories: what there is to serve; may be changed while the server runs.
        tokens: repository id -> the token it asks for; without it the repository does not exist.
        gated: ids of repositories whose files are refused.
        cut: path of a file -> number of bytes after which the connection is dropped, once.
        broken: answer everything by status 500.
        requests: what was asked, in order.
        commits: what was pushed, in order: repository, revision, message, and the description of each.
        read_only: repositories that nobody may write to.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.tokens: dict[str, str] = {}
        self.gated: set[str] = set()
        self.cut: dict[str, int] = {}
        self.broken = False
        self.requests: list[Request] = []
        self.commits: list[dict[str, str]] = []
        self.read_only: set[str] = set()
        self.url = ""

    def commit(self, repository: str) -> str:
        """The commit that the branch `main` stands for: it follows from the contents."""
        digest = hashlib.sha1()
        for path, content in sorted(self.repositories[repository].items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()

    def files_fetched(self) -> list[str]:
        """Paths of the files whose contents were asked for."""
        return [path.split("/resolve/")[1].split("/", 1)[1] for path in self._resolved("GET")]

    def _resolved(self, method: str) -> list[str]:
        return [request.path for request in self.requests if request.method == method and "/resolve/" in request.path]

    def run(self, program: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a process whose Hub is this server and whose cache is below `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**kept, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@contextmanager
def serve() -> Iterator[HubServer]:
    """Start a server on a free port and stop it at the end."""
    hub = HubServer()

    class Handler(_Handler):
        server_state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_state: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        """Make a repository or a branch, or take a commit."""
        hub = self.server_state
        content = self._body()
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        hub.requests.append(Request("POST", path, None, authorization))
        if not authorization:
            return self._refuse(401, "RepoNotFound", True)
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name in hub.read_only:
                return self._refuse(403, "Forbidden", True)
            if name in hub.repositories:
                return self._send_json({"url": f"{hub.url}/{name}"}, status=409)
            hub.repositories[name] = {}
            return self._send_json({"url": f"{hub.url}/{name}"})
        owner, name, verb, *rest = path.removeprefix("/api/models/").split("/", 3)
        revision = "".join(rest)
        repository = f"{owner}/{name}"
        if verb == "branch":
            return self._send_json({})
        if verb == "discussions":
            return self._send_json({"num": 7})
        if verb == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(content)["files"]
            ]
            return self._send_json({"files": files})
        lines = [json.loads(line) for line in content.splitlines()]
        for line in lines:
            if line["key"] == "file":
                hub.repositories[repository][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        header = next(line["value"] for line in lines if line["key"] == "header")
        hub.commits.append(
            {
                "repository": repository,
                "revision": revision,
                "message": header["summary"],
                "description": header["description"],
                "pull_request": "create_pr=1" in urlsplit(self.path).query or revision.startswith("refs/pr/"),
            }
        )
        commit = hub.commit(repository)
        answer = {"commitUrl": f"{hub.url}/{repository}/commit/{commit}", "commitOid": commit}
        if hub.commits[-1]["pull_request"]:
            answer["pullRequestUrl"] = f"{hub.url}/{repository}/discussions/7"
        return self._send_json(answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _send_json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"}, True)

    def log_message(self, *arguments: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        hub = self.server_state
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization")
        hub.requests.append(Request(self.command, path, self.headers.get("Range"), authorization))
        if hub.broken:
            return self._send(500, b"", {}, body)
        is_api = path.startswith("/api/models/")
        repository = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        rest = path.split(repository, 1)[1].strip("/") if repository else ""
        token = hub.tokens.get(repository)
        if repository not in hub.repositories or (token and authorization != f"Bearer {token}"):
            return self._refuse(401, "RepoNotFound", body)
        commit = hub.commit(repository)
        files = hub.repositories[repository]
        verb, _, rest = rest.partition("/")
        revision, _, file = rest.partition("/")
        if verb == "discussions":
            details = {
                "num": 7,
                "title": "Please",
                "status": "open",
                "isPullRequest": True,
                "events": [],
                "changes": {"base": "refs/heads/main"},
                "filesWithConflicts": [],
                "diff": "",
                "author": {},
                "repo": {"name": repository, "type": "model"},
                "createdAt": "2026-01-01T00:00:00.000Z",
            }
            return self._send(200, json.dumps(details).encode(), {"Content-Type": "application/json"}, body)
        if verb and revision not in ("main", commit, "refs"):
            return self._refuse(404, "RevisionNotFound", body)
        if is_api:
            if verb == "tree":
                listing = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            else:
                names = [{"rfilename": name} for name in files]
                listing = {"id": repository, "modelId": repository, "sha": commit, "private": False, "siblings": names}
            return self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
        if repository in hub.gated:
            return self._refuse(403, "GatedRepo", body)
        if file not in files:
            return self._refuse(404, "EntryNotFound", body, {"X-Repo-Commit": commit})
        return self._send_file(file, files[file], commit, body)

    def _send_file(self, name: str, content: bytes, commit: str, body: bool) -> None:
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": commit,
            "Accept-Ranges": "bytes",
        }
        status, part = 200, content
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(content)
            status, part = 206, content[start:stop]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        if body and name in self.server_state.cut:
            self._send(status, part, headers, body, stop_after=self.server_state.cut.pop(name))
        else:
            self._send(status, part, headers, body)

    def _refuse(self, status: int, code: str, body: bool, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})}, body)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], body: bool, stop_after: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[:stop_after])
        if stop_after is not None:
            self.wfile.flush()
            self.close_connection = True
