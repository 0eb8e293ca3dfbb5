"""`python -m experiments.report RUNS_DIR [--reference CSV] [--out DIR]`: the report, from the records below a directory."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.report.assemble import write_report
from experiments.report.inputs.records import Broken, load
from experiments.report.inputs.reference import Training, read_reference
from experiments.report.metrics import SamSettings
from experiments.report.output import Output
from lightning_watt.units import J_PER

MOST_PRINTED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the records, write the report, say where it is.

    Args:
        arguments: the command line's; None: this process's own.

    Returns:
        0 if there was something to report, 1 if not, 2 if something cannot be read or written.
    """
    asked = _parser().parse_args(arguments)
    out = asked.out or asked.runs / "report"
    try:
        found = load(asked.runs)
        trainings: list[Training] = []
        unread: list[Broken] = []
        for file in asked.reference:
            read, broken_rows = read_reference(file)
            trainings += read
            unread += broken_rows
        for broken in [*found.broken, *unread][:MOST_PRINTED]:
            print(f"not read: {broken.path}: {broken.why}", file=sys.stderr)
        if not found.runs and not found.failed and not trainings:
            print(
                f"There is no record (watt.json) below {asked.runs}: run something with WattCallback first.", file=sys.stderr
            )
            return 1
        built = write_report(found, trainings, unread, Output(out), _settings(asked))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    for reason in built.without:
        print(f"no figure: {reason}")
    jobs = f", {len(found.failed)} jobs that did not complete" if found.failed else ""
    print(f"{len(found.runs)} runs, {len(found.broken) + len(unread)} not read{jobs}, {built.figures} figures")
    print(f"report       {built.page}")
    print(f"tables       {out / 'tables'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.report",
        description="Tables, figures and one page from all run records (watt.json) below a directory.",
    )
    parser.add_argument("runs", type=Path, metavar="RUNS_DIR", help="where the runs are")
    parser.add_argument(
        "--reference",
        type=Path,
        action="append",
        default=[],
        metavar="CSV",
        help="trainings that others measured, for comparison; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes; default: RUNS_DIR/report")
    parser.add_argument("--alpha", type=_finite, help="SAM's alpha; default: as the records say")
    parser.add_argument("--beta", type=_finite, help="SAM's beta; default: as the records say")
    parser.add_argument("--unit", choices=J_PER, help="SAM's unit of energy; default: as the records say")
    return parser


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1000")
    return value


def _settings(asked: argparse.Namespace) -> SamSettings | None:
    """What was asked for; what was not is SAM's default, as soon as one thing was."""
    given = {name: getattr(asked, name) for name in ("alpha", "beta", "unit") if getattr(asked, name) is not None}
    return SamSettings(**given) if given else None


if __name__ == "__main__":
    sys.exit(main())
