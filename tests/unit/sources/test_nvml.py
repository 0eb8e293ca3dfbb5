"""NVIDIA boards, through the real pynvml over the lab's driver."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.meter import timeline
from lightning_watt.sources import discover as discovering
from lightning_watt.sources.base import HOST_CLOCK, Device, Failure, Reading
from lightning_watt.sources.discover import board_uuids
from lightning_watt.sources.nvidia.gains import gain_of, typical_gain_of
from lightning_watt.sources.nvidia.looks import SHARP_NS
from lightning_watt.sources.nvml import RETRY_NS, NvmlSource
from lightning_watt.sources.nvml_boards import remedy_for
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.sources.ticks import TickReader
from lightning_watt.testing import UNKNOWN, Board, Fault, Lab, ReplayClock, constant, steps
from lightning_watt.testing.doubles import MS, S
from tests.unit.lab_boards import AGE_S, machine, opened

ENERGY = "nvmlDeviceGetTotalEnergyConsumption"
SAMPLES = "nvmlDeviceGetSamples"
USAGE = "nvmlDeviceGetPowerUsage"


class LabClock:
    """The host's clock, which can be set forward: the lab's counters do not follow, this package's waiting does."""

    def __init__(self) -> None:
        self.ahead_ns = 0

    def now_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    unix_ns = staticmethod(time.time_ns)
    sleep = staticmethod(time.sleep)


# ---- what a board offers ----


def test_a_device_says_what_it_is():
    with machine(Board(name="NVIDIA H100", power_limits_w=(100, 700))) as lab:
        _, [device] = opened()
    gain, gain_source = gain_of("NVIDIA H100", is_counter=True)
    assert device == Device(
        "gpu0",
        "NVIDIA H100",
        lab.uuid(0),
        "nvml-counter",
        "measured",
        tick_s=0.0,
        gain=gain,
        max_power_w=1400,
        gain_source=gain_source,
        samples_clock="realtime",
        typical_gain=typical_gain_of("NVIDIA H100"),
    )


def test_notes_say_with_whom_the_counter_is_shared():
    boards = Board(mig=2), Board(pids=[os.getpid(), 4242]), Board(pids=[os.getpid()]), Board(mig=0)
    with machine(*boards) as lab:
        _, [mig, busy, own, off] = opened()
        _, [sliced] = opened([lab.mig_uuids(0)[0]])
    assert "MIG is on" in mig.note
    assert "4242" in busy.note
    assert str(os.getpid()) not in busy.note
    assert own.note == off.note == ""
    assert f"{lab.mig_uuids(0)[0]} is one slice" in sliced.note
    assert sliced.uuid == lab.uuid(0)


def test_the_runs_other_ranks_are_no_strangers_on_a_board():
    with machine(Board(pids=[4242, 77]), Board(pids=[4242])):
        source = NvmlSource(processes=[4242])
        shared, own = source.open(HOST_CLOCK)
        source.close()
    assert "processes 77 were on it" in shared.note
    assert own.note == ""


def test_what_the_runs_processes_started_are_no_strangers_either():
    """Loader workers that use CUDA, say; also those of another rank."""
    with subprocess.Popen(["sleep", "60"]) as worker, machine(Board(pids=[worker.pid, 2**22 + 5])):
        source = NvmlSource()
        [own] = source.open(HOST_CLOCK)
        source.close()
        other = NvmlSource(processes=[os.getppid()])
        [as_seen_from_there] = other.open(HOST_CLOCK)
        other.close()
        worker.kill()
    assert f"processes {2**22 + 5} were on it" in own.note
    assert as_seen_from_there.note == own.note


def test_without_power_limits_only_the_impossible_is_refused():
    fault = Fault("error", function="nvmlDeviceGetPowerManagementLimitConstraints", code=3)
    with machine(Board(faults=[fault])):
        assert opened()[1][0].max_power_w == 10_000


