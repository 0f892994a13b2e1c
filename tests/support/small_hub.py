"""A hub of data sets on this machine: the part of the Hugging Face Hub's HTTP interface that reading one needs."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit


class Hub(BaseHTTPRequestHandler):
    """Answers with the files in folder/OWNER/NAME; every data set has one commit, which `main` and `v1` name."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    commit: ClassVar[str]
    asked: ClassVar[list[str]]
    """The paths that were asked for."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        self.asked.append(address.path)
        parts = unquote(address.path).strip("/").split("/")
        parts = parts[parts[0] == "api" :]
        _, owner, name, verb, revision, *path = [*parts, *[""] * (5 - len(parts))]
        place = self.folder / owner / name
        if parts[0] != "datasets" or not name:
            self._say(404)
        elif not place.is_dir():
            self._say(401, X_Error_Code="RepoNotFound")
        elif revision not in ("", "main", "v1", self.commit):
            self._say(404, X_Error_Code="RevisionNotFound")
        elif verb == "resolve":
            self._file(place.joinpath(*path))
        elif verb == "tree" and not place.joinpath(*path).exists():
            self._say(404, X_Error_Code="EntryNotFound")
        elif verb == "tree":
            self._json([self._entry(place, entry) for entry in sorted(place.joinpath(*path).iterdir())])
        else:
            self._json({"id": f"{owner}/{name}", "sha": self.commit})

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def _entry(self, place: Path, path: Path) -> dict[str, Any]:
        content = path.read_bytes() if path.is_file() else b""
        facts = {"type": "file" if path.is_file() else "directory", "oid": hashlib.sha1(content).hexdigest()}
        return facts | {"size": len(content), "path": path.relative_to(place).as_posix()}

    def _file(self, file: Path) -> None:
        if file.is_file():
            content = file.read_bytes()
            self._say(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=self.commit)
        else:
            self._say(404, X_Error_Code="EntryNotFound", X_Repo_Commit=self.commit)

    def _json(self, value: object) -> None:
        self._say(200, json.dumps(value).encode(), Content_Type="application/json")

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content_Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(folder: Path, commit: str = "0123456789" * 4) -> Iterator[tuple[str, list[str]]]:
    """Context in which the data sets in a folder are served; its address, and the list of what is asked for."""
    asked: list[str] = []
    handler = type("HubOf", (Hub,), {"folder": folder, "commit": commit, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
