"""A small server that speaks the hub's API as huggingface_hub calls it, with faults on demand."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BIG = 4096
"""Files from this size on are in LFS, whose hash is a SHA-256."""


@dataclass
class HubRepository:
    """What the hub has of a repository: files of one commit, and what is wrong with it."""

    files: dict[str, bytes]
    commit: str = "a" * 40
    gated: bool = False
    status: int = 200

    def digest(self, path: str) -> str:
        """The hash that the hub states."""
        content = self.files[path]
        if len(content) >= BIG:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """All repositories by `models/name` or `datasets/name`, faults, and what was served.

    `cut` says for a path after how many bytes the connection breaks, answer by answer; the last
    one holds for all that follow, None is a whole answer. Of `damaged` paths another content comes.
    """

    repositories: dict[str, HubRepository]
    url: str = ""
    cut: dict[str, list[int | None]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    served: dict[str, int] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)

    def environ(self, cache: Path) -> dict[str, str]:
        """Variables with which a process uses this hub and a cache of its own."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0",
                "HF_TOKEN": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip


def folder(path: Path) -> dict[str, bytes]:
    """The files of a folder, for a repository."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


@contextlib.contextmanager
def serving(repositories: dict[str, HubRepository]) -> Iterator[Hub]:
    """The hub, on a port of this machine."""
    hub = Hub(repositories)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "api":
            self._api(parts[1], "/".join(parts[2:4]), parts[4:])
            return
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        repository = self._repository(kind, "/".join(parts[:2]), parts[3])
        if repository:
            self._file(repository, "/".join(parts[4:]))

    def _api(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self._repository(kind, name, rest[1] if rest else "main")
        if repository is None:
            return
        if rest and rest[0] == "tree":
            self._json([{"type": "file", "path": path, **self._stated(repository, path, "oid")}
                        for path in repository.files])  # fmt: skip
            return
        siblings = [{"rfilename": path, **self._stated(repository, path, "sha256")}
                    for path in repository.files]  # fmt: skip
        self._json({"id": name, "sha": repository.commit, "siblings": siblings})

    def _stated(self, repository: HubRepository, path: str, name: str) -> dict[str, Any]:
        size, digest = len(repository.files[path]), repository.digest(path)
        if size < BIG:
            return {"size": size, "blobId" if name == "sha256" else "oid": digest}
        lfs = {name: digest, "size": size, "pointerSize": 134}
        return {"size": size, "blobId" if name == "sha256" else "oid": "f" * 40, "lfs": lfs}

    def _repository(self, kind: str, name: str, revision: str) -> HubRepository | None:
        found = self.hub.repositories.get(f"{kind}/{name}")
        if found is None:
            self._refuse(404, "RepoNotFound")
        elif found.status != 200:
            self._refuse(found.status, "")
        elif found.gated:
            self._refuse(403, "GatedRepo")
        elif revision not in ("main", found.commit):
            self._refuse(404, "RevisionNotFound")
        else:
            return found
        return None

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _json(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, repository: HubRepository, path: str) -> None:
        if path not in repository.files:
            self._refuse(404, "EntryNotFound")
            return
        content = repository.files[path]
        if path in self.hub.damaged:
            content = bytes(reversed(content))
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.hub.ranges.append(f"{path} from {start}")
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{repository.digest(path)}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self._send(path, content[start:])

    def _send(self, path: str, body: bytes) -> None:
        limits = self.hub.cut.get(path, [None])
        limit = limits.pop(0) if len(limits) > 1 else limits[0]
        if limit is not None and limit < len(body):
            body = body[:limit]
            self.close_connection = True
        self.hub.served[path] = self.hub.served.get(path, 0) + len(body)
        self.wfile.write(body)
