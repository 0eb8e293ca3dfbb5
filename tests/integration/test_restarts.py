"""Runs that are killed and go on: every joule that the boards used is counted once, and the lost is named."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightning_watt import WattCallback, energy_of, read_record
from lightning_watt.record import Record, read_journal
from lightning_watt.record.files import JOURNAL_NAME
from lightning_watt.record.journal import read_traces
from lightning_watt.sources.base import Clock, Device, Failure, Reading
from lightning_watt.testing import Board, Lab, constant, square
from tests.integration.tiny import QUIET, WEIGHTS_ONLY, Steady, finished, loader, module, start_child, trainer, watt

pytestmark = [
    *(pytest.mark.filterwarnings(entry) for entry in QUIET),
    # Lightning's own words about a resume elsewhere and in the middle of an epoch.
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]
WATTS = 100.0
INTERVAL = 0.25


def steady(**options: Any) -> WattCallback:
    return watt(gpus="auto", sources=[Steady(WATTS)], **options)


class BurntToastError(Exception):
    """What a training raises."""


def own_j(record: Record) -> float:
    """What the record's own session used."""
    return record.energy.total_j - record.resumed_j - record.wasted_j


def summed(directory: Path) -> Record:
    """The record, its sums found right and its wasted part where its docstring says."""
    record = read_record(directory)
    energy = record.energy
    assert sum(stage.joules for stage in energy.by_stage.values()) == pytest.approx(energy.total_j, rel=1e-9)
    assert sum(device.joules for device in energy.by_device.values()) == pytest.approx(energy.total_j, rel=1e-9)
    wasted = energy.by_stage["wasted"].joules if "wasted" in energy.by_stage else 0.0
    assert record.wasted_j == pytest.approx(wasted, rel=1e-9)
    assert sum(work.joules for work in record.lost) == pytest.approx(wasted, rel=1e-9)
    assert own_j(record) >= 0
    return record


# ---- killed, with real processes ----


def killed(process: Any) -> None:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out[-3000:]


def truly_j(lab: Lab, directories: list[Path]) -> list[float]:
    """What the lab's boards used for each process in turn, from its run's setup to its journal's last line.

    What it used after that line is lost by design, an interval's at most; on a busy machine the line is written late.
    """
    begun_unix = time.time() - time.monotonic()
    found = []
    for directory in dict.fromkeys(directories):
        written_ns = [round((line["t"] - begun_unix) * 1e9) for line in read_journal(directory)]
        for path in directory.glob("span*"):
            began_ns, *ended_ns = map(int, path.read_text().split())
            last_ns = max(t_ns for t_ns in written_ns if not ended_ns or t_ns <= ended_ns[0])
            found.append((began_ns, sum(lab.true_joules(board, began_ns, last_ns) for board in range(len(lab.boards)))))
    return [used_j for _, used_j in sorted(found)]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("place", ["one directory", "a new version each time"])
def test_six_epochs_killed_twice(tmp_path, place):
    """Killed in the third epoch, resumed, and killed again: once before the next checkpoint, once after it."""
    lab = Lab([Board(power=square(300, 80, 0.81), counter_ms=10), Board(power=constant(120), counter_ms=10)])
    shared: dict[str, Any] = {
        "env": lab.env(),
        "watt": {"interval": INTERVAL},
        "trainer": {"max_epochs": 6},
        "module": {"step_s": 0.05},
        "batches": [10, 2],
        "keep": str(tmp_path / "kept"),
    }
    one = place == "one directory"
    directories = [tmp_path / "logs" / f"version_{0 if one else number}" for number in range(3)]
    directories[0].parent.mkdir()
    killed(start_child(directories[0], kill=[2, 6, 0], **shared))
    assert read_record(directories[0]).status == "running"  # nobody could say otherwise
    first = str(tmp_path / "kept" / "epoch=1.ckpt")
    again = 4 if one else 2
    killed(start_child(directories[1], kill=[again, 6, 0], ckpt_path=first, **shared))
    second = str(tmp_path / "kept" / f"epoch={again - 1}.ckpt")
    out = finished(start_child(directories[2], fresh=one, ckpt_path=second, **shared))
    record = summed(directories[2])
    truth_j, most_w = truly_j(lab, directories), 300 + 120
    assert record.energy.total_j == pytest.approx(sum(truth_j), abs=2 * INTERVAL * most_w)
    # The wasted part is named: six batches each time, and which sessions.
    assert [work.status for work in record.lost] == ["killed", "killed"]
    for work, used_j in zip(record.lost, truth_j, strict=False):
        assert 0 < work.joules < used_j
    assert {work.directory for work in record.lost} <= {str(directory) for directory in directories}
    assert record.energy.by_stage["train"].batches == 60  # the lost ones were trained again
    assert record.status == "completed"
    assert "killed" in out
    assert energy_of(directories[2]).own_j == record.energy.total_j


