"""What runs in the stand-in's environment; see the package."""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(os.environ.get("FT_STANDIN", "."))
RANK, WIDTH = 4, 8


def tensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


def adapter(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors(folder / "adapter_model.safetensors",
            {"q.lora_A.weight": [RANK, WIDTH], "q.lora_B.weight": [WIDTH, RANK]})  # fmt: skip
    (folder / "adapter_config.json").write_text("{}")


def copied(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def preprocess(request: dict[str, Any], orders: dict[str, Any]) -> dict[str, Any]:
    prepared, world = Path(request["prepared"]), HERE / "world"
    copied(world / "tokenizer", prepared / "tokenizer")
    obey(orders, prepared, 0)
    copied(world / "train", prepared / "train")
    return {
        "dataset": {"train": str(prepared / "train"), "validation": None},
        "rows": 5, "validation_rows": 0, "tokenizer": str(prepared / "tokenizer"),
        "eos_ids": [0], "pad_id": 2, "bos_id": None, "versions": {},
    }  # fmt: skip


def train(request: dict[str, Any], orders: dict[str, Any]) -> dict[str, Any]:
    output = Path(request["result"]).parent.parent / "adapter"
    steps = orders.get("steps", 6)
    resume = request.get("resume")
    for step in range(int(resume.rpartition("-")[2]) + 1 if resume else 1, steps + 1):
        event = {"t": time.time(), "event": "log", "step": step, "max_steps": steps,
                 "loss": 3 - step / 10, "world_size": 1}  # fmt: skip
        with open(request["events"], "a") as events:  # noqa: PTH123
            events.write(json.dumps(event) + "\n")
        time.sleep(orders.get("seconds", 0))
        obey(orders, output, step)
        if step % 2 == 0:
            checkpoint = output / f"checkpoint-{step}"
            adapter(checkpoint)
            (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    obey(orders, output, steps + 1)
    adapter(output)
    copied(HERE / "world" / "tokenizer", output)
    return {"global_step": steps, "max_steps": orders.get("of", steps), "world_size": 1}


def merge(request: dict[str, Any], orders: dict[str, Any]) -> dict[str, Any]:
    output = Path(request["output"])
    output.mkdir()
    obey(orders, output, 0)
    tensors(output / "model.safetensors", {"model.embed_tokens.weight": [300, WIDTH]})
    config = {"model_type": "llama", "vocab_size": 300, "eos_token_id": 0}
    (output / "config.json").write_text(json.dumps(config))
    copied(HERE / "world" / "tokenizer", output)
    return {"passed": True, "max_abs_diff": 0.0, "tolerance": 1e-3}


def obey(orders: dict[str, Any], folder: Path, step: int) -> None:
    """Do what the test has ordered for this step."""
    if step != orders.get("at", 0):
        return
    if orders.get("leave"):
        leave_children()
    if "fill" in orders:
        fill(folder if folder.exists() else folder.parent, Path(orders["fill"]))
    if "wait" in orders:
        time.sleep(orders["wait"])
    if "until" in orders:
        while not Path(orders["until"]).exists():
            time.sleep(0.02)


def leave_children() -> None:
    """Children in sessions of their own: one sleeps, one ignores SIGTERM, one is stopped."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    stopped = "os.kill(os.getpid(), signal.SIGSTOP)"
    for first in ("", deaf, stopped):
        code = f"import os, signal, time\n{first}\ntime.sleep(60)"
        subprocess.Popen([sys.executable, "-c", code, str(HERE)], start_new_session=True)


def fill(folder: Path, ballast: Path) -> None:
    """Take all the room that the file system of `folder` has."""
    with ballast.open("wb", buffering=0) as handle:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    handle.write(bytes(size))
            except OSError:
                continue


TASKS = {"preprocess": preprocess, "train": train, "merge": merge}


def main() -> None:
    if "-c" in sys.argv:  # ft asks what is installed
        versions = {"python": "3.11.0", "llamafactory": "0.9.5", "torch": "2.11.0"}
        sys.stdout.write(json.dumps(versions))
        return
    sys.stdout.write("start of the stand-in\n")
    sys.stdout.flush()
    request = json.loads(Path(sys.argv[2]).read_text())
    orders = json.loads((HERE / "orders.json").read_text())
    answer = TASKS[request["task"]](request, orders.get(request["task"], {}))
    partial = Path(f"{request['result']}.partial")
    partial.write_text(json.dumps(answer))
    partial.replace(request["result"])
    if request["task"] == "train":
        obey(orders.get("train", {}), Path(request["result"]).parent, answer["global_step"] + 2)


if __name__ == "__main__":
    main()
