"""Fetching a repository into the hub's cache, and checking that it is what the hub states.

huggingface_hub goes on where a connection broke and keeps whole files, but compares no hashes, and
sizes only of what it has just downloaded (2.4.0): a file that was damaged on its way would be found
by a loss that is wrong, days later.
"""

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import BackendEnvironmentError, FtError, LaunchError
from orchestrator.files import STORAGE
from orchestrator.hub import cache, choosing, local
from orchestrator.hub.cache import RemoteFile, Repository, Snapshot

AGAIN = "run the same command again: what is there is not fetched twice"


def fetch(repository: Repository) -> Snapshot:
    """The repository's needed files, whole and right; only what is missing is downloaded.

    Raises:
        BackendEnvironmentError: it cannot be had; says why.
    """
    with _explained(repository):
        commit, files = _listing(repository)
        if commit == cache.commit_of(repository) and files == cache.receipt(repository, commit):
            found = cache.find(repository)
            if found:
                return found
        known = _of_others(repository, commit, files)
        if known:
            return known
        _enough_room(repository, commit, files)
        cache.begin(repository, commit)
        _drop_cut(repository, commit, files)
        folder = _download(repository, files)
        if folder.name != commit:
            raise BackendEnvironmentError(
                f"{_named(repository)} has changed while it was fetched", hint=AGAIN
            )
        _check(repository, folder, files)
    snapshot = Snapshot(repository, commit, folder, files)
    cache.write_receipt(snapshot)
    return snapshot


def _of_others(
    repository: Repository, commit: str, files: tuple[RemoteFile, ...]
) -> Snapshot | None:
    """What another program has fetched, if it is whole and right: nothing has to be written.

    A site's cache for all its users can only be read.
    """
    folder = cache.folder_of(repository) / "snapshots" / commit
    there = all(cache.size(folder / file.path) == file.size for file in files)
    if commit != cache.commit_of(repository) or not there or cache.differing(folder, files):
        return None
    snapshot = Snapshot(repository, commit, folder, files)
    with suppress(LaunchError):
        cache.write_receipt(snapshot)
    return snapshot


def from_cache(repository: Repository) -> Snapshot:
    """What an earlier `fetch`, or another program, has left here.

    Raises:
        BackendEnvironmentError: it is not there, or not whole.
    """
    found = cache.find(repository)
    lacks = ""
    if found and not found.files and repository.kind == "model" and not repository.files:
        lacks = local.flaw(found.folder)  # who asked for the tokenizer only has left that
    if found is None or lacks:
        why = f"is in the cache in part only: {lacks}" if lacks else "is not in the cache"
        raise BackendEnvironmentError(
            f"{_named(repository)} {why}",
            hint=f"cache: {cache.root()}; fetch it where there is a network, name a local folder, "
            "or try --smoke, which needs neither model nor network",
        )
    return found


def _listing(repository: Repository) -> tuple[str, tuple[RemoteFile, ...]]:
    """The commit of the revision now, and its needed files as the hub states them."""
    from huggingface_hub import HfApi

    api = HfApi()
    ask = api.model_info if repository.kind == "model" else api.dataset_info
    found = ask(repository.name, revision=repository.revision, files_metadata=True)
    known = {
        file.rfilename: RemoteFile(
            file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id or ""
        )
        for file in found.siblings or ()
    }
    return str(found.sha), tuple(known[path] for path in _needed(repository, known))


def _needed(repository: Repository, known: Collection[str]) -> list[str]:
    """The paths to fetch.

    Raises:
        BackendEnvironmentError: the repository does not have what it is needed for.
    """
    if repository.files:
        needed, lacks = choosing.matching(known, repository.files), ", ".join(repository.files)
    elif repository.kind == "model":
        needed, lacks = choosing.of_model(known), "config.json"
        if lacks in needed:
            lacks = choosing.WEIGHTS_WORDS
            needed = needed if choosing.weights_of(known) else []
        else:
            needed = []
    else:
        needed, lacks = choosing.of_dataset(known), "files"
    if not needed:
        raise BackendEnvironmentError(
            f"{_named(repository)} has no {lacks}",
            hint="is it a model in the format of transformers?"
            if repository.kind == "model"
            else "look at the data set's page, and at `files` of the source",
        )
    return needed


def _drop_cut(repository: Repository, commit: str, files: tuple[RemoteFile, ...]) -> None:
    """Delete files of another size, which would be taken for done."""
    folder = cache.folder_of(repository) / "snapshots" / commit
    for file in files:
        path = folder / file.path
        if path.is_file() and path.stat().st_size != file.size:
            cache.forget(folder, file)


