"""A stage's process in which FSDP 2 shards over CPU processes; for tests only.

accelerate takes FSDP for GPUs only: on CPU processes an FSDP configuration is silently ignored and
every rank holds the whole model. Here it is told that its processes are GPU processes that talk
through gloo, so the sharding, gathering and saving are the real ones.
"""

import sys


def shard_on_the_cpu() -> None:
    """Patch accelerate in this process, and tell how much of the model this rank holds."""
    from accelerate import accelerator, state
    from accelerate.parallelism_config import ParallelismConfig
    from accelerate.utils import DistributedType

    state.PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    mesh = ParallelismConfig.build_device_mesh
    ParallelismConfig.build_device_mesh = lambda self, _: mesh(self, "cpu")
    prepare = accelerator.fsdp2_prepare_model

    def prepared(*args: object, **kwargs: object) -> object:
        model = prepare(*args, **kwargs)
        whole = sum(weight.numel() for weight in model.parameters())
        held = sum(weight.to_local().numel() for weight in model.parameters())
        sys.stdout.write(f"HELD {held / whole}\n")
        return model

    accelerator.fsdp2_prepare_model = prepared


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    shard_on_the_cpu()
    from ftprobe.process import main  # type: ignore[import-not-found]

    main(sys.argv[1:])
