"""A real Slurm with two nodes and real environment modules, brought up for the tests here.

Where it cannot be, the tests are skipped and say what is missing; with FT_REQUIRE_SLURM=1 they
fail instead.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from orchestrator.clusters.prelude import MODULE_INITS
from tests.debian import missing
from tests.smoke.contract import Place

SCRIPT = Path(__file__).parent / "cluster.sh"
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "lmod", "iproute2")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "ip")

MODULEFILE = """#%Module1.0
setenv TOY_ROOT {root}
prepend-path PATH {root}/bin
"""


def without(reason: str) -> NoReturn:
    """Skip, or fail where a Slurm must be there."""
    text = f"NO TEST RAN ON A REAL SLURM: {reason}"
    if os.environ.get("FT_REQUIRE_SLURM") == "1":
        pytest.fail(text)
    pytest.skip(text)


class SlurmPlace(Place):
    """A working folder with profiles for the cluster; its name is hostile on purpose."""

    def __init__(self, folder: Path, cluster: dict[str, str], modules: Path) -> None:
        super().__init__(folder)
        self.cluster = cluster
        conf = f"{cluster['FT_SLURM_DIR']}/slurm.conf"
        self.environ |= {"SLURM_CONF": conf, "MODULEPATH": str(modules),
                         "OMP_NUM_THREADS": "1",
                         "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}  # fmt: skip
        self.scratch = folder / "scratch"

    def profile(self, name: str, **changes: object) -> str:
        """Write a profile and return its name."""
        from orchestrator.yaml_out import dump

        document: dict[str, object] = {
            "partition": "main", "gpus_per_node": 0, "cpus_per_node": 2, "time": "0:20:00",
            "warn_before": 60, "requeue": 2, "modules": ["Toy/1.0"], "offline": True,
            "one_task": {"cpus": 2, "time": "0:20:00"}, "scratch": str(self.scratch),
            "exports": {"SEEN": "${TOY_ROOT}", "OMP_NUM_THREADS": "1"},
        }  # fmt: skip
        (self.work / "clusters").mkdir(exist_ok=True)
        (self.work / "clusters" / f"{name}.yaml").write_text(dump({**document, **changes}))
        return name

    def node(self, what: str, name: str) -> bool:
        """Crash or boot a node; whether that can be done here."""
        with (self.scratch.parent / "node.log").open("a") as log:
            done = subprocess.run(
                [SCRIPT, what, name], check=False, stdout=log, stderr=log,
                env={**os.environ, **self.cluster},
            )  # fmt: skip
        return done.returncode == 0

    def slurm(self, *argv: str) -> str:
        """A command of Slurm's."""
        done = subprocess.run(
            argv, env={**os.environ, **self.environ}, check=True, capture_output=True, text=True
        )
        return done.stdout


def can_have_namespaces() -> bool:
    """Whether this user may make network namespaces, which not every container allows."""
    made = [
        subprocess.run(argv, check=False, capture_output=True).returncode == 0
        for argv in (["ip", "netns", "add", "ft-probe"], ["ip", "netns", "del", "ft-probe"])
    ]
    return all(made)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that `cluster.sh` knows the running cluster by."""
    reason = missing(PROGRAMS, PACKAGES)
    if reason:
        without(reason)
    if os.geteuid() != 0:
        without("it needs root")
    if not any(Path(init).is_file() for init in MODULE_INITS):
        without("there are no environment modules")
    folder = tmp_path_factory.mktemp("slurm")
    made = {
        "FT_SLURM_DIR": str(folder),
        "PORT": str(21000 + os.getpid() % 9000),
        "NETNS": "1" if can_have_namespaces() else "0",
    }
    environ = {**os.environ, **made}
    # what runs as a daemon must not hold our pipes
    with (folder / "up.log").open("w") as log:
        up = subprocess.run([SCRIPT, "up"], env=environ, stdout=log, stderr=log, check=False)
    try:
        if up.returncode:
            without(f"it does not start: {(folder / 'up.log').read_text()[-500:]}")
        yield made
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([SCRIPT, "down"], env=environ, check=False, timeout=60)


@pytest.fixture(scope="session")
def place(cluster: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> SlurmPlace:
    """Where the tests work. Its name means something to Slurm and to shells."""
    folder = tmp_path_factory.mktemp("w")
    modules = folder / "modules"
    (modules / "Toy").mkdir(parents=True)
    (modules / "Toy" / "1.0").write_text(MODULEFILE.format(root=folder / "toy"))
    made = SlurmPlace(folder / '50% "off" it\'s', cluster, modules)
    made.scratch = folder / "s"
    made.profile("toy")
    return made
