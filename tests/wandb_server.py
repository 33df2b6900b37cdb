"""A small server that answers `wandb sync` as wandb's own does, and keeps what it was sent."""

import contextlib
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

RUN = {
    "id": "x", "name": "r", "displayName": "r", "description": "", "config": "{}",
    "sweepName": None, "historyLineCount": 0,
    "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}},
}  # fmt: skip


@dataclass
class Received:
    """The server's address, the rows of history, and the names of the files that it was sent."""

    url: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


@contextlib.contextmanager
def receiving() -> Iterator[Received]:
    """The server, on a port of this machine."""
    received = Received()
    handler = type("Handler", (_Handler,), {"received": received})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        received.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    received: Received

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self.received.files.append(self.path.removeprefix("/upload/"))
        self._reply({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            self._reply({"data": self._answer(json.loads(body))})
            return
        if self.path.endswith("file_stream"):
            for line in json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get(
                "content", []
            ):  # fmt: skip
                self.received.history.append(json.loads(line))
        self._reply({"exitcode": None, "limits": {}})

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        self.received.keys.add(self.headers.get("Authorization", ""))
        if "upsertBucket" in question["query"]:
            return {"upsertBucket": {"bucket": RUN, "inserted": True}}
        if "createRunFiles" in question["query"]:
            files = [{"name": name, "uploadUrl": f"{self.received.url}/upload/{name}"}
                     for name in question["variables"]["files"]]  # fmt: skip
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        return {}

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _reply(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
