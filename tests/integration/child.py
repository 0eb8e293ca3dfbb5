"""A training in a process of its own: `python -m tests.integration.child '{"directory": ...}'`.

The tests start it where a process is killed, resumed, run on several ranks, or has only one Lightning package. Keys, all
but `directory` optional: `package`, `runs` (fit, validate, test, predict), `trainer`, `watt`, `module` (keyword arguments),
`steady` (watts of a made-up source; without it the sources are the lab's), `batches` (train, validate), `ckpt_path`,
`monitor` (a ModelCheckpoint on it), `save` (a checkpoint at the end), `keep` (a directory for a checkpoint of every epoch),
`kill` (`[epoch, batch, rank]`: that rank's process kills itself there), `signal` (the same, and the signal's number),
`uneven` (each rank's own number of validation batches), `each` (more `watt` arguments, one entry a rank; null for a rank
without the callback), `ranks_limit_s` (how long ranks wait for each other), `logger` (a class of the package's `loggers`,
and its keyword arguments). It leaves `rank<N>.json` in the directory, and `span<rank>.<pid>`: when it began and, killed,
ended, on CLOCK_MONOTONIC.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

# So that the lab's fake boards are not taken for CUDA devices; `gpus="all"` looks past the mask.
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def nvml_calls(function: str) -> int | None:
    """How often this process called the lab; None where the lab is not visible."""
    try:
        return int(ctypes.CDLL("libnvidia-ml.so.1").nvmlLabCalls(function.encode()))
    except (OSError, AttributeError):
        return None


def signals_itself(module: Any, span: Path, signals: dict[tuple[int, int, int], int]) -> None:
    """Let the module send its process signals, by epoch, training batch and rank."""

    def on_batch(stage: str, index: int) -> None:
        number = signals.get((module.current_epoch, index, module.global_rank)) if stage == "train" else None
        if number == signal.SIGKILL:
            with span.open("a") as file:
                file.write(f"{time.monotonic_ns()}\n")
        if number is not None:
            os.kill(os.getpid(), number)

    module.on_batch = on_batch


def main(options: dict[str, Any]) -> None:
    pl = import_module(options.get("package", "pytorch_lightning"))  # first, so that the callback finds it loaded
    from tests.integration import tiny

    directory = Path(options["directory"])
    settings = dict(options.get("watt", {}))
    if "steady" in options:
        settings |= {"gpus": "auto", "sources": [tiny.Steady(options["steady"])]}
    own = options["each"][int(os.environ["RANK"])] if "each" in options else {}
    callback = tiny.watt(**settings, **(own or {}))
    callback.ranks_limit_s = options.get("ranks_limit_s", callback.ranks_limit_s)
    callbacks = [callback] if own is not None else []

    class Begins(pl.Callback):
        """Notes when the run is set up, which is when the callback after it begins to measure."""

        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            if not span().exists():
                span().write_text(f"{time.monotonic_ns()}\n")

    def span() -> Path:
        return directory / f"span{trained.global_rank}.{os.getpid()}"

    callbacks.insert(0, Begins())
    if "monitor" in options:
        callbacks.insert(
            0, pl.callbacks.ModelCheckpoint(directory / "best", "{epoch}", monitor=options["monitor"], mode="max")
        )
        options.setdefault("trainer", {})["enable_checkpointing"] = True
    if "keep" in options:
        callbacks.append(pl.callbacks.ModelCheckpoint(options["keep"], "{epoch}", save_top_k=-1, every_n_epochs=1))
        options.setdefault("trainer", {})["enable_checkpointing"] = True
    if "logger" in options:
        name, arguments = options["logger"]
        options.setdefault("trainer", {})["logger"] = getattr(pl.loggers, name)(**arguments)
    trained = tiny.trainer(pl, directory, *callbacks, **options.get("trainer", {}))
    train, validate = options.get("batches", (6, 3))
    data = {"fit": (tiny.loader(train), tiny.loader(validate))}
    if "uneven" in options:
        data["fit"] = (tiny.loader(train), tiny.stream(options["uneven"][trained.global_rank]))
    module = tiny.module(pl, **options.get("module", {}))
    signals = {tuple(options["kill"]): int(signal.SIGKILL)} if "kill" in options else {}
    if "signal" in options:
        signals[tuple(options["signal"][:3])] = options["signal"][3]
    signals_itself(module, span(), signals)
    for run in options.get("runs", ["fit"]):
        extra = {"ckpt_path": options["ckpt_path"]} | tiny.WEIGHTS_ONLY if run == "fit" and "ckpt_path" in options else {}
        getattr(trained, run)(module, *data.get(run, (tiny.loader(validate),)), **extra)
    if "save" in options:
        trained.save_checkpoint(options["save"])
    best = trained.checkpoint_callback
    answer = {
        "rank": trained.global_rank,
        "metrics": {name: float(value) for name, value in trained.callback_metrics.items()},
        "epoch": trained.current_epoch,
        "step": trained.global_step,
        "best": best.best_model_path if best is not None else None,
        "score": float(best.best_model_score) if best is not None and best.best_model_score is not None else None,
        "nvml_calls": nvml_calls("nvmlDeviceGetTotalEnergyConsumption"),
        "said": list(callback._run.state.warn_once.said.values()),
        "loaded": sorted({"pytorch_lightning", "lightning.pytorch"} & set(sys.modules)),
    }
    (directory / f"rank{trained.global_rank}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
