"""Things that break while a training runs: it goes on, every sum stays whole, and each fault is said once."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_watt import energy_of, read_record
from lightning_watt.record import read_journal
from lightning_watt.run.samples import Counting
from lightning_watt.run.session import Session
from lightning_watt.sources.base import UNREAD, Failure, Reading
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Fault, Lab
from tests.integration.short_fit import board, fit, lab_of, seconds
from tests.integration.tiny import QUIET, Steady, loader, module, trainer, watt

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]
ENERGY = "nvmlDeviceGetTotalEnergyConsumption"


# ---- boards ----


def test_a_board_that_is_lost_is_told_and_the_other_goes_on(ptl, tmp_path, words):
    with lab_of(board(300, Fault("lost", at_s=0.8)), board(120)).running():
        record = fit(ptl, tmp_path, watt())
        lost, well = (record.energy.by_device[label].joules for label in ("gpu0", "gpu1"))
        sentence = words.take("gpu0 could not be read")
        assert "fell off the bus" in sentence
    assert well == pytest.approx(120 * seconds(record), rel=0.05)
    assert 0 < lost < 300 * 0.85  # what it used until then, and nothing made up
    assert record.warnings == [sentence]


def test_all_boards_lost_ends_the_counting_and_not_the_training(ptl, tmp_path, words):
    with lab_of(board(300, Fault("lost", at_s=0.8))).running():
        record = fit(ptl, tmp_path, watt())
    words.take("gpu0 could not be read")
    assert 0 < record.energy.total_j < 300 * 0.85
    assert record.energy.by_stage["train"].batches == 24


@pytest.mark.parametrize("others", [0, 1])
def test_a_board_that_never_answers_is_missing_by_name(ptl, tmp_path, words, capsys, others):
    silent = board(300, Fault("error", at_s=0.0, function=ENERGY))
    with Lab([silent, *[board(120)] * others]).running():
        record = fit(ptl, tmp_path, watt())
    words.take("gpu0 could not be read")
    (sentence,) = (missing for missing in record.missing if "gpu0" in missing)
    assert sentence.startswith("gpu0 was never read: NVML says: ")
    assert list(record.energy.by_device) == ["gpu1"] * others
    assert sentence in capsys.readouterr().out


def test_a_passing_error_loses_nothing(ptl, tmp_path, words):
    """The counter goes on behind the error, so the next answer holds what was used meanwhile."""
    with lab_of(board(200, Fault("error", at_s=0.6, until_s=1.2, function=ENERGY))).running():
        record = fit(ptl, tmp_path, watt())
    words.take("gpu0 could not be read")
    assert record.energy.total_j == pytest.approx(200 * seconds(record), rel=0.06)


def test_a_counter_that_starts_over_is_bridged_and_told(ptl, tmp_path, words):
    with lab_of(board(200, Fault("reset", at_s=0.9))).running():
        record = fit(ptl, tmp_path, watt())
    assert "went backwards" in words.take("gpu0: the counter")
    assert record.energy.total_j == pytest.approx(200 * seconds(record), rel=0.1)
    (gap,) = record.gaps
    assert gap.device == "gpu0"
    assert gap.joules <= record.energy.boundary_j  # what was bridged is uncertain


def test_a_counter_that_jumps_is_not_believed(ptl, tmp_path, words):
    with lab_of(board(200, Fault("jump", at_s=0.9, millijoules=10**9))).running():
        record = fit(ptl, tmp_path, watt())
    assert "faster than the device can draw" in words.take("gpu0: the counter")
    assert record.energy.total_j == pytest.approx(200 * seconds(record), rel=0.1)


@pytest.mark.parametrize("missing", ["counter", "counter and samples"])
def test_a_board_without_a_counter_falls_back_to_its_power(ptl, tmp_path, missing):
    options = {"counter_ms": None} | ({"samples_ms": None} if "samples" in missing else {})
    with Lab([board(150, **options)], age_s=5).running():
        record = fit(ptl, tmp_path, watt())
    device = record.energy.by_device["gpu0"]
    assert (device.source, device.provenance) == ("nvml-power", "measured")
    assert device.joules == pytest.approx(150 * seconds(record), rel=0.15)


def test_what_a_slow_source_used_before_its_first_reading_is_charged_and_is_a_gap(ptl, tmp_path, words):
    """Each of its reads takes 0.4 s, and none is of the moment at which it was opened. The board beside it is in time."""
    slow = Steady(300, "soc0", on_read=lambda: time.sleep(0.4))
    with lab_of(board(100)).running():
        record = fit(ptl, tmp_path, watt(sources=[slow, NvmlSource()]), max_epochs=1, num_sanity_val_steps=0)
    assert record.energy.by_device["soc0"].joules == pytest.approx(300 * seconds(record), rel=0.05)
    assert record.energy.by_device["gpu0"].joules == pytest.approx(100 * seconds(record), rel=0.05)
    [gap] = record.gaps
    assert (gap.device, gap.why) == ("soc0", UNREAD)
    assert gap.joules == pytest.approx(300 * gap.seconds, rel=0.02)
    assert 0.4 <= gap.seconds < 0.4 + seconds(record)
    # All of it is uncertain, once.
    assert 0.98 * gap.joules < record.energy.boundary_j < 1.3 * gap.joules  # it began a moment before the run
    assert record.energy.by_stage["train"].uncertainty_j > 0.9 * gap.joules
    words.take("soc0: it had not been read yet")


# ---- the driver that hangs ----


class Watched:
    """A callback that counts the lab's calls anew once the sources are open, and notes the training's thread."""

    def __new__(cls, pl: Any, lab: Lab) -> Any:
        class Watching(pl.Callback):
            def on_fit_start(self, trainer, module):
                self.thread = threading.get_native_id()
                lab.forget_calls()

            def on_train_end(self, trainer, module):
                self.callers = lab.calling_threads()

        return Watching()


def test_the_training_never_calls_the_driver(ptl, tmp_path, lab):
    watched = Watched(ptl, lab)
    fit(ptl, tmp_path, watt(batches=True), watched, step_s=0.02)
    assert lab.calls(ENERGY) > 5
    assert len(watched.callers) == 1
    assert watched.thread not in watched.callers


def test_a_driver_that_hangs_holds_up_nothing_but_the_end(ptl, tmp_path, words):
    """Each read of the counter takes three seconds: the fit's batches are over while the first is still under way."""
    lab = lab_of(board(200, Fault("hang", at_s=0.5, until_s=60, function=ENERGY, delay_ms=3000)))
    with lab.running():
        watched = Watched(ptl, lab)
        record = fit(ptl, tmp_path, watt(), watched, max_epochs=1)
        assert watched.thread not in watched.callers
    # The end waits for a read that is under way, with a limit. The batches are known whatever the driver does; the energy
    # that was not read by then is missing, which is told, and nothing is made up for it.
    train = record.energy.by_stage["train"]
    assert train.batches == 12
    late = [sentence for sentence in words.left() if "did not answer" in sentence]
    if late:
        assert record.warnings == [words.take("did not answer")]
        assert 0 < record.energy.total_j < 200 * seconds(record) * 1.02
    else:
        assert record.energy.total_j == pytest.approx(200 * seconds(record), rel=0.1)


