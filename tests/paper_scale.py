"""Prints what `scale=paper` trains on 1, 4 and 8 GPUs, beside what was published: batches, rates and updates.

`python -m tests.paper_scale`. No GPU is needed, and nothing is trained. `tests/integration/test_paper_scale.py` holds them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf
from tabulate import tabulate

from experiments.job import Job
from experiments.run import CONF
from experiments.settings import recipe_of
from experiments.zoo import ZOO
from tests.integration.study import composed

DEVICES = (1, 4, 8)
MICRO = 32


def row(name: str, phase: str, published: dict[str, Any], images: int) -> list[Any]:
    """One family's phase."""
    updates = published.get("updates") or published["epochs"] * images / published["batch_size"]
    cells: list[Any] = [name, phase, f"{published['batch_size']:,}", f"{published['lr']:.4g}", f"{updates:,.0f}"]
    rates, made = set(), set()
    for devices in DEVICES:
        # CLIP's loss compares all pairs of a batch, which is never taken in steps.
        micro = [] if name == "clip" else [f"micro_batch={MICRO}"]
        overrides = (f"model={name}", "scale=paper", "device=gpu", f"device.count={devices}", *micro)
        job = Job(composed(*overrides), Path(tempfile.gettempdir()))
        recipe = recipe_of(job.cfg, phase)
        split = job.split(recipe)
        trainer = SimpleNamespace(
            estimated_stepping_batches=100, max_epochs=10, accumulate_grad_batches=split.accumulate, world_size=devices
        )
        optimizer = recipe.configure([torch.nn.Parameter(torch.zeros(2))], trainer)["optimizer"]
        rates.add(f"{optimizer.param_groups[0]['initial_lr']:.4g}")
        made.add(f"{split.updates(images, recipe.epochs):,}")
        cells.append(f"{split.micro} x {split.devices} x {split.accumulate}")
    return [*cells, " or ".join(sorted(rates)), " or ".join(sorted(made))]


def main() -> None:
    """Print the table."""
    published: Any = OmegaConf.to_container(OmegaConf.load(CONF / "published.yaml"))
    rows = [
        row(name, phase, published[name][phase], published["images"]["clip" if name == "clip" else "imagenet"])
        for name in ZOO
        for phase in published[name]
    ]
    on = [f"{devices} GPU: images x GPUs x accumulated" for devices in DEVICES]
    headers = ["family", "phase", "published: batch", "rate", "updates", *on, "peak rate here", "updates here"]
    print(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
