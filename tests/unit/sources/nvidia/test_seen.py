"""The file of what boards were seen to do."""

from __future__ import annotations

import re

from lightning_watt.sources.base import HOST_CLOCK
from lightning_watt.sources.nvidia import seen
from lightning_watt.sources.nvidia.seen import COLUMNS, FILE, SeenBoard, seen_boards, tick_seen_s, with_rows
from lightning_watt.sources.nvml import NvmlSource
from lightning_watt.testing import Board
from tests.unit.lab_boards import machine


def test_every_row_can_be_read_and_names_its_source():
    assert seen_boards()
    for one in seen_boards():
        assert one.name
        assert one.source
        assert one.samples_clock in (None, "realtime", "boottime", "monotonic")
        numbers = [getattr(one, column) for column in COLUMNS if column not in seen.TEXTS]
        assert all(number is None or number > 0 for number in numbers)
    assert with_rows(FILE.read_text(), []) == FILE.read_text()


def test_a_row_is_added_once_and_the_head_stays(tmp_path):
    old = SeenBoard(name='A "B", C', driver="570", counter_tick_ms=99.96, samples_clock="boottime", source="me")
    new = SeenBoard(name='A "B", C', driver="570", counter_tick_ms=20.0, counter_at_100=0.2444444, source="me")
    other = SeenBoard(name='A "B", C', driver="580", source="me")
    file = tmp_path / "boards.csv"
    file.write_text(with_rows(with_rows(FILE.read_text(), [old]), [new, other]))
    assert [one for one in seen_boards(file) if one.name == old.name] == [
        SeenBoard(name=old.name, driver="570", counter_tick_ms=20.0, counter_at_100=0.2444, source="me"),
        other,
    ]
    assert re.findall(r"^#.*", file.read_text(), re.M) == re.findall(r"^#.*", FILE.read_text(), re.M)


def test_a_board_that_was_seen_has_its_period_before_it_is_watched(monkeypatch):
    rows = [SeenBoard(name="NVIDIA Lab Board", counter_tick_ms=ms, source="me") for ms in (20.0, 50.0, None)]
    monkeypatch.setattr(seen, "seen_boards", lambda: tuple(rows))
    assert (tick_seen_s("NVIDIA Lab Board"), tick_seen_s("another")) == (0.05, 0.0)
    with machine(Board(name="NVIDIA Lab Board"), Board(name="another"), Board(name="NVIDIA Lab Board", counter_ms=None)):
        source = NvmlSource("all", at_ticks=False)
        assert [device.tick_s for device in source.open(HOST_CLOCK)] == [0.05, 0.0, 0.1]
        source.close()