@pytest.mark.slow
def test_a_driver_that_never_answers_cannot_keep_the_run_from_ending(ptl, tmp_path, words):
    release = threading.Event()
    stuck = Steady(on_read=lambda: None)

    def hang() -> None:
        if stuck.hanging:
            release.wait(60)

    stuck.hanging, stuck.on_read = False, hang
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[stuck]), max_epochs=1)
    tiny = module(ptl, step_s=0.05)
    tiny.on_train_epoch_start = lambda: setattr(stuck, "hanging", True)
    try:
        trained.fit(tiny, loader(12), loader(2))
    finally:
        release.set()
    assert trained.state.finished
    words.take("did not answer for 5 s")
    record = read_record(tmp_path)
    assert record.status == "completed"
    assert record.energy.total_j < 100 * 0.6
    # What is missing is named, and the truth lies within the stated uncertainty.
    [gap] = record.gaps
    assert "not charged" in gap.why
    assert record.energy.total_j + record.energy.uncertainty_j >= record.energy.total_j + gap.joules > 100 * 0.6


def test_a_driver_that_hangs_when_it_is_opened_does_not_keep_the_training_from_beginning(ptl, tmp_path, words, monkeypatch):
    monkeypatch.setattr("lightning_watt.sources.discover.OPEN_LIMIT_S", 0.1)
    answer = threading.Event()

    class Hanging(Steady):
        def open(self, clock):
            answer.wait(60)
            return super().open(clock)

    hanging = Hanging(label="gpu1")
    try:
        record = fit(ptl, tmp_path, watt(gpus="auto", sources=[hanging, Steady()]), max_epochs=1)
    finally:
        answer.set()
    assert "did not answer for 0.1 s when it was opened" in words.take("driver hangs")
    assert list(record.energy.by_device) == ["gpu0"]
    assert len(record.missing) == 1


