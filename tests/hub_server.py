"""A small Hub on the loopback, over real HTTP, with the endpoints that huggingface_hub's client uses, and its faults.

Repositories are kept in memory: each revision is the SHA of a commit, and a commit is a mapping of path to content.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

WRITE, READ, GUEST = "hf_write", "hf_read", "hf_guest"
"""Tokens: of the user ``ada``, of the same user but for reading only, and of another user."""
_TOKENS = {WRITE: ("ada", "write"), READ: ("ada", "read"), GUEST: ("guest", "write")}


@dataclass
class Repository:
    """Branches and pull requests by name, and the files of each commit."""

    private: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def commit(self, ref: str, files: dict[str, bytes]) -> str:
        parent = self.refs.get(ref, "")
        sha = hashlib.sha1(f"{parent}{time.monotonic_ns()}".encode()).hexdigest()
        self.commits[sha] = files
        self.refs[ref] = sha
        return sha


@dataclass
class Fault:
    """What happens instead, ``times`` times, to requests that match."""

    method: str
    pattern: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    cut_after: int | None = None
    """Read so many bytes of the request's body, then cut the connection."""


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.bytes_per_second: int | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is part of the play."""

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, pattern: str) -> int:
        return sum(seen == method and bool(re.search(pattern, path)) for seen, path in self.requests)


@contextmanager
def serve():
    """A running :class:`Hub`."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


def is_large(path: str, content: bytes) -> bool:
    return path.endswith((".safetensors", ".png")) or len(content) > 10_000_000


