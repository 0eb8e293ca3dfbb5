"""What each kind of logger gets, and what becomes of one that raises."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_watt.accounts.events import LogPoint, Snapshot
from lightning_watt.accounts.forecast import LogSpan
from lightning_watt.errors import WattWarning
from lightning_watt.run.session import Session
from lightning_watt.run.state import RunState
from lightning_watt.sam.score import Scoring
from lightning_watt.trainer.loggers import (
    OVER_ENERGY_AXIS,
    each_tensorboard,
    log_histogram,
    log_record,
    log_snapshot,
    save,
)
from lightning_watt.warn_once import WarnOnce

SCORING = Scoring(alpha=5.0, beta=5.0, unit="kWh")


class Plain:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.saves = 0

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, metrics))

    def save(self) -> None:
        self.saves += 1


class Broken(Plain):
    """One whose disk is full."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        raise OSError("no room")

    def save(self) -> None:
        raise OSError("no room")


class Run:
    """A run of W&B."""

    def __init__(self) -> None:
        self.defined: list[tuple[str, dict[str, Any]]] = []

    def define_metric(self, name: str, **how: Any) -> None:
        self.defined.append((name, how))


class WandbLogger(Plain):
    """Named as W&B's logger is."""

    LOGGER_JOIN_CHAR = "-"

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix
        self.experiment = Run()


class TensorBoardLogger(Plain):
    """Named as TensorBoard's logger is."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[str, str, int]] = []
        self.histograms: list[tuple[str, list[float], int]] = []
        self.experiment = SimpleNamespace(
            add_text=lambda tag, text, global_step: self.texts.append((tag, text, global_step)),
            add_histogram=lambda tag, values, step: self.histograms.append((tag, values.tolist(), step)),
        )


def snapshot(accuracy: float | None) -> Snapshot:
    point = LogPoint(step=7, epoch=2, accuracy=accuracy, batches=4, samples=16, ahead={})
    return Snapshot(point, 123.6, 1.0, {"train": 123.6}, {"gpu0": 50.0}, LogSpan(20.0, 4, 16))


def test_a_row_stands_at_its_step_and_what_is_over_energy_beside_its_joules():
    logger = Plain()
    log_snapshot([logger], snapshot(0.75), SCORING, WarnOnce())
    ((step, row),) = logger.rows
    assert step == 7
    assert {tag: row[tag] for tag in ("epoch", "watt/power_w", "watt/joules_per_batch", "watt/joules_per_sample")} == {
        "epoch": 2,
        "watt/power_w": 50.0,
        "watt/joules_per_batch": 5.0,
        "watt/joules_per_sample": 1.25,
    }
    over_energy = {tag: value for tag, value in row.items() if tag.startswith("watt_vs_energy/")}
    assert over_energy.keys() == {OVER_ENERGY_AXIS, "watt_vs_energy/accuracy", "watt_vs_energy/sam_shifted"}
    assert (over_energy[OVER_ENERGY_AXIS], over_energy["watt_vs_energy/accuracy"]) == (123.6, 0.75)


def test_in_tensorboard_joules_are_the_step_of_what_is_over_energy():
    board = TensorBoardLogger()
    log_snapshot([board], snapshot(0.75), SCORING, WarnOnce())
    (step, row), (joules, over_energy) = board.rows
    assert (step, joules) == (7, 124)
    assert set(over_energy) == {"watt_vs_energy/accuracy", "watt_vs_energy/sam_shifted"}
    assert not set(over_energy) & set(row)


def test_without_an_accuracy_there_is_nothing_over_energy():
    plain, board = Plain(), TensorBoardLogger()
    log_snapshot([plain, board], snapshot(None), SCORING, WarnOnce())
    for logger in (plain, board):
        ((step, row),) = logger.rows
        assert step == 7
        assert not [tag for tag in row if tag.startswith("watt_vs_energy/")]


@pytest.mark.parametrize(("prefix", "before"), [("", ""), ("mine", "mine-")])
def test_wandb_gets_one_row_and_an_axis_of_joules_once(prefix, before):
    logger = WandbLogger(prefix)
    for _ in range(2):
        log_snapshot([logger], snapshot(0.75), SCORING, WarnOnce())
    assert [step for step, _ in logger.rows] == [7, 7]
    row = logger.rows[0][1]
    assert (row[OVER_ENERGY_AXIS], row["watt_vs_energy/accuracy"], row["epoch"]) == (123.6, 0.75, 2)
    axis = before + OVER_ENERGY_AXIS
    assert logger.experiment.defined == [
        (axis, {"hidden": True}),
        (f"{before}watt_vs_energy/accuracy", {"step_metric": axis}),
        (f"{before}watt_vs_energy/sam_shifted", {"step_metric": axis}),
    ]


def test_a_logger_that_raises_is_reported_once_and_the_others_go_on():
    last, warn_once = Plain(), WarnOnce()
    with pytest.warns(WattWarning, match="Broken does not take the energy"):
        log_snapshot([Broken(), last], snapshot(None), SCORING, warn_once)
    log_snapshot([Broken(), last], snapshot(None), SCORING, warn_once)  # a second warning would be an error
    save([Broken(), last], warn_once)
    assert list(warn_once.said) == ["logger Broken"]
    assert (len(last.rows), last.saves) == (2, 1)


def test_only_tensorboard_gets_the_record_and_the_histogram():
    plain, board, warn_once = Plain(), TensorBoardLogger(), WarnOnce()
    record = RunState().to_record(Session(id="mine"), SCORING)
    log_record([plain, board], record, 3, warn_once)
    log_histogram([plain, board], [1.0, 2.5], 9, warn_once)
    ((tag, text, step),) = board.texts
    assert (tag, step) == ("watt/record", 3)
    assert text.startswith("```json\n{")
    assert '"session": "mine"' in text
    assert board.histograms == [("watt/batch_joules", [1.0, 2.5], 9)]
    assert plain.rows == []


def test_a_tensorboard_that_raises_does_not_keep_the_next_from_its_turn():
    boards, written = [TensorBoardLogger(), TensorBoardLogger()], []

    def write(logger: Any) -> None:
        if logger is boards[0]:
            raise OSError("no room")
        written.append(logger)

    with pytest.warns(WattWarning, match="TensorBoardLogger does not take the energy"):
        each_tensorboard(boards, WarnOnce(), write)
    assert written == [boards[1]]