def test_a_fault_of_ours_in_setup_does_not_reach_the_training(ptl, tmp_path, words, monkeypatch):
    """Only a wrong argument may raise there; any other `ValueError` is a fault, and the training goes on."""

    def broken(trainer):
        raise ValueError("nobody gave this argument")

    monkeypatch.setattr("lightning_watt.trainer.facts.hardware_facts", broken)
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[Steady()]), max_epochs=1)
    trained.fit(module(ptl), loader(3), loader(1))
    assert trained.state.finished
    words.take("^setup failed$")  # with the stack
    words.take("nobody gave this argument.*the training goes on")


# ---- sources ----


def test_nothing_measurable_is_an_estimate_that_says_so(ptl, tmp_path, capsys, words):
    """No board, no RAPL: what this machine has without the lab."""
    with Lab([], init_error=9).running():
        trained = trainer(ptl, tmp_path, watt(), max_epochs=1)
        trained.fit(module(ptl), loader(6), loader(2))
    words.take("^nvml: NVML does not start")  # every board was asked for
    record = read_record(tmp_path)
    if "cpu0" in record.energy.by_device and record.energy.by_device["cpu0"].source == "rapl":
        pytest.skip("this machine has RAPL, so something is measured")
    assert record.energy.provenance == "estimated"
    assert [(label, d.source) for label, d in record.energy.by_device.items()] == [("cpu0", "estimate")]
    assert any("nvml" in sentence for sentence in record.missing)
    printed = capsys.readouterr().out
    assert re.search(r"^Energy [^,]*, estimated\. .*An estimate is off by tens of percent", printed, re.MULTILINE)


def test_a_source_that_raises_once_is_told_once_and_loses_nothing(ptl, tmp_path, words):
    reads = iter(range(10**6))

    def sometimes() -> None:
        if next(reads) in (3, 5, 7):
            raise RuntimeError("cosmic ray")

    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[Steady(on_read=sometimes)]))
    assert "cosmic ray" in words.take("gpu0 could not be read")
    assert record.energy.total_j == pytest.approx(100 * seconds(record), rel=0.02, abs=1)


def test_a_source_that_always_raises_is_told_and_is_not_zero(ptl, tmp_path, words):
    def always() -> None:
        raise RuntimeError("no luck")

    other = Steady(50.0, label="gpu1")
    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[Steady(on_read=always), other]))
    words.take("gpu0 could not be read")
    assert record.energy.by_device["gpu1"].joules == pytest.approx(50 * seconds(record), rel=0.05, abs=1)
    # Missing is not zero: a device that never gave a reading has no row, or a row that says so.
    assert "gpu0" not in record.energy.by_device


class Nonsense(Steady):
    """Hands over what it is told to; an exception is raised."""

    def __init__(self, what: Any, **options: Any) -> None:
        super().__init__(label="gpu1", **options)
        self.what = what

    def read(self) -> Any:
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (None, "steady returned None for a `Reading`"),
        (SystemExit(3), r"steady raised SystemExit\(3\)"),
        ([Reading("gpu1", 1, "12")], "'12', which is no number of microjoules"),  # type: ignore[arg-type]
    ],
    ids=["nothing", "SystemExit", "a string"],
)
def test_a_source_of_nonsense_is_told_once_and_the_other_goes_on(ptl, tmp_path, words, what, told):
    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[Nonsense(what), Steady()]), step_s=0.02)
    words.take(f"^gpu1 could not be read.*{told}")
    assert record.energy.total_j == pytest.approx(100 * seconds(record), rel=0.02, abs=1)
    assert list(record.energy.by_device) == ["gpu0"]


