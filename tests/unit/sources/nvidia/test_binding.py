"""An old pynvml, or another package of its name, over NVIDIA's."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pynvml
import pytest

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources import nvml, nvml_boards
from lightning_watt.sources.base import HOST_CLOCK, Reading
from lightning_watt.sources.discover import board_uuids
from lightning_watt.sources.nvidia import samples
from lightning_watt.sources.nvidia.binding import Binding, NeverRaisedError
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board
from tests.unit.lab_boards import machine

OURS = sorted(
    {
        name
        for module in (nvml, nvml_boards, samples)
        for name in re.findall(r"nvml\.((?:nvml|NVML)\w+)", Path(module.__file__ or "").read_text())
        if name != "NVMLError"
    }
)
"""All that we use of it."""
NEEDED = {"nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetName"}


@pytest.mark.parametrize("name", OURS)
def test_whatever_a_pynvml_lacks_the_board_is_measured_by_the_rest(monkeypatch, name):
    with machine(Board()) as lab:
        monkeypatch.delattr(pynvml, name)
        source = NvmlSource("all", at_ticks=False)
        if name in NEEDED:
            with pytest.raises(SourceUnavailable, match="Function Not Found"):
                source.open(HOST_CLOCK)
        else:
            [device] = source.open(HOST_CLOCK)
            assert device.uuid == lab.uuid(0)
            assert device.note == ""
            assert all(isinstance(reading, Reading) for reading in source.read())
        source.close()
        monkeypatch.undo()
    assert len(OURS) > 15


def test_one_that_lacks_all_that_came_late_is_enough(monkeypatch):
    with machine(Board()):
        for name in set(OURS) - NEEDED - {"nvmlShutdown", "nvmlDeviceGetTotalEnergyConsumption"}:
            monkeypatch.delattr(pynvml, name)
        [device] = NvmlSource("all", at_ticks=False).open(HOST_CLOCK)
        assert device.source == "nvml-counter"
        monkeypatch.undo()


def test_a_module_of_that_name_that_is_none_is_told(monkeypatch):
    own = ModuleType("pynvml")
    own.__file__ = "/home/me/pynvml.py"
    monkeypatch.setitem(sys.modules, "pynvml", own)
    with pytest.raises(SourceUnavailable, match=r"/home/me/pynvml\.py.*none of NVIDIA's.*pip install nvidia-ml-py"):
        NvmlSource("all").open(HOST_CLOCK)
    assert board_uuids("all") == []


def test_what_is_no_function_of_nvml_is_not_made_up():
    nvml_here = Binding(pynvml)
    assert nvml_here.NVMLError is pynvml.NVMLError
    assert nvml_here.NVMLErrorOfTomorrow is NeverRaisedError
    with pytest.raises(AttributeError):
        _ = nvml_here.weather
