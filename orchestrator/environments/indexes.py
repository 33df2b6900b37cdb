"""Where packages come from: pip's configuration, handed on to uv.

Sites that need a mirror, a proxy or a folder of wheels have set it up for pip, and uv reads none of
that. So pip's files and variables are read here the way pip reads them (without pip, which an
environment made by uv does not have) and turned into uv's variables. What the user has told uv
itself always wins.

Two differences are bridged on purpose:

- uv takes a package from the first index that has the name at all; pip takes the best version from
  all of them. `UV_INDEX_STRATEGY=unsafe-best-match` is pip's rule. What uv warns of there, another
  package under a private one's name, cannot happen to us: every lock pins hashes.
- A missing find-links folder is a warning for pip and the end for uv, so it is left out and noted.

pip's `prefer-binary`, `only-binary` and `no-binary` are not handed on: the locks decide what is
installed, and one package of theirs exists as source only.

This module needs nothing but the standard library: the Makefile calls
`python -m orchestrator.environments.indexes --export` before anything is installed.
"""

import configparser
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

ALIASES = {"default-timeout": "timeout", "pypi-url": "index-url"}
EXTRAS = {"UV_INDEX", "UV_EXTRA_INDEX_URL"}  # uv's variables for indexes beside the default one
TRUE = {"1", "true", "yes", "y", "on", "t"}


@dataclass(frozen=True, slots=True)
class Sources:
    """What uv is told: `variables` for its environment, `flags` where it has no variable.

    `ignored` says in words what of pip's configuration could not be used.
    """

    variables: dict[str, str]
    flags: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """The two places outside of the user's variables where pip looks for its files."""

    prefix: Path = Path(sys.prefix)
    root: Path = Path("/")


def pip_files(environ: Mapping[str, str], machine: Machine) -> list[Path]:
    """pip's configuration files, the weakest first: global, user, environment, PIP_CONFIG_FILE.

    As in pip, an existing PIP_CONFIG_FILE replaces the user's files, and the null device means
    "no files at all".
    """
    home = Path(environ.get("HOME") or Path.home())
    override = environ.get("PIP_CONFIG_FILE", "")
    if override == os.devnull:
        return []
    if sys.platform == "darwin":
        support = Path("Library/Application Support/pip")
        shared = [machine.root / support]
        own = home / support if (home / support).is_dir() else home / ".config/pip"
    else:
        folders = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        shared = [Path(folder) / "pip" for folder in folders.split(os.pathsep) if folder]
        shared.append(machine.root / "etc")
        own = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"
    files = [folder / "pip.conf" for folder in shared]
    if not (override and Path(override).exists()):
        files += [home / ".pip/pip.conf", own / "pip.conf"]
    files.append(machine.prefix / "pip.conf")
    if override:
        files.append(Path(override).expanduser())
    return files


def pip_options(environ: Mapping[str, str], machine: Machine) -> tuple[dict[str, str], list[str]]:
    """pip's options in effect for `pip install`, and the files that could not be read.

    Sections outrank files: an `[install]` of the weakest file beats a `[global]` of the strongest,
    and `PIP_*` variables beat both. An empty value counts as not given.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    unreadable = []
    for path in pip_files(environ, machine):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(path.read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except (OSError, configparser.Error):
            unreadable.append(f"{path}: cannot be read")
            continue
        for section, options in sections.items():
            if parser.has_section(section):
                options.update(_given(parser.items(section)))
    variables = _given(
        (name.removeprefix("PIP_"), value)
        for name, value in environ.items()
        if name.startswith("PIP_")
    )
    return {**sections["global"], **sections["install"], **variables}, unreadable


def _given(items: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> dict[str, str]:
    """The options that have a value, under pip's names for them."""
    options = {}
    for name, value in items:
        if value.strip():
            key = name.lower().replace("_", "-").removeprefix("--")
            options[ALIASES.get(key, key)] = value.strip()
    return options


def sources(environ: Mapping[str, str] | None = None, machine: Machine | None = None) -> Sources:
    """Everything uv must be told, for pip's configuration as `environ` and the disk have it."""
    environ = os.environ if environ is None else environ
    options, ignored = pip_options(environ, machine or Machine())
    wanted: dict[str, str] = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    flags: tuple[str, ...] = ()

    if not _any(environ, "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if options.get("no-index", "").lower() in TRUE:
            flags = ("--no-index",)
        elif index := options.get("index-url"):
            wanted["UV_DEFAULT_INDEX"] = index
    if not flags and not _any(environ, *EXTRAS):
        wanted["UV_INDEX"] = " ".join(options.get("extra-index-url", "").split())
    if not _any(environ, "UV_FIND_LINKS"):
        places = options.get("find-links", "").split()
        found = [place for place in map(_find_links_place, places) if place]
        # Separated by commas, which is why `_find_links_place` leaves none inside a place.
        wanted["UV_FIND_LINKS"] = ",".join(found)
        ignored += [
            f"find-links {redacted(place)}: no such folder"
            for place in places
            if not _find_links_place(place)
        ]
    wanted["UV_INSECURE_HOST"] = " ".join(options.get("trusted-host", "").split())
    wanted["UV_HTTP_TIMEOUT"] = _whole_number(options.get("timeout", ""))
    wanted["UV_HTTP_RETRIES"] = _whole_number(options.get("retries", ""))
    if options.get("keyring-provider") == "subprocess":
        wanted["UV_KEYRING_PROVIDER"] = "subprocess"
    wanted["SSL_CLIENT_CERT"] = options.get("client-cert", "")
    for bundle in (
        options.get("cert"),
        *map(environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")),
    ):
        if bundle and Path(bundle).expanduser().is_file():
            wanted["SSL_CERT_FILE"] = str(Path(bundle).expanduser())
            break
    if proxy := options.get("proxy"):
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            if not environ.get(name.lower()):
                wanted[name] = proxy
    variables = {name: value for name, value in wanted.items() if value and not environ.get(name)}
    return Sources(variables, flags, tuple(ignored))


def _any(environ: Mapping[str, str], *names: str) -> bool:
    return any(environ.get(name) for name in names)


def _find_links_place(place: str) -> str:
    """A find-links place as uv takes it; empty when it is a folder that does not exist.

    A relative path is made absolute, since uv runs in another folder.
    """
    if place.startswith("file:"):
        place = unquote(urlsplit(place).path)
    elif "://" in place:
        return place.replace(",", "%2C")
    path = Path(place).expanduser().absolute()
    if not path.is_dir():
        return ""
    return str(path) if "," not in str(path) else f"file://{quote(str(path))}"


def _whole_number(value: str) -> str:
    """Seconds or counts for uv, which takes no fractions; empty when it is no number."""
    try:
        return str(max(1, round(float(value))))
    except ValueError:
        return ""


CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")


def redacted(text: str) -> str:
    """`text` with the user name and password of every URL replaced."""
    return CREDENTIALS.sub("***@", text)


def main(arguments: list[str]) -> int:
    """`--export`: the settings as shell commands for `eval`; `FT_UV_FLAGS` holds the flags.

    Without it the settings are shown for people, credentials replaced.
    """
    found = sources()
    if arguments == ["--export"]:
        for name, value in found.variables.items():
            sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
        sys.stdout.write(f"export FT_UV_FLAGS={shlex.quote(shlex.join(found.flags))}\n")
    else:
        for name, value in found.variables.items():
            sys.stdout.write(f"{name}={redacted(value)}\n")
        sys.stdout.write("".join(f"{flag}\n" for flag in found.flags))
    for line in found.ignored:
        sys.stderr.write(f"note: pip's {line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
