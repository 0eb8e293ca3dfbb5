"""Which boards a mask or an argument means: as CUDA reads it, as torch reads it, and over the lab's driver."""

from __future__ import annotations

import pynvml
import pytest

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.masks import order_note, visible_gpus
from lightning_watt.testing import Board, Fault
from tests.unit.lab_boards import labels, machine, opened

MASKS = [
    # what CUDA_VISIBLE_DEVICES holds, and what it leaves of three boards
    (None, [0, 1, 2]),
    ("", []),
    (" ", []),
    ("-1", []),
    ("none", []),
    ("1", [1]),
    ("2,0", [2, 0]),
    (" 2 , 0 ", [2, 0]),
    ("0,-1,1", [0]),
    ("0,7,1", [0]),
    ("0,x,1", [0]),
    ("0,,1", [0]),
    (",0", []),
    ("0,1,", [0, 1]),
    ("0;1", [0]),
    ("1gpu2,2ampere", [1, 2]),
    ("+1,002", [1, 2]),
    ("1,1", []),
    ("0,1,0", []),
    ("0,01", [0, 1]),
    ("GPU-ab", ["GPU-ab"]),
    ("GPU-ab,GPU-cd", ["GPU-ab", "GPU-cd"]),
    ("GPU-ab,GPU-ab", []),
    ("GPU-ab,1", ["GPU-ab"]),
    ("1,GPU-ab", [1]),
    ("GPU-ab, GPU-cd", ["GPU-ab"]),
    ("MIG-ab,MIG-cd", ["MIG-ab", "MIG-cd"]),
    ("MIG-ab,GPU-cd", ["MIG-ab"]),
    ("MIG-ab,MIG-ab", []),
    ("gpu-ab", []),
]


@pytest.mark.parametrize(("mask", "visible"), MASKS)
def test_a_mask_is_read_as_cuda_does(mask, visible):
    assert visible_gpus(mask, 3) == visible


@pytest.mark.parametrize(("mask", "visible"), MASKS)
def test_a_mask_is_read_as_torch_does(mask, visible, monkeypatch):
    """An independent reading of the same; torch leaves it to its caller to end at an index that is out of range."""
    parse = pytest.importorskip("torch").cuda._parse_visible_devices
    if mask is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    theirs = parse()
    end = next((i for i, gpu in enumerate(theirs) if isinstance(gpu, int) and gpu >= 3), len(theirs))
    assert visible == theirs[:end]


BOARDS = ("GPU-aaaa1111", "GPU-bbbb2222", "GPU-bbbb3333")  # the second one with two MIG slices


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (None, [0, 1, 2]),
        ("1", [1]),
        ("2,0", [2, 0]),
        ("0,1,2", [0, 1, 2]),
        ("2,2", []),
        ("0,7", [0]),
        ("", []),
        ("-1", []),
        ("1,-1,0", [1]),
        ("GPU-aaaa1111", [0]),
        ("GPU-bbbb3333,GPU-aaaa1111", [2, 0]),
        ("GPU-aa", [0]),
        ("GPU-aa,GPU-bbbb2", [0, 1]),
        ("GPU-aa,GPU-aaaa1111", []),  # one board by two names
        ("GPU-aa,GPU-nowhere,GPU-bbbb2", [0]),  # CUDA ends its list there, and so do we
        ("GPU-aa,GPU-bbbb,GPU-bbbb2", [0]),  # two boards begin so
        ("GPU-nowhere", []),
        ("GPU-bbbb2222,0", [1]),
        ("0,GPU-bbbb2222", [0]),
        ("MIG0", [1]),
        ("MIG1,MIG0", [1]),  # the same board, once
        ("MIG0,MIG0", []),
        ("MIG-GPU-bbbb2222/1/0", [1]),  # as drivers before 470 named a slice
        ("MIG-nowhere", []),
    ],
)
def test_the_right_board_whatever_the_mask_holds(monkeypatch, mask, expected):
    """The mask is set after pynvml and this package were imported: it is read when the boards are opened."""
    with machine(*(Board(uuid=uuid, mig=2 if i == 1 else None) for i, uuid in enumerate(BOARDS))) as lab:
        if mask is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            for i, name in enumerate(lab.mig_uuids(1)):
                mask = mask.replace(f"MIG{i}", name)
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        for order in (None, "FASTEST_FIRST", "PCI_BUS_ID"):  # boards of one kind: the order is the same
            if order is not None:
                monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
            if expected:
                _, devices = opened("visible")
                assert [device.uuid for device in devices] == [BOARDS[i] for i in expected]
                assert not [device.note for device in devices if "CUDA_DEVICE_ORDER" in device.note]
                assert all(("slice of it" in device.note) == ("MIG" in (mask or "")) for device in devices)
            else:
                with pytest.raises(SourceUnavailable, match="hides every board"):
                    opened("visible")
        assert labels("all") == ["gpu0", "gpu1", "gpu2"]


