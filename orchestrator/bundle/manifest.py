"""What is in a bundle: written last, so that a folder without it is a bundle that was not finished.

```
manifest.json          this: every file with size and SHA-256, repositories with their commits
recipe.yaml            resolved; local files by their place in the bundle
repositories/          models and data sets of the hub, as plain files: no links, for any disk
data/ model/ files/    what the recipe names by path
wheels/<lock>/         the backend's packages, as its hashed lock has them
bin/uv                 what installs them
```
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from orchestrator.errors import BackendEnvironmentError, UsageError
from orchestrator.files import read_json, write_atomic, write_json

FILE = "manifest.json"
UNFINISHED = ".unfinished"
Progress = Callable[[int, int], None]


def _inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{text!r} is no path inside the bundle")
    return text


Inside = Annotated[str, AfterValidator(_inside)]


class Part(BaseModel):
    """Base of what a manifest says: it has crossed a gap, so it is read strictly."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class File(Part):
    """A file of the bundle."""

    path: Inside
    size: int
    sha256: str


class CarriedFile(Part):
    """A file of a repository as the hub states it."""

    path: Inside
    size: int
    digest: str


class Carried(Part):
    """A repository of the hub at a commit."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None
    wanted: list[str]
    commit: str
    folder: Inside
    files: list[CarriedFile]


class Wheels(Part):
    """Packages of one lock."""

    folder: Inside
    backend: str
    build: Literal["cpu", "cuda"]
    digest: str


class Manifest(Part):
    """The whole manifest."""

    version: Literal[1]
    ft: str
    made: str
    recipe: str
    backend: str
    repositories: list[Carried]
    wheels: Wheels | None
    files: list[File]

    @property
    def bytes(self) -> int:
        """Size of the bundle."""
        return sum(file.size for file in self.files)


def begin(folder: Path) -> None:
    """Mark a folder as a bundle that is being made.

    Raises:
        UsageError: it holds something else.
    """
    known = (folder / FILE).exists() or (folder / UNFINISHED).exists()
    if folder.exists() and not known and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is, or holds, something else than a bundle",
            hint="name an empty or a new folder",
        )
    write_atomic(folder / UNFINISHED, "")
    (folder / FILE).unlink(missing_ok=True)


def finish(folder: Path, manifest: Manifest) -> None:
    """Make it a whole bundle."""
    write_json(folder / FILE, manifest.model_dump(mode="json"))
    (folder / UNFINISHED).unlink(missing_ok=True)


def files_in(folder: Path) -> Iterator[Path]:
    """Every file of a bundle but its manifest."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in (FILE, UNFINISHED):
            yield path


def sha256(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def listed(folder: Path, progress: Progress) -> list[File]:
    """Every file of a bundle with its size and hash."""
    found = list(files_in(folder))
    total, done, files = sum(path.stat().st_size for path in found), 0, []
    for path in found:
        size = path.stat().st_size
        name = path.relative_to(folder).as_posix()
        files.append(File(path=name, size=size, sha256=sha256(path)))
        done += size
        progress(done, total)
    return files


def read(folder: Path) -> Manifest:
    """The manifest of a whole bundle.

    Raises:
        UsageError: there is no bundle.
        BackendEnvironmentError: it is not finished, or its manifest is damaged.
    """
    if (folder / UNFINISHED).exists():
        raise BackendEnvironmentError(
            f"the bundle {folder} is not finished",
            hint=f"make it whole where it was begun: ft fetch RECIPE --bundle {folder.name}",
        )
    document = read_json(folder / FILE)
    if document is None and not (folder / FILE).exists():
        raise UsageError(
            f"{folder} is no bundle: it has no {FILE}", hint="name the bundle's folder"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or FILE
        raise BackendEnvironmentError(
            f"{folder / FILE} is damaged, or of another ft: {place}: {first['msg']}",
            hint="copy the bundle again, or make it with this ft",
        ) from error


def check(folder: Path, manifest: Manifest, progress: Progress) -> None:
    """Every file is what the manifest says.

    Raises:
        BackendEnvironmentError: files are missing or are others; the first ones are named.
    """
    total, done, wrong = manifest.bytes, 0, []
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file():
            wrong.append(f"{file.path} is missing")
        elif path.stat().st_size != file.size:
            wrong.append(f"{file.path} has {path.stat().st_size:,} bytes instead of {file.size:,}")
        elif sha256(path) != file.sha256:
            wrong.append(f"{file.path} has another content")
        done += file.size
        progress(done, total)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise BackendEnvironmentError(
            f"the bundle {folder} was damaged on its way: {', '.join(wrong[:3])}{more}",
            hint="copy these files again (rsync -c copies only what differs)",
        )
