"""Decoding and augmentation of video against the training step, so that a starved board is seen.

`make bench` prints the table and writes it to `experiments/bench/results/decoding.md`, with each batch in `decoding.csv`.
On the board and the videos at hand:

    python -m experiments.bench.decoding --models r3d --workers 0 4 8 --set scale=paper data=video_folder data.root=KINETICS
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from experiments.bench.about import RESULTS, about
from experiments.bench.decoding.measure import ALONE, ClipCost, Fit, clip_cost, composed, fit
from experiments.settings import recipe_of
from experiments.tasks.video_families import VIDEO

WAITS = 0.1
"""A step waits if more than this share of the time goes to waiting."""
NAME = "decoding"
HEADERS = (
    "model",
    "workers",
    "decoding, ms a clip",
    "augmentation, ms a clip",
    "both, ms a batch",
    "step, ms",
    "waiting, ms a step",
    "the step waits",
    "memory, MiB",
    "grown, MiB",
)
EXPLAINED = f"""Decoding and augmentation are those of one process, clip by clip; a batch's are divided among the workers.
Step is forward, backward and optimiser, and waiting is the part `data` of the run record: with workers the waiting for
them, without workers decoding and augmentation themselves. A step waits if that is more than {WAITS:.0%} of the time. With
workers `{ALONE}` nothing is decoded, and all steps have one and the same batch: what a step takes by itself. Memory is
resident, of the process and its workers; grown is what the last quarter of the batches has more than the second."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write it and what each batch took."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.decoding", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["r3d", "mvit"], choices=VIDEO, help="default: r3d mvit")
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2], help="of the loader (default: 0 1 2)")
    parser.add_argument("--epochs", type=int, default=3, help="of each training (default: 3)")
    parser.add_argument("--clips", type=int, default=200, help="that are decoded alone (default: 200)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of every training, such as scale=small")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (default: beside the others)")
    asked = parser.parse_args(arguments)
    rows, batches = [], []
    for model in asked.models:
        overrides = [f"recipe.epochs={asked.epochs}", *asked.set]
        with tempfile.TemporaryDirectory(prefix="decoding_") as name:
            directory = Path(name)
            cfg = composed(model, overrides)
            cost, size = clip_cost(cfg, directory / "clips", asked.clips), recipe_of(cfg, "finetune").batch_size
            for workers in (ALONE, *asked.workers):
                own = composed(model, [*overrides, f"num_workers={0 if workers == ALONE else workers}"])
                found = fit(own, directory / str(workers), alone=workers == ALONE)
                rows.append(_row(model, cost, size, found))
                print(" | ".join(map(str, rows[-1])), flush=True)
                each = zip(found.ms, found.rss_mib, strict=True)
                batches += [[model, found.workers, at, *pair] for at, pair in enumerate(each)]
    command = " ".join(["python -m experiments.bench.decoding", *(sys.argv[1:] if arguments is None else arguments)])
    table = tabulate(rows, headers=HEADERS, tablefmt="github", disable_numparse=True)
    title, where = "# Decoding of video against the training step", f"`{command}` on {about('av', 'torchvision')}."
    text = "\n\n".join([title, where, table, EXPLAINED]) + "\n"
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"{NAME}.md").write_text(text, encoding="utf-8")
    with (asked.out / f"{NAME}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "workers", "batch", "ms", "rss_mib"])
        writer.writerows([*named, f"{ms:.3f}", f"{mib:.1f}"] for *named, ms, mib in batches)
    print(text)
    return 0


def _row(model: str, cost: ClipCost, size: int, found: Fit) -> list[str]:
    """A line of the table."""
    decoded = found.workers != ALONE
    clip = [f"{cost.decoding:.2f}", f"{cost.augmentation:.2f}", f"{size * (cost.decoding + cost.augmentation):.0f}"]
    waits = f"{'yes' if found.waits > WAITS else 'no'}, {found.waits:.0%}"
    quarter = max(1, len(found.rss_mib) // 4)
    memory = [f"{found.rss_mib[-1]:.0f}", f"{found.growth_mib(quarter):+.1f}"]
    return [
        model,
        found.workers,
        *(clip if decoded else [""] * 3),
        f"{found.step_ms:.1f}",
        f"{found.waiting_ms:.1f}",
        waits,
        *memory,
    ]


if __name__ == "__main__":
    sys.exit(main())