@pytest.mark.parametrize(
    ("board", "source", "due_s"),
    [
        (Board(), "nvml-counter", 1.0),
        (Board(samples_ms=None), "nvml-counter", 1.0),
        (Board(counter_ms=None), "nvml-power", 1.0),
        (Board(counter_ms=None, samples_ms=None), "nvml-power", 0.1),
        (Board(faults=[Fault("error", function=ENERGY, code=4)], samples_ms=None), "nvml-power", 0.1),  # no permission
        (Board(faults=[Fault("error", function=ENERGY, code=UNKNOWN)]), "nvml-counter", 1.0),  # a passing fault
        (Board(counter_ms=None, faults=[Fault("error", function=SAMPLES, code=6)]), "nvml-power", 0.1),  # none to be had
    ],
)
def test_what_a_board_can_do_is_found_by_calling(board, source, due_s):
    with machine(board):
        found, [device] = opened()
        assert (device.source, found.due_s) == (source, due_s)


def test_an_old_driver_without_the_function_is_a_board_without_a_counter():
    with machine(Board(), missing=[ENERGY]):
        assert opened()[1][0].source == "nvml-power"


# ---- reading ----


def test_the_counter_is_read_in_microjoules_at_its_time():
    with machine(Board(counter_ms=10, power=constant(200))) as lab:
        source, _ = opened()
        before_ns = time.monotonic_ns()
        [reading] = source.read()
        after_ns = time.monotonic_ns()
    assert isinstance(reading, Reading)
    assert before_ns <= reading.t_ns <= after_ns
    assert lab.counter_mj(0, before_ns) * 1000 <= reading.energy_uj <= lab.counter_mj(0, after_ns) * 1000


def test_at_ticks_the_value_stands_for_its_time():
    with machine(Board(counter_ms=20, power=constant(200))) as lab:
        source = NvmlSource("all")
        source.open(HOST_CLOCK)
        readings = [reading for _ in range(3) for reading in source.read()]
        for reading in readings:
            assert isinstance(reading, Reading)
            true_uj = lab.boards[0].counter_start_mj * 1000 + lab.true_joules(0, lab.t0_ns, reading.t_ns) * 1e6
            assert abs(reading.energy_uj - true_uj) < 200 * 1e6 * 0.025  # never off by more than a tick, and a late look
        times = [reading.t_ns for reading in readings if isinstance(reading, Reading)]
        assert np.diff(times).min() > -SHARP_NS  # one tick may be told of twice, by two reads
        source.close()


def test_samples_come_once_on_the_hosts_clock():
    with machine(Board(samples_ms=20, power=constant(150))) as lab:
        source, _ = opened()
        [first] = source.read()
        time.sleep(0.1)
        [second] = source.read()
    assert isinstance(first, Reading)
    assert isinstance(second, Reading)
    assert len(first.power) >= 45  # a second of them
    assert second.power
    assert {watts for _, watts in (*first.power, *second.power)} == {150}
    times = np.asarray([t_ns for t_ns, _ in (*first.power, *second.power)])
    np.testing.assert_allclose(np.diff(times), 20 * MS, atol=2 * MS)  # none twice, none left out
    assert np.abs((times - lab.t0_ns + 10 * MS) % (20 * MS) - 10 * MS).max() < 2 * MS  # when the lab took them


def test_samples_of_garbage_are_left_out():
    faults = [
        Fault("sample_raw", at_s=AGE_S - 0.5, until_s=AGE_S - 0.4, value=2**31),
        Fault("sample_time", at_s=AGE_S - 0.3),
    ]
    with machine(Board(samples_ms=20, power=constant(150), faults=faults)):
        source, _ = opened()
        [reading] = source.read()
    assert isinstance(reading, Reading)
    assert 20 <= len(reading.power) <= 36  # of the 35 before the stamps were lost, less 5
    assert {watts for _, watts in reading.power} == {150}


@pytest.mark.parametrize("samples_ms", [10, None])
def test_a_board_without_a_counter_is_integrated_from_when_it_was_opened(samples_ms):
    """From its samples, or from what it draws at each read."""
    with machine(Board(counter_ms=None, samples_ms=samples_ms, power=constant(300))):
        before_ns = time.monotonic_ns()
        source, _ = opened()
        after_ns = time.monotonic_ns()
        time.sleep(0.1)
        readings = source.read()
        time.sleep(0.1)
        readings += source.read()
    assert len(readings) == 3
    first, *later = readings
    assert isinstance(first, Reading)
    assert first.energy_uj == 0
    assert before_ns - (S + 20 * MS if samples_ms else 0) <= first.t_ns <= after_ns
    for reading in later:
        assert isinstance(reading, Reading)
        assert reading.energy_uj == pytest.approx(300 * (reading.t_ns - first.t_ns) / 1000, rel=1e-6)
    assert isinstance(later[-1], Reading)
    assert later[-1].t_ns - after_ns > 0.15 * S


