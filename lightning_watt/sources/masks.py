"""Which boards a script means: by an argument of its own, or by `CUDA_VISIBLE_DEVICES` as CUDA reads it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

GPU = int | str
"""A board by its NVML index, or by its UUID (`GPU-...`, whole or shortened; `MIG-...` for a slice)."""


def is_gpu(value: object) -> bool:
    """Whether this can name a board: a whole number that is not negative, or a string that is no index and no device."""
    if isinstance(value, str):
        return bool(value.strip()) and _meant(value) is None
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def gpus_meant(value: object) -> list[int] | None:
    """The NVML indices that somebody means who wrote them in another form; None if that cannot be told.

    Example:
        >>> gpus_meant(0), gpus_meant("0,2"), gpus_meant(["cuda:1"]), gpus_meant("cpu"), gpus_meant("visibel")
        ([0], [0, 2], [1], [], None)
    """
    entries = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    meant = [_meant(entry) for entry in entries]
    return None if None in meant or not meant else [index for one in meant for index in one or ()]


def _meant(entry: object) -> list[int] | None:
    if isinstance(entry, int):
        return [int(entry)] if is_gpu(entry) else None
    if not isinstance(entry, str) and not hasattr(entry, "type"):  # a torch.device has one
        return None
    said = str(entry).strip().lower()
    if said == "cpu":
        return []
    found = _INDEX.fullmatch(said)
    return [int(found[1] or 0)] if found is not None else None


_INDEX = re.compile(r"(?:cuda(?::|$)|gpu:?(?=\d))?(\d{1,3})?(?<=.)")


def visible_gpus(mask: str | None, count: int) -> list[GPU]:
    """What a `CUDA_VISIBLE_DEVICES` leaves, as NVML indices and UUIDs.

    As CUDA reads it: the first entry says whether they are indices, boards' UUIDs or MIG slices' UUIDs; the list ends at the
    first entry that is none of that kind or out of range; an entry that comes twice hides everything; and an index is the
    number that an entry begins with. Source: CUDA C++ Programming Guide, section "CUDA Environment Variables", and for what
    it leaves open `torch.cuda._parse_visible_devices`.

    Args:
        mask: the variable's value; None if it is not set.
        count: the number of boards.

    Example:
        >>> visible_gpus("1,0", 2), visible_gpus("", 2), visible_gpus(None, 2), visible_gpus("GPU-ab,7", 2)
        ([1, 0], [], [0, 1], ['GPU-ab'])
    """
    if mask is None:
        return list(range(count))
    kind = next((prefix for prefix in ("GPU-", "MIG-") if mask.startswith(prefix)), "")
    visible: list[GPU] = []
    for entry in mask.split(","):
        gpu: GPU
        if kind:
            gpu = entry
            if not entry.startswith(kind):
                break
        else:
            digits = re.match(r"[+]?(\d+)", entry.strip())
            if digits is None:
                break
            gpu = int(digits[1])
        if gpu in visible:
            return []
        if isinstance(gpu, int) and gpu >= count:
            break
        visible.append(gpu)
    return visible


def order_note(mask: str | None, order: str | None, names: Sequence[str]) -> str:
    """What is not known about a mask of indices, without CUDA: which boards it means if CUDA numbers them by speed.

    NVML's order is `CUDA_DEVICE_ORDER=PCI_BUS_ID`. CUDA's own, `FASTEST_FIRST`, is the same for boards of one kind; among
    several kinds CUDA alone knows it.

    Args:
        mask: `CUDA_VISIBLE_DEVICES`.
        order: `CUDA_DEVICE_ORDER`.
        names: the names of all boards.
    """
    chosen = visible_gpus(mask, len(names))
    if order == "PCI_BUS_ID" or len(set(names)) < 2 or len(chosen) in (0, len(names)) or isinstance(chosen[0], str):
        return ""
    return (
        "Chosen by its index in CUDA_VISIBLE_DEVICES, which is NVML's here; the boards of this machine differ, so CUDA may "
        "number them otherwise. Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name boards by their UUIDs."
    )