def test_a_source_on_another_clock_is_told_and_its_energy_is_not_made_up(ptl, tmp_path, words):
    class WallClock(Steady):
        def read(self) -> list[Reading | Failure]:
            return [Reading("gpu0", time.time_ns(), time.time_ns() // 10)]

    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[WallClock()]), max_epochs=1)
    trained.fit(module(ptl, step_s=0.02), loader(6), loader(2))
    words.take(r"gpu0 could not be read.*a time to come.*`clock\.now_ns\(\)`, and not with `time\.time_ns\(\)`")
    assert read_record(tmp_path).energy.total_j is None


def test_a_source_that_exits_when_it_is_opened_does_not_end_the_training(ptl, tmp_path, words):
    class Exits(Steady):
        def open(self, clock):
            raise SystemExit(3)

    record = fit(ptl, tmp_path, watt(gpus="auto", sources=[Exits(label="gpu1"), Steady()]), step_s=0.02, max_epochs=1)
    sentence = words.take(r"It raised SystemExit\(3\) when it was opened")
    assert record.missing == [sentence]
    assert record.energy.total_j == pytest.approx(100 * seconds(record), rel=0.02, abs=1)


def test_a_source_that_raises_when_it_is_closed_is_told_and_the_others_are_closed(ptl, tmp_path, words):
    class Sticks(Steady):
        def close(self) -> None:
            raise SystemExit(3)

    other = Steady()
    fit(ptl, tmp_path, watt(gpus="auto", sources=[Sticks(label="gpu1"), other]), step_s=0.02, max_epochs=1)
    words.take(r"steady raised SystemExit\(3\) when it was closed")
    assert not other.is_open


def test_what_only_ever_raised_has_no_total(ptl, tmp_path, words):
    def always() -> None:
        raise RuntimeError("no luck")

    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[Steady(on_read=always)]), max_epochs=1)
    trained.fit(module(ptl, step_s=0.02), loader(6), loader(2))
    words.take("gpu0 could not be read")
    record = read_record(tmp_path)
    assert record.energy.total_j is None
    assert not {name for name in trained.callback_metrics if name.endswith("energy_kwh")}


def test_sources_are_closed_when_the_run_ends_however_it_ends(ptl, tmp_path):
    source = Steady()
    fit(ptl, tmp_path, watt(gpus="auto", sources=[source]), step_s=0.0, max_epochs=1)
    assert not source.is_open

    def on_batch(stage, index):
        assert source.is_open
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer(ptl, tmp_path, watt(gpus="auto", sources=[source])).fit(module(ptl, on_batch=on_batch), loader(2))
    assert not source.is_open
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightning_watt")]


# ---- ourselves ----


def test_a_hook_of_ours_that_fails_is_told_once_and_the_training_goes_on(pl, tmp_path, words, monkeypatch):
    """Whatever the reason: here what comes after the counting of a batch."""
    count = Counting.count

    def broken(*args: Any) -> None:
        count(*args)
        raise RuntimeError("of our own making")

    monkeypatch.setattr(Counting, "count", broken)
    trained = trainer(pl, tmp_path, watt(gpus="auto", sources=[Steady()]))
    trained.validate(module(pl), loader(3), verbose=False)
    assert trained.state.finished
    words.take(r"^on_validation_batch_end failed$")  # with the stack
    sentence = words.take(r"of our own making.*the training goes on")
    record = read_record(tmp_path)
    assert (record.status, record.warnings) == ("completed", [sentence])
    assert record.energy.by_stage["validate"].batches == 3


def test_a_batch_that_cannot_be_looked_into_has_no_samples_and_is_told_once(pl, tmp_path, words):
    """A batch that Lightning can move and we cannot count."""

    class Cursed(dict):
        def values(self):
            raise RuntimeError("no peeking")

    class Unpeeking(type(module(pl))):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", 0.5, batch_size=1)

    data = torch.utils.data.DataLoader(
        [Cursed(x=1), Cursed(x=2), Cursed(x=3)], batch_size=None, collate_fn=lambda batch: batch
    )
    trained = trainer(pl, tmp_path, watt(gpus="auto", sources=[Steady()]))
    trained.validate(Unpeeking(), data, verbose=False)
    assert trained.state.finished
    sentence = words.take(r"samples of validate cannot be counted .*no peeking")
    record = read_record(tmp_path)
    assert (record.status, record.warnings) == ("completed", [sentence])
    assert (record.energy.by_stage["validate"].batches, record.energy.by_stage["validate"].samples) == (3, 0)


# ---- signals ----


