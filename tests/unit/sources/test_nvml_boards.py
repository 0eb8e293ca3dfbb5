"""Which boards a choice means, those that cannot be had, and those of which NVML tells nothing."""

from __future__ import annotations

import sys
import threading
import time

import pynvml
import pytest

from lightning_watt import EnergyMeter
from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.meter import timeline
from lightning_watt.sources import discover as discovering
from lightning_watt.sources.base import HOST_CLOCK, Failure, Reading
from lightning_watt.sources.discover import board_uuids
from lightning_watt.sources.nvml import RETRY_NS, NvmlSource
from lightning_watt.sources.nvml_boards import remedy_for
from lightning_watt.sources.rapl import RaplSource
from lightning_watt.testing import Board, Fault, constant, steps
from lightning_watt.testing.doubles import S
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
