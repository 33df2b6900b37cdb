"""Takes the wheels of other Pythons out of a lock.

    python tools/lock_wheels.py LOCK PYLOCK PYTHON...

A few packages have one wheel per Python without anything compiled in it: `py310-none-any`,
`py311-none-any` and so on. By its tag such a wheel also fits every newer Python, and an index that
lists only one of them gets it installed, but what is inside holds for its own Python (multiprocess
0.70.19 for 3.10 cannot start a process in 3.11). So the lock must not allow it.

PYLOCK is the same lock as `uv pip compile --format pylock.toml` writes it, which has the names of
the files. Of each such package in LOCK, only the hashes of files for one of the PYTHONs stay. Where
the Pythons need different files, the package gets one line for each.
"""

import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

TAG = re.compile(r"(?:py|cp)3(\d+)$")


def minors(file: str) -> set[str]:
    """The Pythons a wheel without compiled code was made for; empty if it names none of them."""
    if not file.endswith(".whl"):
        return set()
    python, abi, _platform = file.removesuffix(".whl").rsplit("-", 3)[1:]
    found = [TAG.match(tag) for tag in python.split(".")]
    if abi != "none" or not all(found):
        return set()
    return {f"3.{match[1]}" for match in found if match}


def suitable(files: dict[str, str], pythons: list[str]) -> dict[str, list[str]] | None:
    """The hashes of the files for each Python; None if the package is not of the kind.

    A single Python in all of a release's tags says "from this one on", and is no such package.
    """
    made_for = {name: minors(name) for name in files}
    if len(set().union(*made_for.values())) < 2:
        return None
    return {
        python: sorted(
            digest
            for name, digest in files.items()
            if not made_for[name] or python in made_for[name]
        )
        for python in pythons
    }


def rewritten(lock: str, pin: str, hashes: dict[str, list[str]]) -> str:
    """The lock with other hashes for one package, given as `name==version`."""
    match = re.search(rf"^{re.escape(pin)}(?: ; (?P<marker>[^\\\n]+))? \\\n", lock, re.MULTILINE)
    if not match:
        return lock
    groups: dict[tuple[str, ...], list[str]] = {}
    for python, digests in hashes.items():
        groups.setdefault(tuple(digests), []).append(python)
    blocks = []
    for wanted, pythons in groups.items():
        if not wanted:
            sys.exit(f"{pin} has no file for Python {pythons[0]}")
        markers = [match["marker"].strip()] if match["marker"] else []
        if len(groups) > 1:
            markers.insert(0, " or ".join(f"python_version == '{python}'" for python in pythons))
        if len(markers) > 1:
            markers = [f"({marker})" if " or " in marker else marker for marker in markers]
        head = " ; ".join([pin, *filter(None, [" and ".join(markers)])])
        blocks.append(" \\\n".join([head, *(f"    --hash=sha256:{digest}" for digest in wanted)]))
    rest = re.compile(r"(?: +--hash=\S+(?: \\)?\n)+").match(lock, match.end())
    if not rest:
        sys.exit(f"{pin} has no hashes")
    return lock[: match.start()] + "\n".join(blocks) + "\n" + lock[rest.end() :]


def main(lock: Path, pylock: Path, pythons: list[str]) -> None:
    """Write `lock` again if one of its packages needs it."""
    text = lock.read_text(encoding="utf-8")
    for package in tomllib.loads(pylock.read_text(encoding="utf-8"))["packages"]:
        files: dict[str, str] = {}
        for entry in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]:
            place = entry.get("name") or entry.get("url") or entry["path"]
            files[unquote(place).split("/")[-1]] = entry["hashes"]["sha256"]
        if (hashes := suitable(files, pythons)) is not None:
            print(f"{package['name']}: only its wheels for Python {' and '.join(pythons)}")
            text = rewritten(text, f"{package['name']}=={package['version']}", hashes)
    lock.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