# ---- what goes wrong ----


def test_no_pynvml_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(SourceUnavailable, match="pip install nvidia-ml-py"):
        opened()


@pytest.mark.parametrize(
    ("code", "words"), [(9, "modprobe"), (18, "restart the machine"), (4, "/dev/nvidia"), (999, "Reinstall")]
)
def test_a_driver_that_does_not_start_says_why_and_the_remedy(code, words):
    with machine(Board(), init_error=code), pytest.raises(SourceUnavailable, match=words) as caught:
        opened()
    assert "NVML does not start" in caught.value.why


def test_a_machine_without_boards_says_so():
    with machine(), pytest.raises(SourceUnavailable, match="shows no board"):
        opened("all")


# ---- boards of which NVML tells nothing ----


SILENT = {"counter_ms": None, "samples_ms": None, "power_usage": False}


def denied(*functions: str) -> list[Fault]:
    return [Fault("error", function=function, code=4) for function in functions]


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
def test_a_board_that_tells_no_power_is_left_out_and_the_others_are_measured(required, by_name):
    """A vGPU and a Jetson: NVML starts and lists them, and answers nothing that is about energy."""
    with machine(Board(**SILENT, name="Orin (nvgpu)"), Board()) as lab:
        names = [lab.uuid(0), lab.uuid(1)] if by_name else "all"
        source = NvmlSource(names, at_ticks=False, required=required)
        [device] = source.open(HOST_CLOCK)
        [reason] = source.left_out
        assert [type(reading) for reading in source.read()] == [Reading]
        assert device.label == "gpu1"
        assert reason.device == lab.uuid(0)
    assert reason.why == "gpu0 (Orin (nvgpu)) tells neither its energy nor its power: Not Supported."
    assert "on its host" in reason.remedy
    assert "ZeusSource" in reason.remedy


def test_where_no_board_tells_its_power_nvml_is_not_there():
    with machine(Board(**SILENT)):
        with pytest.raises(SourceUnavailable, match=r"gpu0 .* tells neither its energy nor its power"):
            opened()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()


def test_a_board_that_this_user_may_not_ask_says_so():
    with machine(Board(faults=denied(ENERGY, SAMPLES, USAGE))), pytest.raises(SourceUnavailable) as caught:
        opened()
    assert "Insufficient Permissions" in caught.value.why
    assert "/dev/nvidia*" in caught.value.remedy


def test_a_counter_that_this_user_may_not_read_is_in_the_note():
    with machine(Board(faults=denied(ENERGY))):
        _, [device] = opened()
    assert device.source == "nvml-power"
    assert "may not be read (Insufficient Permissions)" in device.note
    assert "/dev/nvidia*" in device.note


@pytest.mark.parametrize(
    ("fault", "words"),
    [(denied("*")[0], "Insufficient Permissions"), (Fault("lost"), "GPU is lost")],
    ids=["denied", "lost"],
)
def test_a_mask_that_names_a_board_that_does_not_answer_does_not_hide_why(monkeypatch, fault, words):
    uuids = ("GPU-aaaa1111", "GPU-bbbb2222")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(uuids))
    with machine(Board(uuid=uuids[0], faults=[fault]), Board(uuid=uuids[1])):
        source, [device] = opened("visible")
    assert device.uuid == uuids[1]
    [reason] = source.left_out
    assert uuids[0] in reason.why
    assert words in reason.why
    assert remedy_for(pynvml.NVMLError(15 if words == "GPU is lost" else 4)) in reason.remedy


def test_an_estimate_takes_the_place_of_boards_that_tell_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(discovering, "RaplSource", lambda **options: RaplSource(tmp_path, **options))
    with machine(Board(**SILENT, virtualization=2)), EnergyMeter(gpus="all") as meter:
        deadline = time.process_time() + 0.05
        while time.process_time() < deadline:
            pass
    assert [device.source for device in meter.devices] == ["estimate"]
    assert meter.joules > 0
    assert meter.missing[0].why.startswith("gpu0 (")
    assert list(meter.complaints) == []


