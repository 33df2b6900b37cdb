"""The hub's cache on disk: what is there, whether it is whole, and putting files into it.

The layout is the documented one of huggingface_hub: `models--org--name/` with `refs/<revision>`,
`snapshots/<commit>/<file>` and `blobs/<hash>`, to which the files are links. Beside it, in `ft/`,
is a receipt for each commit that ft has fetched: what the hub says that each file is, written once
all of them were checked.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.files import read_json, write_json

Kind = Literal["model", "dataset"]
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository as a recipe names it; `files` are the wanted ones, if not all that is needed."""

    kind: Kind
    name: str
    revision: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the hub states it: its digest is a SHA-256, or git's SHA-1 of a small file."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at a commit, in the cache. Without a receipt `files` is empty."""

    repository: Repository
    commit: str
    folder: Path
    files: tuple[RemoteFile, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.size for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        """For records and `--json`."""
        return {
            "kind": self.repository.kind,
            "id": self.repository.name,
            "revision": self.repository.revision,
            "commit": self.commit,
            "path": str(self.folder),
            "files": len(self.files),
            "bytes": self.bytes,
        }


def root() -> Path:
    """The cache's folder, as huggingface_hub sees it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def folder_of(repository: Repository) -> Path:
    """Where a repository is kept."""
    return root() / "--".join([f"{repository.kind}s", *repository.name.split("/")])


def commit_of(repository: Repository) -> str | None:
    """The commit that the cache knows a revision as."""
    revision = repository.revision or DEFAULT_REVISION
    if COMMIT.fullmatch(revision):
        return revision
    try:
        return (folder_of(repository) / "refs" / revision).read_text("utf-8").strip() or None
    except OSError:
        return None


def find(repository: Repository) -> Snapshot | None:
    """The repository in the cache, if it is whole as far as can be told without a network.

    What other programs have fetched has no receipt; it counts unless a download was broken off.
    """
    commit = commit_of(repository)
    if commit is None:
        return None
    home = folder_of(repository)
    folder = home / "snapshots" / commit
    files = receipt(repository, commit)
    if files:
        whole = all(size(folder / file.path) == file.size for file in files)
    else:
        broken_off = _begun_file(repository, commit).exists() or any(
            home.glob("blobs/*.incomplete")
        )
        whole = folder.is_dir() and not broken_off
    return Snapshot(repository, commit, folder, files) if whole else None


def _receipt_file(repository: Repository, commit: str) -> Path:
    return folder_of(repository) / "ft" / f"{commit}.json"


def _begun_file(repository: Repository, commit: str) -> Path:
    return folder_of(repository) / "ft" / f"{commit}.begun"


def begin(repository: Repository, commit: str) -> None:
    """Mark a commit as one that is being fetched: what is there is not all, until the receipt."""
    write_json(_begun_file(repository, commit), {"wanted": sorted(repository.files)})


def receipt(repository: Repository, commit: str) -> tuple[RemoteFile, ...]:
    """What was fetched and checked of a commit; empty if that was never finished."""
    known = read_json(_receipt_file(repository, commit))
    if not isinstance(known, dict) or known.get("wanted") != sorted(repository.files):
        return ()
    return tuple(RemoteFile(**file) for file in known["files"])


def write_receipt(snapshot: Snapshot) -> None:
    """Remember that a snapshot is whole and right."""
    document = {
        "wanted": sorted(snapshot.repository.files),
        "files": [asdict(file) for file in snapshot.files],
    }
    write_json(_receipt_file(snapshot.repository, snapshot.commit), document)
    _begun_file(snapshot.repository, snapshot.commit).unlink(missing_ok=True)


def differing(folder: Path, files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files that are not what the hub states, by size and then by hash."""
    return [
        file
        for file in files
        if size(folder / file.path) != file.size or digest(folder / file.path, file) != file.digest
    ]


def digest(path: Path, stated: RemoteFile) -> str:
    """A file's digest of the kind that the hub states for it."""
    with path.open("rb") as handle:
        if len(stated.digest) == 64:
            return hashlib.file_digest(handle, "sha256").hexdigest()
        made = hashlib.sha1(f"blob {stated.size}\0".encode(), usedforsecurity=False)
        while chunk := handle.read(1 << 20):
            made.update(chunk)
    return made.hexdigest()


def forget(folder: Path, file: RemoteFile) -> None:
    """Delete a file of a snapshot with what it links to, so that it is fetched anew."""
    path = folder / file.path
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def place(snapshot: Snapshot, source: Path) -> Snapshot:
    """Put files that lie in `source` into the cache as if they had been fetched.

    They are linked where the file system can, so that they do not take their room twice.
    """
    home = folder_of(snapshot.repository)
    folder = home / "snapshots" / snapshot.commit
    for file in snapshot.files:
        blob, link = home / "blobs" / file.digest, folder / file.path
        if size(blob) != file.size or digest(blob, file) != file.digest:
            put(source / file.path, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, link.parent))
        except OSError:  # a file system without links
            put(blob, link)
    revision = snapshot.repository.revision or DEFAULT_REVISION
    if not COMMIT.fullmatch(revision):
        reference = home / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(snapshot.commit, "utf-8")
    placed = Snapshot(snapshot.repository, snapshot.commit, folder, snapshot.files)
    write_receipt(placed)
    return placed


def put(source: Path, target: Path) -> None:
    """Make `target` the same file, or a copy; it is there whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


def size(path: Path) -> int | None:
    """Bytes of a file; None if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None
