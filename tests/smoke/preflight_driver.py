"""One rank under torchrun that looks at the others, with something wrong in rank 1 if asked."""

import json
import os
import sys
import time

sys.path.insert(0, sys.argv[1])

import torch.distributed as dist
from ftprobe import preflight  # type: ignore[import-not-found]
from ftprobe.errors import ProbeError  # type: ignore[import-not-found]


def main(fault: str, processes: int) -> None:
    """Print what rank 0 finds, and make the backend's own group afterwards."""
    last = os.environ["RANK"] == "1"
    if last and fault == "silent":
        time.sleep(60)
    if last and fault == "wrong":
        whole = dist.all_reduce
        dist.all_reduce = lambda tensor: [whole(tensor), tensor.add_(1)]
    if last and fault == "apart":
        dist.init_process_group = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no route"))
    try:
        found = preflight.check({"processes": processes, "patience": 6})
        dist.init_process_group("gloo")
        found["after"] = dist.get_world_size()
    except ProbeError as error:
        found = {"error": error.message}
    if os.environ["RANK"] == "0":
        sys.stdout.write("FOUND " + json.dumps(found) + "\n")
        sys.stdout.flush()
    os._exit(1 if "error" in found else 0)


main(sys.argv[2], int(sys.argv[3]))