@pytest.mark.parametrize("samples_ms", [20, None])
def test_a_board_asleep_at_no_power_is_no_fault(samples_ms, monkeypatch):
    """A laptop's, between two uses: its counter rests because it draws nothing."""
    monkeypatch.setattr(timeline, "STANDSTILL_S", 0.3)
    power = steps([(AGE_S + 0.3, 60), (0.9, 0), (1000.0, 60)])
    board = Board(power=power, counter_ms=20, samples_ms=samples_ms, samples_window_ms=0, power_window_ms=0)
    with machine(board) as lab, EnergyMeter(gpus="all", interval=0.1) as meter:
        time.sleep(1.6)
        meter.stop()
        truth_j = lab.true_joules(0, meter.total.start_mark.t_ns, meter.total.end_mark.t_ns)
    assert list(meter.complaints) == []
    assert meter.joules == pytest.approx(truth_j, abs=max(1.5, meter.total.boundary_j))


def test_a_counter_that_stands_still_while_the_board_draws_is_one(monkeypatch):
    monkeypatch.setattr(timeline, "STANDSTILL_S", 0.3)
    with machine(Board(power=constant(60), faults=[Fault("stuck", at_s=AGE_S)])), EnergyMeter("all", interval=0.1) as meter:
        time.sleep(1.0)
    assert "stands still" in "".join(meter.complaints)


# ---- slow drivers ----


@pytest.mark.parametrize(("call_ms", "counter_ms"), [(2, 20), (2.6, 100), (10, 100)])
def test_a_slow_driver_is_read_at_its_ticks_too(call_ms, counter_ms):
    clock = ReplayClock()
    board = Board(power=constant(200), counter_ms=counter_ms, call_ms=call_ms)
    lab = Lab([board], age_s=AGE_S, clock=clock)
    with lab.running():
        source = NvmlSource("all")
        source.open(clock)
        readings = source.read() + source.read()
        ticks = source._boards[0]._ticks
        assert isinstance(ticks, TickReader)
        assert ticks.period_s == pytest.approx(counter_ms / 1000, rel=0.25)
        assert ticks.call_ns == pytest.approx(call_ms * MS, rel=0.5)
        for reading in readings:
            assert isinstance(reading, Reading)
            true_uj = board.counter_start_mj * 1000 + lab.true_joules(0, lab.t0_ns, reading.t_ns) * 1e6
            assert abs(reading.energy_uj - true_uj) / 200e6 <= reading.blur_s + 0.0035 or reading.t_ns == readings[0].t_ns
        assert readings[-1].blur_s < 0.04
        source.close()


# ---- boards that cannot be had ----


def without_prefix(uuid: str) -> str:
    """As `torch.cuda.get_device_properties(i).uuid` prints it, a board's or a slice's."""
    return uuid.removeprefix("GPU-").removeprefix("MIG-")


@pytest.mark.parametrize("required", [True, False])
def test_a_board_and_a_slice_are_found_by_the_uuid_that_cuda_tells(required):
    with machine(Board(), Board(mig=2)) as lab:
        names = [without_prefix(lab.mig_uuids(1)[1]), without_prefix(lab.uuid(0))]
        source = NvmlSource(names, at_ticks=False, required=required)
        sliced, whole = source.open(HOST_CLOCK)
    assert (sliced.uuid, whole.uuid) == (lab.uuid(1), lab.uuid(0))
    assert f"{lab.mig_uuids(1)[1]} is one slice" in sliced.note
    assert whole.note == ""
    assert source.left_out == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (None, "no board with a UUID that begins with"),  # a container that shows it to CUDA alone
        (Fault("lost"), "GPU is lost"),
        (Fault("error", code=4), "Insufficient Permissions"),
        (Fault("error", function="nvmlDeviceGetUUID"), "Unknown Error"),
    ],
    ids=["unknown", "lost", "no permission", "nameless"],
)
def test_a_board_that_cannot_be_had_is_left_out_where_nobody_named_it(fault, words):
    with machine(Board(), *([Board(faults=[fault])] if fault else [])) as lab:
        missing = without_prefix(lab.uuid(1)) if fault else "11111111-2222-3333-4444-555555555555"
        names = [missing, without_prefix(lab.uuid(0))]
        source = NvmlSource(names, at_ticks=False, required=False)
        [device] = source.open(HOST_CLOCK)
        [reason] = source.left_out
        assert [type(reading) for reading in source.read()] == [Reading]
        with pytest.raises(ArgumentError, match=rf"^gpus: .*{missing}.*Boards here: 0: {lab.uuid(0)}"):
            NvmlSource(names).open(HOST_CLOCK)
    assert device.uuid == lab.uuid(0)
    assert missing in reason.why
    assert words in reason.why
    assert f"Boards here: 0: {lab.uuid(0)} ({Board().name})" in reason.why
    assert reason.remedy


