"""The GPU evidence against fake boards: what the lab's boards do is known, and the evidence has to find it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments.bench.gpu_evidence import __main__ as command
from experiments.bench.gpu_evidence.bench import Bench
from experiments.bench.gpu_evidence.board import Field, open_board
from experiments.bench.gpu_evidence.evidence import Evidence, OutOfTime, limited
from experiments.bench.gpu_evidence.load import BATCH_S, HEAVY, LIGHT
from experiments.bench.gpu_evidence.parts import NAMES, bias, families, fidelity, lag, part, samples, sync, timestamp
from experiments.bench.gpu_evidence.row import main as add_rows
from experiments.bench.gpu_evidence.row import row_of
from experiments.bench.gpu_evidence.summary import summary
from experiments.bench.kinds import regress
from lightning_watt.meter.timeline import Timeline
from lightning_watt.sources.base import Device, Reading
from lightning_watt.sources.nvidia.seen import FILE, seen_boards
from lightning_watt.testing import Board, Fault, Lab, constant, square, steps
from tests.integration.tiny import ROOT

WATTS, TICK_MS, SAMPLES_MS, BUFFER = 250.0, 50.0, 20.0, 120
MEASURED = [name for name in NAMES if name != "families"]


@pytest.fixture(autouse=True)
def _own_threads():
    """The CPU's load wants one thread; what else runs in this process does not."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run_command(directory, lab, *arguments):
    """The command in a process that sees the lab, and no CUDA."""
    line = [sys.executable, "-m", "experiments.bench.gpu_evidence", *arguments]
    env = lab.env() | {"CUDA_VISIBLE_DEVICES": "", "OUT": str(directory)}
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False)
    return done, json.loads((directory / "evidence.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Every part but the families, at a twentieth of its length, on a board of constant power."""
    directory = tmp_path_factory.mktemp("evidence")
    board = Board(
        power=constant(WATTS), counter_ms=TICK_MS, samples_ms=SAMPLES_MS, samples_buffer=BUFFER, counter_phase_ms=9
    )
    lab = Lab([Board(), board], age_s=10)
    options = ["--gpu", "1", "--scale", "0.05", "--parts", ",".join(MEASURED)]
    done, content = run_command(directory, lab, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: one["found"] for name, one in content["parts"].items()}
    return SimpleNamespace(directory=directory, lab=lab, content=content, said=done.stdout, **found)


@pytest.mark.slow
class TestRun:
    def test_every_part_did_its_work(self, run):
        assert {name: one["status"] for name, one in run.content["parts"].items()} == dict.fromkeys(MEASURED, "done")
        assert run.content["about"]["uuid"] == run.lab.uuid(1)
        assert sorted(file.name for file in run.directory.iterdir()) == ["README.md", "evidence.json"]

    def test_the_summary_names_the_gpu_the_driver_the_versions_and_the_command(self, run):
        text = (run.directory / "README.md").read_text()
        for word in (Board().name, "570.86.10", torch.__version__.split("+")[0], "--scale 0.05"):
            assert word in text
        assert [line for line in text.splitlines() if line.startswith("## ")] == [
            f"## {part(name).TITLE}" for name in MEASURED
        ]
        assert "cannot be told" not in text
        assert "Not asked for: families." in text

    def test_each_call_has_a_latency_or_a_reason(self, run):
        for state in ("idle", "busy"):
            for name, one in run.latency[state].items():
                assert "error" in one or 0 < one["median"] <= one["p99"], name
        assert "Not Supported" in run.latency["idle"]["nvmlDeviceGetMigMode"]["error"]

    def test_the_counter_ticks_as_the_lab_set_it(self, run):
        assert run.tick["tick_ms"] == pytest.approx(TICK_MS, rel=0.03)
        assert run.tick["field 83, busy"]["period_ms"]["median"] == pytest.approx(TICK_MS, rel=0.05)
        assert run.tick["counter, busy"]["step"]["median"] == pytest.approx(WATTS * TICK_MS, rel=0.01)

    def test_the_labs_stamps_are_the_calls(self, run):
        assert {name: one["verdict"] for name, one in run.timestamp.items()} == dict.fromkeys(
            timestamp.FIELDS.values(), "the call"
        )

    def test_the_samples_reach_as_far_as_the_buffer(self, run):
        quiet = run.samples["after a silence"]
        assert quiet["n"] == BUFFER
        assert quiet["span_s"] == pytest.approx((BUFFER - 1) * SAMPLES_MS / 1000, rel=0.01)
        assert quiet["spacing_ms"]["median"] == pytest.approx(SAMPLES_MS, rel=0.01)
        assert "does not follow" in run.samples["response"]["why"]

    def test_the_board_has_its_row(self, run, tmp_path):
        """As the summary shows it, and as the library reads it from its file."""
        row = row_of(run.content)
        assert (row.name, row.driver, row.samples_clock) == (run.content["about"]["gpu"], "570.86.10", "realtime")
        assert row.counter_tick_ms == pytest.approx(TICK_MS, rel=0.03)
        assert row.samples_ms == pytest.approx(SAMPLES_MS, rel=0.01)
        assert row.samples_kept == BUFFER
        assert [row.counter_at_1, row.counter_at_10, row.counter_at_100] == [pytest.approx(1.0, abs=0.02)] * 3
        assert 0 < row.call_idle_ms < 1
        assert row.call_busy_ms > 0
        assert row.counter_lag_ms is row.samples_window_ms is None  # its power is constant
        file = tmp_path / "boards.csv"
        file.write_text(FILE.read_text())
        assert add_rows([str(run.directory / "evidence.json")] * 2, file) == 0
        [again] = [one for one in seen_boards(file) if one.name == row.name]
        assert again.counter_tick_ms == pytest.approx(row.counter_tick_ms, rel=1e-3)
        assert (again.driver, again.samples_clock, again.source) == (row.driver, row.samples_clock, row.source)
        assert len(seen_boards(file)) == len(seen_boards()) + 1
        assert "counter_tick_ms" in (run.directory / "README.md").read_text()

    def test_the_lab_has_no_bias(self, run):
        busy = [row for row in run.bias["rates"] if row["state"] == "busy"]
        assert [row["pause_s"] for row in busy] == list(bias.PAUSES_S)
        for row in busy:
            assert row["counter_w"] == pytest.approx(WATTS, rel=0.01)
            assert row["samples_w"] == pytest.approx(WATTS, rel=0.001)
            assert row["against_slowest"] == pytest.approx(1.0, abs=bias.CLEAR)

    def test_the_stage_is_what_the_counter_counted(self, run):
        assert run.sum["train_error"] == pytest.approx(0.0, abs=0.01)
        assert run.sum["batches"] == run.sum["batches_expected"]
        assert run.sum["batches_j"] / run.sum["batches_s"] == pytest.approx(WATTS, rel=0.01)
        assert run.sum["stages_j"] == pytest.approx(run.sum["total_j"], rel=1e-9)
        assert run.sum["devices_j"] == pytest.approx(run.sum["total_j"], rel=1e-9)
        assert run.sum["uuid_is_the_boards"]

    def test_without_cuda_nothing_is_claimed_about_synchronises(self, run):
        assert run.sync["on_gpu"] is False
        assert "this proves nothing" in (run.directory / "README.md").read_text()

    def test_constant_power_gives_every_batch_the_same_watts(self, run):
        assert run.fidelity["steady_w"] == {kind: pytest.approx(WATTS, rel=0.01) for kind in (HEAVY, LIGHT)}
        assert [row["group"] for row in run.fidelity["groups"]] == [
            "steady",
            "0.5 s",
            "2 s",
            "10 s",
            "batch by batch",
            "mixed",
        ]
        for row in run.fidelity["groups"]:
            assert row["error"] < 0.02, row
            assert row["within"] > 0.95, row

    def test_the_overhead_stands_beside_the_noise(self, run):
        assert list(run.overhead["ratios"])[:3] == ["no callback, again", "WattCallback()", "WattCallback(batches=True)"]
        for name, row in run.overhead["ratios"].items():
            assert row["n"] == len(run.overhead["rounds"]) >= 2
            assert row["median"] > 0
            assert (row["hook_us"]["n"] > 0) is name.startswith("Watt")


def test_the_counters_lag_behind_the_load_is_found(tmp_path):
    """The board's power follows the lab's clock, and so does the plan of the load."""
    lag_ms = 60.0
    high_low = square(300, 80, 2 * lag.PERIOD_S)
    board = Board(power=high_low, counter_ms=20, counter_lag_ms=lag_ms)
    lab = Lab([board], t0_ns=time.monotonic_ns() - 18 * round(lag.PERIOD_S * 1e9))
    found = {}
    with lab.running(), open_board() as opened:
        begin_ns = lab.t0_ns + 20 * round(lag.PERIOD_S * 1e9)
        lag.run(Bench(opened, tmp_path, scale=0.3, begin_ns=begin_ns), found)
    assert found["lag_ms"] == pytest.approx(lag_ms, abs=15)  # a look each 5 ms, on a machine that may be busy
    assert (found["heavy_w"], found["light_w"]) == (pytest.approx(300, rel=0.1), pytest.approx(80, rel=0.2))
    assert "follows the load after" in lag.summarise(found)[0]


@pytest.mark.parametrize(("clock", "slept_s"), [("boottime", None), ("", -500.0)], ids=["since boot", "of no clock"])
def test_stamps_since_boot_are_told_and_laid_over_the_load(tmp_path, monkeypatch, clock, slept_s):
    monkeypatch.setattr(bias, "PAUSES_S", (0.1,))
    faults = [] if slept_s is None else [Fault("clock_step", seconds=slept_s)]
    board = Board(power=constant(WATTS), counter_ms=TICK_MS, samples_ms=SAMPLES_MS, stamps="boot", faults=faults)
    lab = Lab([board], age_s=10)
    looked, biased = {}, {}
    with lab.running(), open_board() as opened:
        bench = Bench(opened, tmp_path, scale=0.05)
        samples.run(bench, looked)
        if clock:
            bias.run(bench, biased)
    assert looked["clock"] == clock
    assert f"clock: {clock or 'none that this machine has'}." in "\n".join(samples.summarise(looked))
    if clock:
        assert 0 <= looked["under load"]["age_ms"]["median"] <= SAMPLES_MS * 3
        assert looked["under load"]["spacing_ms"]["median"] == pytest.approx(SAMPLES_MS, rel=0.01)
        assert all(row["samples_w"] == pytest.approx(WATTS, rel=0.001) for row in biased["rates"])


@pytest.mark.parametrize(("window_ms", "spacing_ms"), [(25, 100), (100, 100), (1000, 100), (10, 20)])
def test_the_window_of_the_samples_comes_out_of_those_in_between(window_ms, spacing_ms):
    edges = [(i * 1_500_000 + 7_000 * i, LIGHT if i % 2 == 0 else HEAVY) for i in range(60)] + [(60 * 1_507_000, "end")]

    def shown(us):  # the mean of 80 and 300 W over the window that ends there
        at = np.linspace(us - window_ms * 1000, us, 101)
        heavy = (np.maximum(at, 0) // 1_507_000).astype(int) % 2 == 1
        return 1000 * float(np.where(heavy, 300, 80).mean())

    line = [(us, shown(us)) for us in range(3_000, 60 * 1_507_000, spacing_ms * 1000)]
    found = samples.response(edges, line)
    assert found["window_ms"] == pytest.approx(window_ms, rel=0.2)


def test_evidence_that_is_none_makes_no_row(tmp_path, capsys):
    (tmp_path / "evidence.json").write_text("[]")
    assert add_rows([], tmp_path / "boards.csv") == add_rows([str(tmp_path / "evidence.json")], tmp_path / "boards.csv") == 2
    assert "not all evidence" in capsys.readouterr().err
    assert not (tmp_path / "boards.csv").exists()


@pytest.mark.slow
def test_a_family_leaves_its_record(tmp_path):
    lab = Lab([Board(power=constant(100.0))], age_s=10)
    options = ["--parts", "families", "--families", "resnet", "--family-scale", "tiny", "--family-phase", "pretrain"]
    done, content = run_command(tmp_path, lab, *options, "--family-seconds", "120")
    one = content["parts"]["families"]["found"]["resnet"]
    assert one["status"] == "completed", one["why"] + done.stderr
    assert one["records"]["watt.json"]["energy"]["by_device"]["gpu0"]["uuid"] == lab.uuid(0)
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", "evidence.json", "families.zip"}
    assert "| resnet |" in (tmp_path / "README.md").read_text()


def test_the_files_of_all_runs_are_kept(tmp_path):
    names = {"watt.json", "watt-v1.json", "watt-v1.rank1.json", "2/watt.json", "watt-v1.jsonl"}
    for name in (*names, "2/other.json"):
        (tmp_path / "runs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / name).touch()
    families.archive(tmp_path / "runs", tmp_path / families.ARCHIVE)
    with zipfile.ZipFile(tmp_path / families.ARCHIVE) as packed:
        assert set(packed.namelist()) == {f"families/{name}" for name in names}


def test_batches_whose_power_is_known_are_given_it(tmp_path, monkeypatch):
    """The board's power follows the plan, so heavy and light are told apart, and by the regression where they alternate.

    The plan is kept on the lab's own time and not on the machine's, which may be busy.
    """
    monkeypatch.setattr(fidelity, "PERIODS", ((0.5, 2), (2.0, 1)))
    watts = {HEAVY: 300.0, LIGHT: 80.0}
    pieces = fidelity.plan(Bench(SimpleNamespace(), tmp_path, scale=0.5))
    pieces = [p for p in pieces if p.group != "mixed"] + [p for p in pieces if p.group == "mixed"][:4]
    batches = [
        (index, one.kinds[slot % len(one.kinds)])
        for index, one in enumerate(pieces)
        for slot in range(round(one.seconds / BATCH_S))
    ]
    curve = steps([(BATCH_S, watts[kind]) for _, kind in batches], then=constant(watts[LIGHT]))
    lab = Lab([Board(power=curve, counter_ms=TICK_MS)], t0_ns=0)
    read_ns = [round(i * 0.1e9) for i in range(-1, round(len(batches) * BATCH_S * 10) + 2)]
    line = Timeline(Device("gpu0", "a board", lab.uuid(0), "nvml-counter", tick_s=TICK_MS / 1000))
    for t_ns in read_ns:
        line.add(Reading("gpu0", t_ns, lab.counter_mj(0, t_ns) * 1000))
    edges_ns = np.arange(len(batches) + 1) * round(BATCH_S * 1e9)
    joules = np.diff(line.energy_uj_at(edges_ns)) / 1e6
    piece, heavy = np.asarray([index for index, _ in batches]), np.asarray([kind == HEAVY for _, kind in batches])
    seconds = np.full(len(batches), BATCH_S)
    found = fidelity.judge(pieces, piece, heavy, joules, seconds, joules * 0.05)
    assert found["steady_w"] == {kind: pytest.approx(value, rel=0.02) for kind, value in watts.items()}
    groups = {row["group"]: row for row in found["groups"]}
    assert groups["2 s"]["error"] < 0.06
    assert groups["2 s"]["inner_error"] < 0.03
    assert groups["batch by batch"]["error"] > 0.3  # faster than any sample: nobody can tell
    assert groups["batch by batch"]["total_error"] == pytest.approx(0.0, abs=0.03)
    mixed = {row["window_s"]: row for row in found["regression"] if row["group"] == "mixed"}
    for kind in (HEAVY, LIGHT):
        assert abs(mixed[1.0][f"{kind}_error"]) < 0.1
    assert any("± " in line for line in fidelity.summarise(found))


def test_a_board_that_offers_nothing_is_told_part_by_part(tmp_path, capsys):
    bare = Board(counter_ms=None, samples_ms=None, power_usage=False, fields=())
    with Lab([bare]).running():
        code = command.main(["--out", str(tmp_path), "--scale", "0.02", "--parts", "latency,tick,timestamp,samples,bias"])
    parts = json.loads((tmp_path / "evidence.json").read_text())["parts"]
    assert code == 1
    assert {name: one["status"] for name, one in parts.items()} == {
        "latency": "done",
        "tick": "done",
        "timestamp": "done",
        "samples": "not possible",
        "bias": "not possible",
    }
    assert "Not Supported" in parts["samples"]["why"]
    assert all(one["verdict"] == "not offered: return code 3" for one in parts["timestamp"]["found"].values())
    assert "not offered" in (tmp_path / "README.md").read_text()
    assert "not possible" in capsys.readouterr().out


def test_without_a_driver_it_says_what_is_missing(tmp_path, capsys):
    with Lab([Board()], init_error=9).running():
        assert command.main(["--out", str(tmp_path)]) == 2
    assert "needs an NVIDIA driver" in capsys.readouterr().err
    with Lab([Board()]).running():
        assert command.main(["--out", str(tmp_path), "--gpu", "3"]) == 2
    assert "none with index 3" in capsys.readouterr().err


def test_a_part_that_fails_or_takes_too_long_keeps_what_it_found(tmp_path, monkeypatch, capsys):
    def fail(bench, found):
        found["so far"] = 1
        raise ZeroDivisionError

    def stay(bench, found):
        found["so far"] = 2
        time.sleep(20)

    monkeypatch.setattr(samples, "run", fail)
    monkeypatch.setattr(bias, "run", stay)
    monkeypatch.setattr(bias, "LIMIT_S", 0.3)
    with Lab([Board()]).running():
        command.main(["--out", str(tmp_path), "--scale", "0.02", "--parts", "timestamp,samples,bias"])
    content = json.loads((tmp_path / "evidence.json").read_text())
    told = {name: (one["status"], one["found"].get("so far")) for name, one in content["parts"].items()}
    assert told == {"timestamp": ("done", None), "samples": ("failed", 1), "bias": ("out of time", 2)}
    capsys.readouterr()


def test_no_time_left_is_said(tmp_path, capsys):
    with Lab([Board()]).running():
        assert command.main(["--out", str(tmp_path), "--limit", "1", "--parts", "timestamp"]) == 1
    assert "of the whole are left" in capsys.readouterr().out


def test_older_parts_are_kept_and_another_gpus_are_not(tmp_path):
    first = Evidence(tmp_path / "a", {"gpu": "H"})
    first.keep("tick", {"found": {"tick_ms": float("nan")}})
    second = Evidence(tmp_path / "b", {"gpu": "H"}, keep=tmp_path / "a")
    second.keep("bias", {"found": {}})
    assert Evidence(tmp_path / "b", {"gpu": "H"}).parts == {"tick": {"found": {"tick_ms": None}}, "bias": {"found": {}}}
    with pytest.raises(ValueError, match="evidence of H, not of A"):
        Evidence(tmp_path / "a", {"gpu": "A"})
    with pytest.raises(ValueError, match="no older evidence"):
        Evidence(tmp_path / "c", {"gpu": "H"}, keep=tmp_path / "nowhere")


def test_the_alarm_rings_through_what_catches_errors():
    def deaf():
        while True:
            try:
                time.sleep(5)
            except Exception:  # noqa: BLE001 - what a framework may do
                continue

    with pytest.raises(OutOfTime), limited(0.1):
        deaf()


def answers(stamp_and_value):
    """A call each millisecond that takes 100 µs, and what its field's stamp (µs) and value are."""
    return [(t, t + 100, Field(0, *stamp_and_value(t)[:1], 5, stamp_and_value(t)[1])) for t in range(10**6, 2 * 10**6, 1000)]


@pytest.mark.parametrize(
    ("stamp_and_value", "verdict"),
    [
        (lambda t: (t + 40, t // 100_000), "the call"),
        (lambda t: (t // 100_000 * 100_000, t // 100_000), "the sensor's refresh"),
        (lambda t: (0, t // 100_000), "nothing: it is 0"),
        (lambda t: (t // 7_000 * 7_000 - 50_000, t // 100_000), "neither clearly"),
    ],
)
def test_what_a_stamp_marks_is_told_from_its_steps(stamp_and_value, verdict):
    assert timestamp.judge(answers(stamp_and_value))["verdict"] == verdict


def test_a_counter_that_under_reads_when_polled_fast_is_found_out():
    segments = [
        {"state": "busy", "pause_s": pause, "counter_w": 300.0 * gain, "samples_w": 310.0}
        for pause, gain in ((0.0005, 0.25), (0.01, 0.9), (0.1, 0.99), (1.0, 1.0))
    ]
    found = {"rates": bias.rates(segments)}
    assert [round(row["against_slowest"], 2) for row in found["rates"]] == [0.25, 0.9, 0.99, 1.0]
    assert bias.summarise(found)[0] == "**Polling biases the counter at 0.5 ms (-75.0%), 10 ms (-10.0%).**"
    without = bias.rates([segment | {"samples_w": None} for segment in segments])
    assert [round(row["against_slowest"], 2) for row in without] == [0.25, 0.9, 0.99, 1.0]


def test_the_mean_power_between_two_times_needs_samples_on_both_sides():
    line = [(t, 1000 * (100 if t < 500_000 else 300)) for t in range(0, 1_000_001, 10_000)]
    assert bias.mean_watts(line, 0, 1_000_000) == pytest.approx(201, abs=1)
    assert bias.mean_watts(line[:30], 0, 1_000_000) is None


def test_the_response_of_the_samples_to_the_load():
    edges = [(i * 1_000_000, LIGHT if i % 2 == 0 else HEAVY) for i in range(6)] + [(6_000_000, "end")]
    # What the board draws shows 100 ms late.
    late = [(t, 300_000 if (t - 100_000) // 1_000_000 % 2 else 80_000) for t in range(100_000, 6_000_000, 20_000)]
    found = samples.response(edges, late)
    assert (found["heavy_w"], found["light_w"]) == (300.0, 80.0)
    assert found["rise_ms"] == pytest.approx(100, abs=20)
    assert found["fall_ms"] == pytest.approx(100, abs=20)


def test_the_kinds_power_comes_out_of_sums_alone():
    """Batches that were all given their window's mean: each alone is wrong, and the regression is right."""
    chance = np.random.default_rng(0)
    heavy = chance.random(4000) < np.repeat(chance.random(40), 100)
    seconds = np.full(4000, 0.01)
    windows = np.where(heavy, 3.0, 0.8).reshape(40, 100)
    joules = np.repeat(windows.mean(axis=1), 100)
    found = regress(heavy, joules, seconds, 1.0)
    assert found["heavy_w"] == pytest.approx(300, rel=0.02)
    assert found["light_w"] == pytest.approx(80, rel=0.05)
    assert regress(np.ones(100, bool), joules[:100], seconds[:100], 0.1) is None


def test_a_plan_is_kept_by_the_clock():
    pieces = [fidelity.Piece("a", (LIGHT,), 0.1), fidelity.Piece("b", (HEAVY, LIGHT), 0.05)]
    begin = time.monotonic_ns() + 20_000_000
    ends, kinds = [], []
    for index, kind, until_ns in fidelity.due(pieces, begin):
        time.sleep(max(0, until_ns - time.monotonic_ns()) / 1e9)
        ends.append((until_ns - begin) / 1e9)
        kinds.append((index, kind))
    assert kinds[0] == (0, LIGHT)
    assert ends[-1] <= 0.15 + 1e-9
    assert all(b - a >= BATCH_S - 1e-9 for a, b in pairwise(ends))
    assert {kind for index, kind in kinds if index == 0} == {LIGHT}


def test_synchronises_are_counted_whatever_they_are_called():
    without = {"cudaStreamSynchronize": 3, "cudaEventSynchronize": 4, "cudaLaunchKernel": 9}
    calls = without | {"cudaStreamSynchronize": 5, "cuCtxSynchronize": 1}
    assert {name: n for name, n in sync.added(without, calls).items() if n} == {
        "cudaStreamSynchronize": 2,
        "cuCtxSynchronize": 1,
    }
    runs = {"none": without, "WattCallback": calls, "added": {"WattCallback": sync.added(without, calls)}}
    assert sync.summarise({"loss logged": runs, "on_gpu": True})[0] == "**Synchronises were added: [3] by run.**"
    runs["added"] = {"WattCallback": sync.added(without, without)}
    assert sync.summarise({"loss logged": runs, "on_gpu": True})[0] == "**No synchronise was added.**"
    del without["cudaEventSynchronize"]
    assert any("does not show" in line for line in sync.summarise({"loss logged": runs, "on_gpu": True}))


def test_what_cannot_be_told_is_said_and_not_raised():
    about = {"gpu": "H", "driver": "1", "power_limit_w": 700, "cpus": 2, "machine": "x", "kernel": "6", "python": "3"}
    about |= {"versions": {}, "commit": None, "load": {HEAVY: "a", LIGHT: "b"}}
    one = {"title": "T", "status": "out of time", "why": "w", "seconds": 1.0, "command": "c", "when": "now"}
    half = {name: one | {"found": {"half": 1}} for name in NAMES}
    text = summary({"about": about, "parts": half})
    assert text.count("**Out of time**: w") == len(NAMES)


def test_a_name_makes_a_folder():
    assert command.file_name("NVIDIA H100 80GB HBM3") == "NVIDIA_H100_80GB_HBM3"
