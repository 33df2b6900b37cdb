"""What the state of a job means for its run, in words. Pure."""

import re

from orchestrator.clusters.prelude import Stop
from orchestrator.launchers.queue import UNKNOWN, JobState
from orchestrator.runs.record import Status

WHY = {
    "TIMEOUT": "the time limit was reached",
    "OUT_OF_MEMORY": "it needed more memory than the job had",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not start",
    "PREEMPTED": "another job took its nodes",
    "DEADLINE": "it could not end before its deadline",
    "CANCELLED": "it was cancelled",
    "REVOKED": "another cluster of the federation has it",
}
STOPPED = {
    Stop.MODULE_COMMAND: "its script found no command module",
    Stop.MODULE: "a module of the cluster profile cannot be loaded",
    Stop.ENVIRONMENT: "the environment of the cluster profile cannot be activated",
    Stop.SCRATCH: "the scratch folder cannot be written",
}
NO_LOG = 53
"""What Slurm writes for a signal when it could not open the output of a batch script."""

NO_PROGRAM = (126, 127)
SHARED = "is it on a file system that compute nodes see?"

ENDS: dict[str, Status] = {"TIMEOUT": "timeout", "CANCELLED": "cancelled"}

STUCK = (
    (r"Partition(Time|Node)Limit", "it asks for more than the partition gives"),
    (r"\w*Max\w*PerJob\w*", "it asks for more than your account or QOS gives a job"),
    (r"\w*Minutes\w*", "the budget of your account or QOS is used up"),
    (r"BadConstraints", "no node is what it asks for"),
    (r"(Account|QOS)NotAllowed|Invalid(Account|QOS)", "the partition does not take it"),
    (r"DependencyNeverSatisfied", "the job before it has failed"),
)
"""Reasons for which a job waits for ever, unless somebody changes a limit."""


def of_waiting(name: str, state: JobState) -> str:
    """Why a job waits, and whether waiting helps."""
    again = f", started {state.restarts} times before" if state.restarts else ""
    return f"{name}: {state.reason or state.state}{again}{_remedy(state)}"


def _remedy(state: JobState) -> str:
    if state.state == "REQUEUE_HOLD" or "held" in state.reason.lower():
        # somebody held it, or a node could not launch it
        return f"; `scontrol release {state.id}` lets it start"
    for reason, words in STUCK:
        if re.fullmatch(reason, state.reason):
            return f"; waiting does not help: {words}"
    return ""


def of_ended(name: str, state: JobState, run: str) -> tuple[Status, str]:
    """Status and reason of a run whose job ended without its stages, and without a word of ft's."""
    on = f"; go on with: ft recipe run --resume {run}"
    if state.state == UNKNOWN:
        return "died", f"Slurm knows nothing of {name} any more, and it is not done{on}"
    status = ENDS.get(state.state, "failed")
    if state.state == "TIMEOUT":
        on += ", and --on CLUSTER with a longer time"
    if state.state in WHY:
        return status, f"{name}: {WHY[state.state]} ({state.state}){on}"
    if state.exit_code in STOPPED:
        return status, f"{name}: {STOPPED[Stop(state.exit_code)]}"
    if state.signal == NO_LOG:
        return status, f"{name}: the node could not open its log in the run's folder: {SHARED}"
    if state.exit_code in NO_PROGRAM:
        return status, f"{name}: its node has no such ft (exit code {state.exit_code}): {SHARED}"
    end = f"signal {state.signal}" if state.signal else f"exit code {state.exit_code}"
    return status, f"{name}: {state.state}, {end}, before ft could say why; see: ft runs logs {run}"
