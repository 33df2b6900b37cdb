"""What a batch script does before it calls ft: modules, environment, variables. Pure text.

The same lines run on the login node for `ft cluster check`, so that what is checked is what runs.
They assume nothing of the shell that they start in, which is no login shell and has no `module`.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from enum import IntEnum

from orchestrator.clusters.profile import Cluster


class Stop(IntEnum):
    """Exit codes of a batch script that did not get as far as ft."""

    MODULE_COMMAND = 71
    MODULE = 72
    ENVIRONMENT = 73
    SCRATCH = 74


MODULE_INITS = (
    "/etc/profile.d/lmod.sh", "/etc/profile.d/z00_lmod.sh", "/etc/profile.d/modules.sh",
    "/usr/share/lmod/lmod/init/bash", "/opt/cray/pe/lmod/lmod/init/bash",
    "/usr/share/modules/init/bash", "/usr/share/Modules/init/bash",
)  # fmt: skip
"""Where sites define `module` for shells that are no login shells; the first that exists is used.

lmod.sh ends under `set -u` where LOGNAME is unset (Lmod 8.6.19), so the script has none.
"""

CACHES = {
    "HF_HOME": "hf",
    "HF_HUB_CACHE": "hf/hub",
    "HF_XET_CACHE": "hf/xet",
    "HF_DATASETS_CACHE": "hf/datasets",
    "XDG_CACHE_HOME": "cache",
    "TRITON_CACHE_DIR": "cache/triton",
    "TORCH_HOME": "cache/torch",
    "TORCH_EXTENSIONS_DIR": "cache/torch_extensions",
    "TORCHINDUCTOR_CACHE_DIR": "cache/inductor",
    "WANDB_CACHE_DIR": "cache/wandb",
    "WANDB_DATA_DIR": "cache/wandb",
}
"""What would otherwise fill the home quota, and its folder under the scratch root."""

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")

_VARIABLE = re.compile(r"(:?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def caches(cluster: Cluster) -> dict[str, str]:
    """Cache variables, the same on the login node and in jobs; empty without a scratch folder."""
    if not cluster.scratch:
        return {}
    root = cluster.scratch.rstrip("/")
    return {name: f"{root}/{folder}" for name, folder in CACHES.items()}


def variables(cluster: Cluster) -> tuple[str, ...]:
    """Names of the variables that the script sets for the backend's processes."""
    names = [*caches(cluster), *cluster.exports]
    if cluster.scratch:
        names.append("TMPDIR")
    return tuple(dict.fromkeys(names))


def expanding(value: str) -> str:
    """A double-quoted shell word in which `${NAME}`, and nothing else, is expanded.

    A variable of a list that is not set takes its colon along: an empty entry of LD_LIBRARY_PATH is
    the current folder.
    """
    parts, end = [], 0
    for match in _VARIABLE.finditer(value):
        colon, name = match.groups()
        parts.append(_escaped(value[end : match.start()]))
        end = match.end()
        if colon:
            parts.append(f"${{{name}:+:${{{name}}}}}")
        elif match.start() == 0 and re.match(r":(?!\$\{)", value[end:]):
            parts.append(f"${{{name}:+${{{name}}}:}}")
            end += 1
        else:
            parts.append(f"${{{name}:-}}")
    return '"' + "".join([*parts, _escaped(value[end:])]) + '"'


def _escaped(text: str) -> str:
    return re.sub(r'([\\"$`])', r"\\\1", text)


def lines(cluster: Cluster, backend: str, given: Mapping[str, str] | None = None) -> list[str]:
    """The prelude for a job of `backend`; `given` are further variables with fixed values."""
    return [
        *_failing(),
        *_modules(cluster),
        *_environment(cluster, backend),
        *_exports(cluster, given or {}),
    ]


def _failing() -> Iterator[str]:
    yield 'stop() { printf "ft: %s\\n" "$2" >&2; exit "$1"; }'


def _modules(cluster: Cluster) -> Iterator[str]:
    """Loading modules, each with its own message."""
    if not cluster.modules:
        return
    if cluster.module_init:
        init = shlex.quote(cluster.module_init)
        yield "# shellcheck disable=SC1090,SC1091  # the site's"
        yield f"type module > /dev/null 2>&1 || . {init}"
    else:
        yield "if ! type module > /dev/null 2>&1; then"
        yield f"    for init in {' '.join(shlex.quote(place) for place in MODULE_INITS)}; do"
        yield "        # shellcheck disable=SC1090  # the first that exists on this node"
        yield '        if [ -r "$init" ]; then . "$init"; break; fi'
        yield "    done"
        yield "fi"
    missing = "there is no command module on this node: set module_init in the cluster profile"
    yield f"type module > /dev/null 2>&1 || stop {Stop.MODULE_COMMAND:d} {shlex.quote(missing)}"
    for module in cluster.modules:
        message = f"the module {module} cannot be loaded; see: module avail"
        yield (f"module load {shlex.quote(module)} || stop {Stop.MODULE:d} {shlex.quote(message)}")


def _environment(cluster: Cluster, backend: str) -> Iterator[str]:
    """The backend's environment, if it is not ft's own."""
    if cluster.environment.home:
        yield f"export FT_HOME={shlex.quote(cluster.environment.home)}"
    place, name = cluster.place(backend), f"FT_{backend.upper()}_PREFIX"
    if place.prefix:
        yield f"export {name}={shlex.quote(place.prefix)}"
    if place.conda:
        message = "there is no command conda: add the module that has it to the cluster profile"
        code = int(Stop.ENVIRONMENT)
        yield f"type conda > /dev/null 2>&1 || stop {code} {shlex.quote(message)}"
        yield f'eval "$(conda shell.bash hook)" || stop {code} "conda does not start"'
        message = f"the conda environment {place.conda} cannot be activated"
        yield f"conda activate {shlex.quote(place.conda)} || stop {code} {shlex.quote(message)}"
        yield f'export {name}="$CONDA_PREFIX"'


def _exports(cluster: Cluster, given: Mapping[str, str]) -> Iterator[str]:
    """Variables come after modules and environment, so that they win."""
    for name, value in {**caches(cluster), **given}.items():
        yield f"export {name}={shlex.quote(value)}"
    if cluster.scratch:
        root = cluster.scratch.rstrip("/")
        # what is set by now is the site's own, on the node: sbatch hands no TMPDIR on
        here = f'{shlex.quote(f"{root}/tmp")}/"${{SLURM_JOB_ID:-check}}"'
        yield f'if [ "${{TMPDIR:-/tmp}}" = /tmp ]; then export TMPDIR={here}; fi'
        message = f"the scratch folder {root} cannot be written"
        yield f'mkdir -p "$TMPDIR" || stop {Stop.SCRATCH:d} {shlex.quote(message)}'
    if cluster.offline:
        yield f"export {' '.join(f'{name}=1' for name in OFFLINE)} WANDB_MODE=offline"
    for name, value in cluster.exports.items():
        yield f"export {name}={expanding(value)}"
