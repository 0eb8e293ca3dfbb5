"""`python -m experiments.projection.validate DIR`: tiny trainings, each projected from a part of it and then run whole.

The truth is what the same devices show for the whole training, without its final test. So the interval that is tested is the
one without the devices' errors of scale, which both share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from hydra import compose, initialize_config_dir

from experiments.command_line import CONF
from experiments.projection.tables import held_against, projected
from experiments.report.inputs.frames import load_runs
from experiments.report.output import to_markdown
from experiments.run import run

NAME = "projections.md"
OWN = ("model=own", "data=own", "model._target_=examples.study_module.Net", "data._target_=examples.study_module.Rows")
CASES: dict[str, tuple[str, ...]] = {
    **{
        f"{name}-digits": (f"model={name}",)
        for name in ("resnet", "efficientnet", "mobilenet", "vit", "swin", "mae", "clip")
    },
    "resnet-finetune": ("model=resnet", "of=finetune", "checkpoint=scratch", "recipe.epochs=12"),
    "vit-large-batch": ("model=vit", "recipe.batch_size=128"),
    "convnext-digits": ("model=timm", "model.timm_name=test_convnext", "model.image_size=32"),
    "resnet-emoji": ("model=resnet", "data=emoji", "recipe.epochs=8"),
    "rows": (*OWN, "recipe.epochs=100"),
}
"""What is trained: different models, data, batches and phases."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what has not been run in the directory, and write `projections.md` there."""
    parser = argparse.ArgumentParser(prog="python -m experiments.projection.validate", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cases", nargs="+", default=[*CASES], choices=[*CASES], help="default: all")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every job, such as recipe.epochs=6")
    asked = parser.parse_args(arguments)
    for case in asked.cases:
        for job, overrides in _jobs(CASES[case]):
            directory = asked.directory / case / job
            if not directory.exists():
                directory.mkdir(parents=True)
                with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
                    cfg = compose("run", [*overrides, "device=cpu", "+trainer.enable_progress_bar=false", *asked.set])
                run(cfg, directory)
    runs, stages = load_runs(asked.directory), load_runs(asked.directory, "stages")
    text = f"# Projections and what the trainings then took\n\n{_score(held_against(runs, stages))}\n\n"
    text += to_markdown(projected(runs, stages))
    (asked.directory / NAME).write_text(text)
    print(text)
    return 0


def _score(frame: pd.DataFrame) -> str:
    """How many projections hold the truth."""
    known = frame[frame["truth_j"].notna()]
    off_j = (known["truth_j"] - known["projected_energy_j"]).abs()
    off_s = (known["truth_s"] - known["projected_duration_s"]).abs()
    inside_j, inside_s = off_j <= known["projected_plus_minus_j"], off_s <= known["projected_duration_plus_minus_s"]
    off = off_j / known["truth_j"]
    return (
        f"`python -m experiments.projection.validate`: of {len(known)} trainings, the 95 % interval without the devices' "
        f"errors of scale holds the energy of {inside_j.sum()} and the time of {inside_s.sum()}. The energies are off by "
        f"{off.median():.1%} in the median, and by {off.max():.1%} at most."
    )


def _jobs(case: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The projection and the training."""
    of = next((one.partition("=")[2] for one in case if one.startswith("of=")), "pretrain")
    rest = [one for one in case if not one.startswith("of=")]
    yield "projection", [*rest, "phase=project", f"phase.of={of}"]
    yield "training", [*rest, f"phase={of}"]


if __name__ == "__main__":
    sys.exit(main())