def test_a_slice_whose_board_is_lost_is_left_out():
    with machine(Board(), Board(mig=1, faults=[Fault("lost")])) as lab:
        source = NvmlSource([lab.uuid(0), lab.mig_uuids(1)[0]], required=False)
        assert [device.label for device in source.open(HOST_CLOCK)] == ["gpu0"]
        source.close()
    assert f"{lab.mig_uuids(1)[0]} cannot be read (GPU is lost)" in source.left_out[0].why


def test_without_any_of_its_boards_it_is_not_there_and_names_them_all():
    with machine(Board(faults=[Fault("lost")]), Board()) as lab:
        source = NvmlSource([lab.uuid(0), "GPU-nowhere"], required=False)
        with pytest.raises(SourceUnavailable) as caught:
            source.open(HOST_CLOCK)
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()
    assert source.left_out == []  # said once
    assert lab.uuid(0) in caught.value.why
    assert "GPU-nowhere" in caught.value.why
    assert "Xid" in caught.value.remedy
    assert "nvidia-smi -L" in caught.value.remedy


def test_a_lost_board_of_all_is_told():
    with machine(Board(), Board(faults=[Fault("lost")])):
        source, [device] = opened("all")
    assert device.label == "gpu0"
    assert "no board 1 that answers (GPU is lost)" in source.left_out[0].why


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("gpus", [[0], ["GPU-1234"], ["MIG-1234", 7]])
def test_without_a_driver_or_a_board_no_name_is_wrong_and_each_is_told(gpus, required):
    for machine_without in (machine(Board(), init_error=9), machine()):
        with machine_without, pytest.raises(SourceUnavailable) as caught:
            NvmlSource(gpus, required=required).open(HOST_CLOCK)
        assert f"The energy of these boards is missing: {', '.join(map(str, gpus))}." in caught.value.why


def test_every_remedy_names_an_error_that_pynvml_has():
    for code in range(1, 30):
        error = pynvml.NVMLError(code)
        assert remedy_for(error).endswith((".", "`."))
    from lightning_watt.sources.nvml_boards import REMEDIES

    assert all(hasattr(pynvml, f"NVMLError_{name}") for name in REMEDIES)


def test_a_lost_board_fails_alone_and_is_asked_again_later():
    clock = LabClock()
    with machine(Board(), Board(faults=[Fault("lost", at_s=AGE_S + 0.5)])) as lab:
        source, devices = opened(clock=clock)
        assert len(devices) == 2
        assert all(isinstance(reading, Reading) for reading in source.read())
        time.sleep(0.55)
        good, failed = source.read()
        assert isinstance(good, Reading)
        assert isinstance(failed, Failure)
        assert failed.label == "gpu1"
        assert "Xid" in failed.remedy
        calls = lab.calls(ENERGY)
        assert [reading.label for reading in source.read()] == ["gpu0"]
        assert lab.calls(ENERGY) == calls + 1  # a lost board's calls can be slow
        clock.ahead_ns += RETRY_NS
        assert [type(reading) for reading in source.read()] == [Reading, Failure]


def test_a_passing_error_costs_one_reading():
    with machine(Board(faults=[Fault("error", at_s=AGE_S + 0.3, until_s=AGE_S + 0.5, function=ENERGY)])):
        source, _ = opened()
        kinds = [type(source.read()[0])]
        for wait_s in (0.35, 0.2):
            time.sleep(wait_s)
            kinds.append(type(source.read()[0]))
    assert kinds == [Reading, Failure, Reading]


def test_samples_that_fail_do_not_take_the_counter_with_them():
    with machine(Board(faults=[Fault("error", at_s=AGE_S + 0.2, function=SAMPLES)])):
        source, _ = opened()
        [before] = source.read()
        time.sleep(0.25)
        [after] = source.read()
    assert isinstance(before, Reading)
    assert isinstance(after, Reading)
    assert (bool(before.power), bool(after.power)) == (True, False)