@pytest.mark.ddp
@pytest.mark.slow
def test_a_job_that_slurm_preempts_and_requeues(tmp_path):
    """SIGUSR1: Lightning saves, and requeues itself; Slurm kills it a while later; the next start finds the checkpoint."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path / 'asked'}\n")
    scontrol.chmod(0o755)
    job = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    shared: dict[str, Any] = {
        "env": os.environ
        | {f"SLURM_{name}": value for name, value in job.items()}
        | {"PATH": f"{scontrol.parent}:{os.environ['PATH']}"},
        "steady": WATTS,
        "watt": {"interval": INTERVAL},
        "trainer": {"max_epochs": 3},
        "module": {"step_s": 0.05},
        "batches": [10, 2],
    }
    killed(start_child(tmp_path / "run", signal=[1, 4, 0, signal.SIGUSR1], kill=[2, 1, 0], **shared))
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    again = start_child(tmp_path / "run", signal=[2, 4, 0, signal.SIGTERM], **shared)
    out, _ = again.communicate(timeout=120)
    assert "hpc_ckpt_1.ckpt" in out
    record = summed(tmp_path / "run")
    assert record.status == "interrupted"
    (work,) = record.lost
    assert work.status == "killed"
    traces = read_traces([tmp_path / "run"]).by_session
    assert len(traces) == 2
    assert record.energy.total_j == pytest.approx(sum(trace.total_uj for trace in traces.values()) / 1e6, abs=0.1)
    # Saved in the fifth batch of the second epoch; killed in the second batch of the third one.
    saved_unix = (tmp_path / "run" / "hpc_ckpt_1.ckpt").stat().st_mtime
    told_unix = min(trace.last.t for trace in traces.values())
    assert work.seconds == pytest.approx(told_unix - saved_unix, abs=2 * INTERVAL)


# ---- everything else, in this process: a run that raised has told its end ----


def fit(
    pl: Any,
    directory: Path,
    callback: Any = None,
    *,
    fails: tuple[int, int] | None = None,
    epochs: int = 6,
    error: BaseException | None = None,
    ran: list[tuple[int, int]] | None = None,
    **more: Any,
) -> Record:
    """A fit that keeps a checkpoint of every epoch, and raises in `(epoch, batch)`; its record.

    `ran` gets the epoch and the index of each training batch that began.
    """
    tiny = module(pl, step_s=0.02)

    def on_batch(stage: str, index: int) -> None:
        if stage == "train" and ran is not None:
            ran.append((tiny.current_epoch, index))
        if stage == "train" and fails == (tiny.current_epoch, index):
            raise error or BurntToastError

    tiny.on_batch = on_batch
    options = {name: more.pop(name) for name in ("ckpt_path",) if name in more}
    kept = pl.callbacks.ModelCheckpoint(directory / "kept", "{epoch}", save_top_k=-1, **{"every_n_epochs": 1} | more)
    trained = trainer(pl, directory, callback or steady(), kept, max_epochs=epochs, enable_checkpointing=True)
    try:
        trained.fit(tiny, loader(6), loader(2), **WEIGHTS_ONLY, **options)
    except (BurntToastError, SystemExit):
        assert fails is not None
    else:
        assert fails is None
    return summed(directory)


def test_what_a_failed_run_used_after_its_checkpoint_is_in_the_total_to_the_microjoule(ptl, tmp_path):
    first = fit(ptl, tmp_path / "1", fails=(2, 4))
    path = tmp_path / "1" / "kept" / "epoch=1.ckpt"
    second = fit(ptl, tmp_path / "2", ckpt_path=path, epochs=4)
    assert (first.status, second.status) == ("failed", "completed")
    # The checkpoint knows its last moment by the last known power, and the journal by a reading.
    assert second.resumed_j == pytest.approx(energy_of(path).own_j, rel=0.1)
    assert second.resumed_j + second.wasted_j == pytest.approx(first.energy.total_j, abs=1e-6)
    (work,) = second.lost
    assert (work.session, work.status, work.directory) == (first.session, "failed", str(tmp_path / "1"))
    # Four batches of 20 ms, and what had not been settled when the checkpoint was saved.
    assert WATTS * 4 * 0.02 < work.joules < WATTS * (4 * 0.02 + 1.0)
    assert second.energy.by_stage["train"].batches == 24
    assert [row.epoch for row in second.epochs if row.stage == "train"] == [0, 1, 2, 3]
    assert second.resumes == [first.session]


def test_an_interrupted_run_says_so_in_the_next_ones_record(ptl, tmp_path):
    fit(ptl, tmp_path / "1", fails=(1, 4), error=KeyboardInterrupt())
    record = fit(ptl, tmp_path / "2", ckpt_path=tmp_path / "1" / "kept" / "epoch=0.ckpt", epochs=1)
    assert [work.status for work in record.lost] == ["interrupted"]


@pytest.mark.parametrize("place", ["one directory", "versions"])
def test_a_chain_of_crashes_counts_every_joule_once(ptl, tmp_path, place):
    def directory(number: int) -> Path:
        return tmp_path / "logs" / ("version_0" if place == "one directory" else f"version_{number}")

    path = None
    for number, (fails, since) in enumerate([((2, 3), 1), ((2, 4), 1), ((4, 2), 3), ((4, 5), 3)]):
        fit(ptl, directory(number), fails=fails, ckpt_path=path)
        kept = list((tmp_path / "logs").glob(f"*/kept/epoch={since}*.ckpt"))
        path = max(kept, key=lambda one: one.stat().st_mtime)
    record = fit(ptl, directory(4), ckpt_path=path, epochs=5)
    # All that was ever measured, by the journals: each session's own last line.
    traces = read_traces((tmp_path / "logs").iterdir()).by_session
    assert len(traces) == 5
    everything_j = sum(trace.total_uj for trace in traces.values()) / 1e6
    assert record.energy.total_j == pytest.approx(everything_j, abs=1e-5)
    assert [work.status for work in record.lost] == ["failed"] * 4
    assert sorted(work.session for work in record.lost) == sorted(set(traces) - {record.session})
    assert record.energy.by_stage["train"].batches == 30


def test_two_runs_from_one_checkpoint_both_carry_its_loss_and_nothing_of_each_other(ptl, tmp_path):
    first = fit(ptl, tmp_path / "1", fails=(2, 4))
    path = tmp_path / "1" / "kept" / "epoch=1.ckpt"
    a, b = (fit(ptl, tmp_path / name, ckpt_path=path, epochs=3) for name in ("a", "b"))
    for record in (a, b):
        assert record.resumed_j + record.wasted_j == pytest.approx(first.energy.total_j, abs=1e-6)
    traces = read_traces([tmp_path / "a", tmp_path / "b"]).by_session
    for record in (a, b):
        assert own_j(record) == pytest.approx(traces[record.session].total_uj / 1e6, abs=1e-5)


def test_an_older_checkpoint_loses_more(ptl, tmp_path):
    first = fit(ptl, tmp_path / "1", fails=(4, 4))
    records = [
        fit(ptl, tmp_path / f"from {e}", ckpt_path=tmp_path / "1" / "kept" / f"epoch={e}.ckpt", epochs=e + 1) for e in (3, 1)
    ]
    for record in records:
        assert record.resumed_j + record.wasted_j == pytest.approx(first.energy.total_j, abs=1e-6)
    assert records[1].wasted_j > records[0].wasted_j + WATTS * 2 * 6 * 0.02


def test_a_run_that_ended_well_has_lost_nothing(ptl, tmp_path):
    fit(ptl, tmp_path / "1", epochs=4)
    path = tmp_path / "1" / "kept" / "epoch=1.ckpt"
    record = fit(ptl, tmp_path / "2", ckpt_path=path)
    assert (record.wasted_j, record.lost) == (0, [])
    assert record.resumed_j == pytest.approx(energy_of(path).own_j, rel=0.1)


class ByStage(Steady):
    """A device whose power follows the stage, 0 W between the batches. Each change is a reading, so its curve is exact."""

    watts_of = {"train": 400.0, "validate": 50.0}  # noqa: RUF012 - never changed
    step_s = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.points: deque[tuple[int, int]] = deque()
        self.used_uj: Counter[str] = Counter()

    def open(self, clock: Clock) -> list[Device]:
        self.points = deque([(clock.now_ns(), self.used_uj.total())])
        (device,) = super().open(clock)
        return [msgspec.structs.replace(device, always_draws=False, tick_s=0.0)]

    def on_batch(self, stage: str, index: int) -> None:
        self.points.append((began_ns := self.clock.now_ns(), self.used_uj.total()))
        time.sleep(self.step_s)
        self.used_uj[stage] += round((now_ns := self.clock.now_ns()) - began_ns) * int(self.watts_of[stage]) // 1000
        self.points.append((now_ns, self.used_uj.total()))

    def read(self) -> list[Reading | Failure]:
        return [Reading(self.label, *self.points.popleft()) for _ in range(len(self.points))]


def test_a_chain_of_completed_runs_is_right_stage_by_stage(ptl, tmp_path):
    """Their checkpoints are saved before the last batches were read, and hold them by the power of the stage before."""
    source = ByStage()
    for epochs in (1, 2, 3, 4):
        tiny = module(ptl, on_batch=source.on_batch)
        kept = ptl.callbacks.ModelCheckpoint(tmp_path / "kept", save_last=True)
        callback = watt(gpus="auto", sources=[source], interval=1.0)
        options = {"max_epochs": epochs, "enable_checkpointing": True, "num_sanity_val_steps": 0}
        trained = trainer(ptl, tmp_path, callback, kept, **options)
        path = tmp_path / "kept" / "last.ckpt" if epochs > 1 else None
        trained.fit(tiny, loader(6), loader(3), ckpt_path=path, **WEIGHTS_ONLY)
    record = summed(tmp_path)
    by_stage = {stage: record.energy.by_stage[stage] for stage in ("train", "validate")}
    assert {stage: used.joules for stage, used in by_stage.items()} == pytest.approx(
        {stage: uj / 1e6 for stage, uj in source.used_uj.items()}, abs=1e-3
    )
    assert {stage: used.batches for stage, used in by_stage.items()} == {"train": 24, "validate": 12}
    assert (record.wasted_j, record.lost) == (0, [])


def test_a_resume_in_the_middle_of_an_epoch(ptl, tmp_path):
    first = fit(ptl, tmp_path / "1", fails=(1, 5), every_n_epochs=None, every_n_train_steps=3)
    path = sorted((tmp_path / "1" / "kept").glob("*.ckpt"), key=lambda one: one.stat().st_mtime)[-1]
    ran: list[tuple[int, int]] = []
    record = fit(ptl, tmp_path / "2", ckpt_path=path, epochs=2, ran=ran)
    assert record.resumed_j + record.wasted_j == pytest.approx(first.energy.total_j, abs=1e-6)
    # Nine before the checkpoint. Some versions of Lightning train the last of them again.
    assert record.energy.by_stage["train"].batches == 9 + len(ran)
    assert ran[-3:] == [(1, 3), (1, 4), (1, 5)]


def test_a_checkpoint_carries_the_last_second_too(ptl, tmp_path):
    """Nothing is read for a minute but at the stages' edges; what was used since stands in the checkpoint all the same."""
    paths = []

    class Saving(ptl.Callback):
        def on_train_batch_end(self, trained, tiny, outputs, batch, index):
            if index == 40:
                paths.append(tmp_path / "late.ckpt")
                trained.save_checkpoint(paths[0])
                self.batches = index + 1

    saving = Saving()
    trained = trainer(ptl, tmp_path, steady(interval=60), saving, max_epochs=1, num_sanity_val_steps=0)
    trained.fit(module(ptl, step_s=0.02), loader(45), loader(1))
    record = read_record(tmp_path)
    so_far = energy_of(paths[0])
    train = record.energy.by_stage["train"]
    assert so_far.own_j == pytest.approx(train.joules * 41 / 45, rel=0.2)
    again = fit(ptl, tmp_path / "2", ckpt_path=paths[0], epochs=1)
    assert again.energy.by_stage["train"].batches >= 41