def _enough_room(repository: Repository, commit: str, files: tuple[RemoteFile, ...]) -> None:
    """What is still missing fits on the disk, as far as it says: a quota does not show.

    Raises:
        BackendEnvironmentError: it does not, which an hour of downloading would show too.
    """
    home = cache.folder_of(repository)
    folder = home / "snapshots" / commit
    missing = sum(file.size for file in files if cache.size(folder / file.path) != file.size)
    begun = sum(cache.size(part) or 0 for part in home.glob("blobs/*.incomplete"))
    place = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if missing - begun > free:
        some = "; or name the `files` of the source that are wanted"
        raise BackendEnvironmentError(
            f"{_named(repository)} needs {missing / 1e9:,.1f} GB in {cache.root()}, where "
            f"{free / 1e9:,.1f} GB are free",
            hint="make room, or set HF_HOME to a folder on a larger disk"
            f"{some if repository.kind == 'dataset' else ''}",
        )


def _download(repository: Repository, files: tuple[RemoteFile, ...]) -> Path:
    import glob

    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repository.name,
            revision=repository.revision,
            repo_type=repository.kind,
            allow_patterns=[glob.escape(file.path) for file in files],
        )
    )


def _check(repository: Repository, folder: Path, files: tuple[RemoteFile, ...]) -> None:
    """Hash what was fetched.

    Raises:
        BackendEnvironmentError: a file is another one; it is deleted.
    """
    wrong = cache.differing(folder, files)
    for file in wrong:
        cache.forget(folder, file)
    if wrong:
        names = ", ".join(file.path for file in wrong)
        raise BackendEnvironmentError(
            f"{_named(repository)}: {names} is not what the hub states (size or hash differ), "
            "and was deleted",
            hint=f"{AGAIN}; if it happens each time, a proxy or mirror delivers another file",
        )


def _named(repository: Repository) -> str:
    at = f" at {repository.revision}" if repository.revision else ""
    return f"the {repository.kind} {repository.name}{at}"


@contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    """The hub's failures in words, each with a way out."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except FtError:
        raise
    except GatedRepoError as error:
        raise BackendEnvironmentError(
            f"the {repository.kind} {repository.name} is gated",
            hint="accept its terms on its page, then `hf auth login` or set HF_TOKEN",
        ) from error
    except RevisionNotFoundError as error:
        raise BackendEnvironmentError(
            f"the {repository.kind} {repository.name} has no revision {repository.revision!r}",
            hint="give a branch, a tag or a commit that its page shows",
        ) from error
    except RepositoryNotFoundError as error:
        raise BackendEnvironmentError(
            f"the hub has no {repository.kind} {repository.name}, or it is private",
            hint="check the spelling; for a private one set HF_TOKEN; for a local folder give "
            "its path",
        ) from error
    except HfHubHTTPError as error:
        raise BackendEnvironmentError(
            f"{_named(repository)} cannot be fetched: {_first_line(error)}",
            hint=_status_hint(error.response.status_code),
        ) from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(repository) from error
    except Exception as error:  # of the library that the hub's client uses, which has changed twice
        raise _not_kept(repository, error) or _unreachable(
            repository, _first_line(error)
        ) from error


def _not_kept(repository: Repository, error: Exception) -> BackendEnvironmentError | None:
    """What to say when the place of the cache is at fault, not the hub."""
    number = error.errno if isinstance(error, OSError) else None
    full = [code for code in (errno.ENOSPC, errno.EDQUOT) if os.strerror(code) in str(error)]
    number = full[0] if full else number  # not every downloader raises an OSError
    if number not in STORAGE:
        return None
    place = getattr(error, "filename", None) or cache.root()
    return BackendEnvironmentError(
        f"{_named(repository)} cannot be kept in {place}: {os.strerror(number)}",
        hint=f"{STORAGE[number]}, or set HF_HOME to a folder on a larger disk; {AGAIN}",
    )


def _unreachable(repository: Repository, why: str = "") -> BackendEnvironmentError:
    reason = f" ({why})" if why else ""
    return BackendEnvironmentError(
        f"{_named(repository)} cannot be fetched: the hub cannot be reached, or breaks off{reason}",
        hint=f"{AGAIN}; look at the network, at HTTPS_PROXY and HF_ENDPOINT; without a network "
        "name local folders, carry it over with `ft fetch RECIPE --bundle DIR`, or try --smoke",
    )


def _status_hint(status: int) -> str:
    if status in (401, 403):
        return "`hf auth login` or set HF_TOKEN; the token must be allowed to read it"
    if status == 429:
        return f"wait some minutes; with `hf auth login` or HF_TOKEN the hub allows more; {AGAIN}"
    if status >= 500:
        return f"the hub has a fault: {AGAIN} later"
    return AGAIN


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