def blob_id(path: str, content: bytes) -> str:
    if is_large(path, content):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Answer(Exception):
    """What a request gets: a status, JSON or bytes, and headers."""

    def __init__(self, status: int, content: dict | list | bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        self.body = content if isinstance(content, bytes) else json.dumps(content).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do(self) -> None:
        try:
            self.answer()
        except _Answer as answer:
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = do_PUT = do

    def answer(self) -> None:
        parts = urlsplit(self.path)
        path, self.query = unquote(parts.path), parse_qs(parts.query)
        self.server.requests.append((self.command, path))
        fault = self.server.fault_for(self.command, path)
        length = int(self.headers.get("Content-Length", 0))
        if fault and fault.cut_after is not None:
            self.rfile.read(min(fault.cut_after, length))
            self.connection.close()
            self.close_connection = True
            return
        self.body = self.read(length)
        if fault:
            raise _Answer(fault.status, {"error": f"played fault {fault.status}"}, fault.headers)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user, self.role = _TOKENS.get(token, (None, None))
        if token and not self.user:
            raise _Answer(401, {"error": "Invalid credentials in Authorization header"})
        for method, pattern, function in _ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                function(self, *match.groups())
        raise _Answer(404, {"error": f"no route for {self.command} {path}"})

    def read(self, length: int) -> bytes:
        rate = self.server.bytes_per_second
        if not rate:
            return self.rfile.read(length)
        content = b""
        while len(content) < length:
            content += self.rfile.read(min(rate // 10, length - len(content)))
            time.sleep(0.1)
        return content

    def repository(self, name: str, write: bool = False) -> Repository:
        found = self.server.repositories.get(name)
        if found is None or (found.private and self.user != name.split("/")[0]):
            status = 401 if self.user is None else 404
            raise _Answer(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if write and (self.user != name.split("/")[0] or self.role != "write"):
            raise _Answer(403, {"error": "You don't have the rights to write to this repository"})
        return found

    def revision(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        """The SHA and the files of a revision."""
        repository = self.repository(name)
        sha = repository.resolve(revision)
        if sha is None:
            raise _Answer(404, {"error": f"Invalid rev id: {revision}"}, {"X-Error-Code": "RevisionNotFound"})
        return sha, repository.commits[sha]

    def whoami(self) -> None:
        if self.user is None:
            raise _Answer(401, {"error": "Invalid username or password."})
        access = {"accessToken": {"role": self.role, "displayName": "test"}, "type": "access_token"}
        raise _Answer(200, {"type": "user", "name": self.user, "orgs": [], "auth": access})

    def create_repository(self) -> None:
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or self.user
        name = f"{owner}/{wanted['name']}"
        if owner != self.user or self.role != "write":
            raise _Answer(403, {"error": f"You don't have the rights to create a model under the namespace {owner}"})
        if name in self.server.repositories:
            raise _Answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
        repository = self.server.repositories[name] = Repository(private=wanted.get("visibility") == "private")
        repository.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        raise _Answer(200, {"url": f"{self.server.url}/{name}", "name": name})

    def check_access(self, name: str, write: str | None) -> None:
        self.repository(name, write=bool(write))
        raise _Answer(200, {})

    def info(self, name: str, revision: str = "main") -> None:
        sha, files = self.revision(name, revision)
        siblings = [{"rfilename": path} for path in files]
        private = self.server.repositories[name].private
        names = {"id": name, "modelId": name, "sha": sha, "private": private}
        raise _Answer(200, {**names, "siblings": siblings, "tags": [], "downloads": 0})

    def tree(self, name: str, revision: str, folder: str | None = None) -> None:
        entries = []
        sha, files = self.revision(name, revision)
        if folder and not any(path.startswith(f"{folder}/") for path in files):
            raise _Answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        for path, content in files.items():
            if folder and not path.startswith(f"{folder}/"):
                continue
            entry = {"type": "file", "path": path, "size": len(content), "oid": blob_id(path, content)}
            if is_large(path, content):
                entry["lfs"] = {"oid": blob_id(path, content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        raise _Answer(200, entries)

    def preupload(self, name: str, revision: str) -> None:
        self.repository(name, write="create_pr" not in self.query)
        present = self.revision(name, revision)[1]
        answers = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if is_large(path, b"") or file["size"] > 10_000_000 else "regular"
            known = blob_id(path, present[path]) if path in present else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        raise _Answer(200, {"files": answers})

    def batch(self, name: str) -> None:
        self.repository(name, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.objects:
                href = f"{self.server.url}/lfs/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            objects.append(entry)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Answer(400, {"error": "the content is not that of this oid"})
        self.server.objects[oid] = self.body
        raise _Answer(200)

    def verify(self, oid: str) -> None:
        stored = self.server.objects.get(oid)
        complete = stored is not None and len(stored) == json.loads(self.body)["size"]
        raise _Answer(200 if complete else 404, {})

    def commit(self, name: str, revision: str) -> None:
        pull_request = "create_pr" in self.query
        repository = self.repository(name, write=not pull_request)
        files = dict(self.revision(name, revision)[1])
        for line in self.body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.server.objects:
                    raise _Answer(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = self.server.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"])
        ref = f"refs/pr/{len(repository.refs)}" if pull_request else revision
        sha = repository.commit(ref, files)
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"}
        if pull_request:
            answer["pullRequestUrl"] = f"{self.server.url}/{name}/discussions/{ref.rpartition('/')[2]}"
        raise _Answer(200, answer)

    def branch(self, name: str, branch: str) -> None:
        repository = self.repository(name, write=True)
        if branch in repository.refs:
            raise _Answer(409, {"error": "Reference already exists"})
        repository.refs[branch] = repository.refs["main"]
        raise _Answer(200, {})

    def validate_card(self) -> None:
        raise _Answer(200, {"errors": [], "warnings": []})

    def resolve(self, name: str, revision: str, path: str) -> None:
        sha, files = self.revision(name, revision)
        if path not in files:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            raise _Answer(404, {"error": "Entry not found"}, missing)
        content = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob_id(path, content)}"', "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            raise _Answer(206, content[start : end + 1], headers)
        raise _Answer(200, content, headers)


_NAME = r"([\w.-]+/[\w.-]+)"
_REVISION = r"(refs/pr/\d+|[^/]+)"
_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create_repository),
    ("POST", "/api/validate-yaml", _Handler.validate_card),
    ("GET", f"/api/models/{_NAME}/auth-check(/write)?", _Handler.check_access),
    ("GET", f"/api/models/{_NAME}", _Handler.info),
    ("GET", f"/api/models/{_NAME}/revision/(.+)", _Handler.info),
    ("GET", f"/api/models/{_NAME}/tree/{_REVISION}(?:/(.+))?", _Handler.tree),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", _Handler.branch),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/([0-9a-f]{64})", _Handler.upload),
    ("POST", "/lfs/([0-9a-f]{64})/verify", _Handler.verify),
    ("GET", f"/{_NAME}/resolve/{_REVISION}/(.+)", _Handler.resolve),
    ("HEAD", f"/{_NAME}/resolve/{_REVISION}/(.+)", _Handler.resolve),
]