def test_other_boards_and_another_host_get_rows_of_their_own(ptl, tmp_path):
    class Other(Steady):
        def open(self, clock):
            (device,) = super().open(clock)
            return [type(device)(device.label, device.name, "GPU-other", device.source, tick_s=0.001)]

    first = fit(ptl, tmp_path / "1", fails=(2, 4))
    other = watt(gpus="auto", sources=[Other(50.0), Steady(30.0, "gpu1")])
    record = fit(ptl, tmp_path / "2", other, ckpt_path=tmp_path / "1" / "kept" / "epoch=1.ckpt", epochs=3)
    devices = record.energy.by_device
    assert {device.uuid for device in devices.values()} == {"uuid-gpu0", "GPU-other", "uuid-gpu1"}
    before = next(device for device in devices.values() if device.uuid == "uuid-gpu0")
    assert before.joules == pytest.approx(first.energy.total_j, abs=1e-6)
    assert devices["gpu0"].joules == pytest.approx(devices["gpu1"].joules * 50 / 30, rel=0.05)


# ---- journals that are not there, broken, or hostile ----


def test_a_journal_that_is_not_there_is_told_once_and_is_not_zero(ptl, tmp_path, words):
    fit(ptl, tmp_path / "1", fails=(2, 4))
    (tmp_path / "1" / JOURNAL_NAME).unlink()
    record = fit(ptl, tmp_path / "2", ckpt_path=tmp_path / "1" / "kept" / "epoch=1.ckpt", epochs=3)
    sentence = words.take("after its checkpoint is not known")
    assert sentence in record.missing
    assert str(tmp_path / "1") in sentence
    assert record.wasted_j == 0


