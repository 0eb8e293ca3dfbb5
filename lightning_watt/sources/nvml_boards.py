"""The door to pynvml: starts NVML, says what to do about its errors, and finds the boards that a choice or a mask means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from lightning_watt.errors import ArgumentError, SourceUnavailable
from lightning_watt.sources.masks import GPU, order_note, visible_gpus
from lightning_watt.sources.nvidia.binding import Binding

NAME = "nvml"
INSTALL = "pip install nvidia-ml-py"
REINSTALL = "Reinstall the NVIDIA driver, or check `nvidia-smi`."
HIDDEN = "Check `nvidia-smi -L`: a container or the permissions of /dev/nvidia* may hide a board from NVML."
REMEDIES = {
    "LibraryNotFound": "Install the NVIDIA driver; start a container with GPU access (driver capability `utility`).",
    "DriverNotLoaded": "Load the NVIDIA kernel module (`modprobe nvidia`) and check `nvidia-smi`.",
    "NoPermission": "Give this user read access to /dev/nvidia*, or start the container with GPU access.",
    "LibRmVersionMismatch": "The driver was updated under a running kernel module: restart the machine.",
    "GpuIsLost": "The board fell off the bus: see the kernel log for Xid errors and restart the machine.",
    "NotSupported": "This board or its virtualisation does not offer it.",
    "FunctionNotFound": "This driver is too old for it: update the NVIDIA driver.",
}


def remedy_for(error: Exception) -> str:
    """What to do about an NVML error."""
    return REMEDIES.get(type(error).__name__.removeprefix("NVMLError_"), REINSTALL)


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def uuids_of(gpus: str | Sequence[GPU]) -> list[str]:
    """The whole UUIDs of the boards that a choice means; none if NVML does not know."""
    try:
        nvml = start(gpus)
    except SourceUnavailable:
        return []
    try:
        chosen, _ = choose(nvml, gpus, required=False)
    except (ArgumentError, nvml.NVMLError):
        return []
    finally:
        stop(nvml)
    return [board.uuid for board, _ in chosen]


@dataclass(frozen=True)
class ListedBoard:
    """A board that NVML lists."""

    index: int
    uuid: str
    name: str
    handle: Any


class _NoBoardError(Exception):
    """A name that means no board, or one that cannot be had."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


def start(gpus: str | Sequence[GPU]) -> ModuleType:
    """Start NVML.

    Raises:
        SourceUnavailable: pynvml or the driver is missing.
    """
    try:
        nvml = Binding(import_module("pynvml"))
    except ImportError as error:
        why = f"pynvml cannot be imported ({error}).{unmeasured(gpus)}"
        raise SourceUnavailable(NAME, why, INSTALL) from error
    if not hasattr(nvml, "NVMLError"):
        why = f"The pynvml that Python finds ({nvml.__file__}) is none of NVIDIA's.{unmeasured(gpus)}"
        raise SourceUnavailable(NAME, why, f"Remove it, or rename your own module of that name. {INSTALL}")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        why = f"NVML does not start: {error}.{unmeasured(gpus)}"
        raise SourceUnavailable(NAME, why, remedy_for(error)) from error
    return nvml


def stop(nvml: ModuleType) -> None:
    """Shut NVML down."""
    with suppress(nvml.NVMLError):  # gone already, which is what was wanted
        nvml.nvmlShutdown()


def unmeasured(gpus: str | Sequence[GPU]) -> str:
    """What that means for boards that were asked for one by one."""
    return "" if isinstance(gpus, str) else f" The energy of these boards is missing: {', '.join(map(str, gpus))}."


