"""The versions that decide what a run does."""

import platform
from importlib import metadata

PACKAGES = (
    "axolotl",
    "llamafactory",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "trl",
    "datasets",
    "deepspeed",
    "bitsandbytes",
    "flash-attn",
    "wandb",
)


def version(package: str) -> str | None:
    """The installed version, read from metadata: importing to ask costs seconds."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Python and every listed package that is installed."""
    found = {"python": platform.python_version()}
    found.update({name: number for name in PACKAGES if (number := version(name)) is not None})
    return found