@pytest.mark.timeout(120)
def test_checkpoints_saved_by_a_signal_handler_hold_nothing_up_and_can_be_resumed(ptl, tmp_path):
    """As Lightning's Slurm requeue does, but every other millisecond: in the main thread, in the middle of anything."""
    callback = watt(gpus="auto", sources=[Steady()], batches=True)
    trained = trainer(ptl, tmp_path, callback, max_epochs=3)
    states: list[dict[str, Any]] = []
    saved: list[Path] = []
    handling = False

    def handle(number: int, frame: Any) -> None:
        nonlocal handling
        if handling:
            return
        handling = True
        if trained.training and len(states) % 50 == 49:
            saved.append(tmp_path / f"{len(states)}.ckpt")
            trained.save_checkpoint(saved[-1])
        states.append(callback.state_dict())
        handling = False

    before = signal.signal(signal.SIGVTALRM, handle)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.002, 0.002)  # of the process's own time, and pytest's limit has the other
    try:
        trained.fit(module(ptl), loader(40), loader(4))
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    record = read_record(tmp_path)
    assert record.status == "completed"
    assert record.energy.total_j == pytest.approx(100 * seconds(record), rel=0.02, abs=1)
    assert len(states) > 20
    for state in filter(None, states):
        assert Session().resume(state["session"])
    for path in saved:
        assert energy_of(path).total_j <= record.energy.total_j * 1.02 + 1


# ---- forks ----


class Forking:
    """A callback that forks a child in the middle of the fit and waits for its end.

    Args:
        pl: the package.
        how: what the child does: `raises`, `exits`, or `finishes` the fit.

    Attributes:
        status: how the child ended; None in the child itself.
        record: the record's status when it had.
    """

    def __new__(cls, pl: Any, how: str, directory: Path) -> Any:
        class Forks(pl.Callback):
            is_child, status, record = False, None, None

            def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
                if trainer.current_epoch or batch_idx != 5:
                    return
                child = os.fork()
                if child:
                    _, self.status = os.waitpid(child, 0)
                    self.record = read_record(directory).status
                    return
                self.is_child = True
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
                torch.set_num_threads(1)  # torch's own threads are not in the child, and it would wait for them
                if how == "raises":
                    raise RuntimeError("the child")
                if how == "exits":
                    sys.exit(3)

        return Forks()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("how", ["raises", "exits", "finishes"])
def test_a_child_forked_in_a_hook_leaves_its_parents_record_alone(ptl, tmp_path, how, capfd):
    forking = Forking(ptl, how, tmp_path)
    callback = watt(gpus="auto", sources=[Steady()], batches=True)
    trained = trainer(ptl, tmp_path, forking, callback, max_epochs=2)
    try:
        trained.fit(module(ptl, step_s=0.01), loader(12), loader(4))
    finally:
        if forking.is_child:
            os._exit(7 if callback._run.session is None else 1)
    assert os.waitstatus_to_exitcode(forking.status) == 7
    assert forking.record == "running"
    record = read_record(tmp_path)
    assert record.status == "completed"
    assert record.energy.total_j == pytest.approx(100 * seconds(record), rel=0.02, abs=1)
    assert [stage.batches for stage in record.energy.by_stage.values() if stage.batches] == [24, 8, 2]
    lines = read_journal(tmp_path)
    assert [line.get("status") for line in lines if line.get("status")] == ["completed"]
    assert [line["total_j"] for line in lines] == sorted(line["total_j"] for line in lines)
    rows = (tmp_path / "watt_batches.csv").read_text().splitlines()
    assert len(rows) == len(set(rows)) == 1 + 24 + 8 + 2
    assert capfd.readouterr().out.count("sanity_check") == 1  # the table at the end, printed by one of them


def test_loader_workers_forked_in_the_middle_of_a_fit_change_nothing(ptl, tmp_path):
    data = torch.utils.data.DataLoader(loader(6).dataset, batch_size=4, num_workers=2, multiprocessing_context="fork")
    trained = trainer(ptl, tmp_path, watt(gpus="auto", sources=[Steady()], batches=True), max_epochs=2)
    trained.fit(module(ptl, step_s=0.01), data, loader(2))
    record = read_record(tmp_path)
    assert (record.status, record.energy.by_stage["train"].batches) == ("completed", 12)
    assert record.energy.total_j == pytest.approx(100 * seconds(record), rel=0.02, abs=1)