def choose(
    nvml: ModuleType, gpus: str | Sequence[GPU], *, required: bool
) -> tuple[list[tuple[ListedBoard, str]], list[SourceUnavailable]]:
    """The wanted boards, each once and with a note; and of every other wanted one why it cannot be had."""
    listed, lost = inventory_of(nvml)
    unsure = ""
    if gpus == "all":
        wanted: list[GPU] = sorted([*(board.index for board in listed), *lost])
    elif gpus == "visible":
        # Read now, as CUDA reads it at its first use: what is set after CUDA has begun changes nothing there.
        mask = os.environ.get("CUDA_VISIBLE_DEVICES")
        wanted = visible_gpus(mask, len(listed) + len(lost))
        unsure = order_note(mask, os.environ.get("CUDA_DEVICE_ORDER"), [board.name for board in listed])
    elif isinstance(gpus, str):
        raise ArgumentError(f'gpus="{gpus}" is none of "all", "visible", or a list of indices and UUIDs.')
    else:
        wanted = list(gpus) if listed or lost else []  # without any board no name is wrong
    there = [f"{board.index}: {board.uuid} ({board.name})" for board in listed]
    there += [f"{index}: unreadable ({error})" for index, error in lost.items()]
    chosen: dict[int, tuple[ListedBoard, str]] = {}
    left_out: dict[GPU, SourceUnavailable] = {}
    for gpu in wanted:
        try:
            board, note = _resolve(nvml, gpu, listed, lost)
        except _NoBoardError as error:
            if gpus == "visible" and isinstance(gpu, str) and not lost:
                break  # the mask is not our argument: like CUDA, end at the first entry that names no board
            why = f"{error.why} Boards here: {', '.join(there) or 'none'}."
            if required and not isinstance(gpus, str):
                raise ArgumentError(f"gpus: {why}") from error
            left_out[gpu] = SourceUnavailable(NAME, f"The energy of a board is missing: {why}", error.remedy, str(gpu))
            continue
        if gpus == "visible" and board.index in chosen and not str(gpu).startswith("MIG-"):
            return [], []  # one board by two names: CUDA shows none
        chosen.setdefault(board.index, (board, " ".join(part for part in (note, unsure) if part)))
    return list(chosen.values()), list(left_out.values())


def inventory_of(nvml: ModuleType) -> tuple[list[ListedBoard], dict[int, Exception]]:
    """The boards, and by its index what the driver says of each that it counts and does not hand out: a lost one."""
    listed: list[ListedBoard] = []
    lost: dict[int, Exception] = {}
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError as error:
            lost[index] = error
        else:
            listed.append(ListedBoard(index, uuid, name, handle))
    return listed, lost


def _resolve(
    nvml: ModuleType, gpu: GPU, listed: Sequence[ListedBoard], lost: dict[int, Exception]
) -> tuple[ListedBoard, str]:
    """The board that `gpu` names, and a note if the name means a part of it."""
    if isinstance(gpu, int):
        if gpu in lost:
            raise _NoBoardError(f"there is no board {gpu} that answers ({lost[gpu]}).", remedy_for(lost[gpu]))
        for board in listed:
            if board.index == gpu:
                return board, ""
        raise _NoBoardError(f"there is no board {gpu}.", HIDDEN)
    if not gpu.startswith("MIG-"):
        prefix = gpu if gpu.startswith("GPU-") else f"GPU-{gpu}"
        matches = [board for board in listed if board.uuid.startswith(prefix)]
        if len(matches) == 1:
            return matches[0], ""
        if matches:
            raise _NoBoardError(f"{len(matches)} boards with a UUID that begins with {gpu}.", "Give the whole UUID.")
    first_error: Exception | None = None
    # CUDA gives the UUID of a slice, as that of a board, without its prefix.
    for name in [gpu] if gpu.startswith(("GPU-", "MIG-")) else [f"GPU-{gpu}", f"MIG-{gpu}"]:
        try:
            uuid = _board_of(nvml, name)
        except nvml.NVMLError as error:
            # Drivers before 470 named a slice by its board: MIG-GPU-<UUID>/<GPU instance>/<compute instance>.
            uuid = name.removeprefix("MIG-").split("/")[0]
            if not isinstance(error, (nvml.NVMLError_NotFound, nvml.NVMLError_InvalidArgument)):
                first_error = first_error or error
        for board in listed:
            if board.uuid == uuid:
                return board, f"The counter of the whole board; {name} is one slice of it and shares it."
    if first_error is not None:
        raise _NoBoardError(f"{gpu} cannot be read ({first_error}).", remedy_for(first_error))
    what = "MIG slice" if gpu.startswith("MIG-") else "board with a UUID that begins with"
    # One that does not answer does not tell its UUID: it may be the one.
    remedies = dict.fromkeys([HIDDEN, *(remedy_for(error) for error in lost.values())])
    raise _NoBoardError(f"no {what} {gpu}.", " ".join(remedies))


def _board_of(nvml: ModuleType, name: str) -> str:
    """The UUID of the board that a whole UUID names, or a slice's parent board."""
    handle = nvml.nvmlDeviceGetHandleByUUID(name)
    if name.startswith("MIG-"):
        handle = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
    return _text(nvml.nvmlDeviceGetUUID(handle))