def test_samples_that_dry_up_are_said_where_they_are_all_there_is():
    clock = LabClock()
    with machine(Board(counter_ms=None, faults=[Fault("error", at_s=AGE_S + 0.2, function=SAMPLES, code=6)])):
        source, _ = opened(clock=clock)
        assert isinstance(source.read()[0], Reading)
        time.sleep(0.25)
        assert source.read() == []
        clock.ahead_ns += 5 * S
        [failed] = source.read()
    assert isinstance(failed, Failure)
    assert "no new power samples" in failed.why


def test_a_power_board_that_fails_says_so():
    with machine(Board(counter_ms=None, samples_ms=None, faults=[Fault("error", at_s=0, function=USAGE)])):
        source, _ = opened()
        [failed] = source.read()
    assert isinstance(failed, Failure)


def test_opening_where_the_counter_fails_for_a_moment_still_measures():
    with machine(Board(counter_ms=20, faults=[Fault("error", at_s=0, until_s=AGE_S + 0.2, function=ENERGY)])):
        source = NvmlSource("all")
        source.open(HOST_CLOCK)
        assert isinstance(source.read()[0], Failure)
        time.sleep(0.25)
        assert isinstance(source.read()[0], Reading)


def test_closing_lets_go_of_the_driver_even_twice_or_when_it_is_gone():
    with machine(Board()):
        source, _ = opened()
        source.close()
        source.close()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()
        assert source.read() == []
        assert [device.label for device in source.open(HOST_CLOCK)] == ["gpu0"]
        pynvml.nvmlShutdown()
        source.close()


# ---- which boards a choice means ----


@pytest.mark.parametrize(
    ("gpus", "mask", "expected"),
    [
        ("all", "", [0, 1, 3]),
        ("visible", None, [0, 1, 3]),
        ("visible", "3,0", [3, 0]),
        ("visible", "GPU-bbbb", [1]),
        ("visible", "", []),
        ([1, 0, 1], "", [1, 0]),
        (["GPU-bb", "dddd4444", "GPU-nowhere", 2, 7], None, [1, 3]),  # board 2 is lost
        ([], None, []),
        ("auto", None, []),  # which only a Trainer knows
    ],
)
def test_a_choice_means_the_boards_that_a_source_would_read(monkeypatch, gpus, mask, expected):
    uuids = ("GPU-aaaa1111", "GPU-bbbb2222", "GPU-cccc3333", "GPU-dddd4444")
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    with machine(*(Board(uuid=uuid, faults=[Fault("lost")] if i == 2 else []) for i, uuid in enumerate(uuids))) as lab:
        assert board_uuids(gpus) == [uuids[i] for i in expected]
        assert lab.calls(ENERGY) == lab.calls(USAGE) == lab.calls(SAMPLES) == 0
        if expected:
            source = NvmlSource(gpus, at_ticks=False, required=False)
            assert [device.uuid for device in source.open(HOST_CLOCK)] == board_uuids(gpus)
            assert all(
                isinstance(reading, Reading) for reading in source.read()
            )  # asking in between has not shut NVML down under it
            source.close()
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()


def test_a_slice_means_its_board(monkeypatch):
    with machine(Board(), Board(mig=2)) as lab:
        first, second = lab.mig_uuids(1)
        assert board_uuids([first, without_prefix(second)]) == [lab.uuid(1)]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", second)
        assert board_uuids("visible") == [lab.uuid(1)]


@pytest.mark.parametrize(
    "arguments",
    [{"init_error": 9}, {"missing": ["nvmlDeviceGetCount"]}, {"faults": [Fault("error", function="nvmlDeviceGetCount")]}],
)
@pytest.mark.parametrize("gpus", ["all", "visible", [0]])
def test_where_nvml_cannot_tell_a_choice_means_no_board(gpus, arguments):
    with machine(Board(), **arguments):
        assert board_uuids(gpus) == []


def test_without_pynvml_a_choice_means_no_board(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert board_uuids("all") == []


def test_a_driver_that_hangs_is_not_waited_for():
    with machine(Board(), faults=[Fault("hang", function="nvmlDeviceGetCount", delay_ms=500)]) as lab:
        assert board_uuids("all", limit_s=0.05) == []
        for thread in threading.enumerate():
            if thread.name == "lightning_watt asks for the boards":
                thread.join()
        assert board_uuids("all") == [lab.uuid(0)]
