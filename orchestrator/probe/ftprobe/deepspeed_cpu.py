"""DeepSpeed on a CPU without a compiler.

When it sees a C++ compiler, DeepSpeed (0.18.4 and 0.18.6) builds a shared-memory all-reduce for CPU
inference at its start, ``comm/torch.py: build_shm_op``. That takes one to two minutes, again for
each environment, fails without a compiler, and training through gloo gains nothing from it. An
operation that is noted as not compatible is not built; the plain collectives are used then.
"""


def plain_communication() -> None:
    """Leave the shared-memory operation out where there is no GPU, and DeepSpeed is there."""
    try:
        import deepspeed
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
