"""The words and options of the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_watt import __version__
from lightning_watt.errors import WattError

USAGE = 2
"""The exit status for a wrong argument or a record that cannot be read."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the words after the program's name; by default those of this process.

    Returns:
        The exit status: 2 for what cannot be done, with the reason; others are of the command.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    program: list[str] = []
    if "--" in given and given[0] == "run":
        cut = given.index("--")
        given, program = given[:cut], given[cut + 1 :]
    asked, left_over = (parser := _parser()).parse_known_args(given or ["doctor"])
    if left_over and asked.command == "run" and not left_over[0].startswith("-"):
        program = []  # it stands before the dashes, or there are none
    elif left_over:
        parser.error(f"unrecognized arguments: {' '.join(left_over)}")
    try:
        return _call(asked, program)
    except (WattError, ValueError) as error:
        import_module("lightning_watt.record.text.drawn").complain(str(error))
        return USAGE


def _call(asked: argparse.Namespace, program: Sequence[str]) -> int:
    # Each command imports what it needs, so that `--help` answers at once.
    name = str(asked.command)
    if name == "doctor":
        return int(_module("doctor").doctor(as_json=asked.json))
    if name == "run":
        if not program:
            raise ValueError("write the program after two dashes: lightning-watt run -- python train.py")
        run_program, keeps = _module("program").run_program, bool(asked.keep_arguments)
        return int(run_program(program, Path(asked.dir), _settings(asked), keeps_arguments=keeps))
    runs = _module("runs")
    if name == "show":
        return int(runs.show(asked.run))
    if name == "compare":
        return int(runs.compare(asked.first, asked.second))
    if name == "sum":
        return int(runs.sum_up(asked.dir))
    if name == "statement":
        settings = _settings(asked)
        return int(runs.state(asked.run, asked.only, settings.scoring.carbon, None if asked.pue is None else settings.pue))
    return int(runs.export(asked.dir, asked.table, None if asked.csv in (None, "-") else asked.csv))


def _module(name: str) -> Any:
    return import_module(f"lightning_watt.commands.{name}")


def _settings(asked: argparse.Namespace) -> Any:
    settings = import_module("lightning_watt.settings")
    texts = {name: text for name, text in vars(asked).items() if name in settings.READERS and text is not None}
    # A program is measured on what it may see; only a Trainer says which boards it uses.
    values = {"gpus": "visible"} | {name: settings.READERS[name](text) for name, text in texts.items()}
    return settings.Settings(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "lightning-watt", description="What did that training cost in electricity? Without a command: doctor."
    )
    parser.add_argument("--version", action="version", version=f"lightning_watt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    one = commands.add_parser(
        "doctor", help="what can be measured on this machine, what cannot, why, and what to do about it"
    )
    one.add_argument("--json", action="store_true", help="for other programs")

    one = commands.add_parser(
        "run", help="measure any program: run -- COMMAND", usage="lightning-watt run [options] -- COMMAND [ARGUMENT ...]"
    )
    one.add_argument(
        "--dir", default=".", help="where watt.json is written; a finished record is never replaced (default: here)"
    )
    one.add_argument(
        "--keep-arguments", action="store_true", help="keep the program's arguments in the record; they may hold secrets"
    )
    one.add_argument("--gpus", help="visible (default), all, or NVML indices and UUIDs with + between them: 0+2")
    one.add_argument("--interval", metavar="S", help="seconds between two reads of the counters (default: 1)")
    one.add_argument("--electricity-price", metavar="PRICE", help="what a kWh costs")
    _carbon(one)

    one = commands.add_parser("show", help="the table of a run, or of all runs in a directory")
    one.add_argument("run", nargs="+", help="a run's directory, or a record (watt.json)")
    one = commands.add_parser(
        "compare", help="whether two runs differ in energy; exit status 1 if they cannot be told apart"
    )
    one.add_argument("first", help="a run's directory, or a record")
    one.add_argument("second", help="the one to compare with it")
    one = commands.add_parser("sum", help="the energy of all runs below a directory, each joule once")
    one.add_argument("dir")
    one = commands.add_parser(
        "statement", help="a run in words for a paper: text, LaTeX, BibTeX, and a model card's metadata"
    )
    one.add_argument("run", nargs="+", help="a run's directory, or a record")
    one.add_argument("--only", choices=("text", "latex", "bibtex", "model-card"), help="one part of it")
    _carbon(one)
    one = commands.add_parser("export", help="all runs below a directory as CSV")
    one.add_argument("dir")
    one.add_argument("--csv", nargs="?", metavar="FILE", help="where to (default: standard output)")
    one.add_argument(
        "--table", choices=("runs", "stages", "epochs", "devices"), default="runs", help="a row for each of these"
    )
    return parser


def _carbon(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--carbon-intensity", metavar="G", help="grams of CO2e a kWh, or a country: DE")
    parser.add_argument("--pue", help="the building's power over its computers' power (default: 1)")