def test_a_run_directory_that_was_moved_is_found_by_its_checkpoint(ptl, tmp_path):
    first = fit(ptl, tmp_path / "1", fails=(2, 4))
    (tmp_path / "1").rename(tmp_path / "elsewhere")
    (tmp_path / "far").mkdir()
    record = fit(ptl, tmp_path / "far" / "2", ckpt_path=tmp_path / "elsewhere" / "kept" / "epoch=1.ckpt", epochs=2)
    assert record.resumed_j + record.wasted_j == pytest.approx(first.energy.total_j, abs=1e-6)


@pytest.mark.parametrize("kind", ["torn", "pipe"])
def test_a_broken_journal_is_told_and_what_is_left_of_it_counts(ptl, tmp_path, words, kind):
    """Every other way in which it may be broken: tests/unit/test_journal.py."""
    first = fit(ptl, tmp_path / "1", fails=(2, 4))
    journal = tmp_path / "1" / JOURNAL_NAME
    if kind == "torn":
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join([*lines[:-2], b"\0" * 4096, b"\n", lines[-1]]))
    else:
        journal.unlink()
        os.mkfifo(journal)
    record = fit(ptl, tmp_path / "2", ckpt_path=tmp_path / "1" / "kept" / "epoch=1.ckpt", epochs=3)
    if kind == "torn":
        assert words.take("make no sense and were left out") in record.missing
        assert record.resumed_j + record.wasted_j == pytest.approx(first.energy.total_j, abs=1e-6)
    else:
        words.take("after its checkpoint is not known")
        assert words.take(f"{JOURNAL_NAME} cannot be read") in record.missing