@pytest.mark.parametrize(
    ("mask", "order", "unsure"),
    [
        ("1", None, True),
        ("1,0", "FASTEST_FIRST", True),
        ("1", "PCI_BUS_ID", False),
        ("2,1,0", None, False),  # all of them, whatever their numbers
        (None, None, False),
        ("GPU-aaaa1111", None, False),
        ("", None, False),
    ],
)
def test_among_boards_of_several_kinds_an_index_is_cudas_own(monkeypatch, mask, order, unsure):
    """CUDA numbers them by speed unless it is told otherwise, and only CUDA knows how fast it takes them to be."""
    names = ["Old", "New", "New"]
    assert bool(order_note(mask, order, names)) == unsure
    with machine(*(Board(uuid=uuid, name=name) for uuid, name in zip(BOARDS, names, strict=True))):
        for variable, value in (("CUDA_VISIBLE_DEVICES", mask), ("CUDA_DEVICE_ORDER", order)):
            if value is not None:
                monkeypatch.setenv(variable, value)
        if mask != "":
            _, devices = opened("visible")
            assert {"CUDA_DEVICE_ORDER=PCI_BUS_ID" in device.note for device in devices} == {unsure}


@pytest.mark.parametrize(("mask", "expected"), [(None, ["gpu0", "gpu2"]), ("2,1,0", ["gpu2", "gpu0"]), ("2", ["gpu2"])])
def test_a_lost_board_does_not_shift_the_others(monkeypatch, mask, expected):
    boards = [Board(uuid=uuid, faults=[Fault("lost")] if i == 1 else []) for i, uuid in enumerate(BOARDS)]
    with machine(*boards):
        if mask is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
        assert labels("visible") == expected


def test_boards_are_chosen_by_number_and_by_name(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # what is asked for by name is not masked
    with machine(Board(uuid="GPU-aaaa"), Board(uuid="GPU-bbbb", mig=1)) as lab:
        assert labels([1]) == ["gpu1"]
        assert labels([1, 0, 1]) == ["gpu1", "gpu0"]
        assert labels(["GPU-bb"]) == labels(["bbbb"]) == labels(lab.mig_uuids(1)) == ["gpu1"]
        assert labels(["GPU-aaaa", 0]) == ["gpu0"]


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ([7], r"no board 7\. Boards here: 0: GPU-aaaa \(Left\), 1: GPU-aabb \(Right\)"),
        ([-1], "no board -1"),
        (["GPU-cc"], "no board with a UUID that begins with GPU-cc"),
        (["GPU-aa"], "2 boards with a UUID"),
        (["MIG-x"], "no MIG slice MIG-x"),
        ("every", 'gpus="every" is none of'),
    ],
)
def test_a_board_that_is_not_there_is_the_callers_mistake(gpus, words):
    with machine(Board(uuid="GPU-aaaa", name="Left"), Board(uuid="GPU-aabb", name="Right")):
        with pytest.raises(ValueError, match=words):
            opened(gpus)
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            pynvml.nvmlDeviceGetCount()  # and NVML was let go of


def test_a_lost_board_among_others_is_not_among_all():
    with machine(Board(), Board(faults=[Fault("lost")])):
        assert labels("all") == ["gpu0"]
        with pytest.raises(ValueError, match="no board 1"):
            opened([1])
