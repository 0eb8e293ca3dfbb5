"""What befalls the boards of a scenario."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from lightning_watt.testing.nvml_lab.build import function_names
from lightning_watt.testing.nvml_lab.curve import NS_PER_S

NS_PER_MS = 1_000_000

FaultKind = Literal[
    "lost",
    "error",
    "hang",
    "reset",
    "jump",
    "stuck",
    "raw",
    "clock_step",
    "sample_time",
    "sample_raw",
]

# NVML return codes, from nvml.h.
GPU_IS_LOST = 15
UNKNOWN = 999

# How each kind is called in the scenario file, and the argument it needs.
_KINDS: dict[str, tuple[str, str | None]] = {
    "lost": ("error", None),
    "error": ("error", None),
    "hang": ("sleep", "delay_ms"),
    "reset": ("reset", None),
    "jump": ("jump", "millijoules"),
    "stuck": ("stuck", None),
    "raw": ("raw", "value"),
    "clock_step": ("clock", "seconds"),
    "sample_time": ("sample_time", None),
    "sample_raw": ("sample_raw", "value"),
}


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong between two moments.

    Args:
        kind: what happens. Calls: "lost" (every call on the board answers GPU_IS_LOST), "error" (`function`
            answers `code`), "hang" (`function` sleeps `delay_ms`, then answers). Energy counter: "reset" (it
            restarts from 0), "jump" (`millijoules` are added, or taken away if negative, never below 0),
            "stuck" (it stands still, then shows the truth again), "raw" (it reads `value`). Samples: "sample_time"
            (time stamp 0), "sample_raw" (`value` in milliwatts). "clock_step": the wall clock, and so every
            later time stamp of this board, steps by `seconds`.
        at_s: when it begins, in seconds after the lab's time zero.
        until_s: when it ends (excluded); None is never. Without meaning for reset, jump and clock_step.
        function: NVML's C symbol, with or without its version suffix; "*" is every function.
        code: the NVML return code of "error".
        delay_ms: milliseconds that each call sleeps.
        millijoules: the jump.
        value: the counter's raw uint64, or the sample's milliwatts.
        seconds: the clock's step; may be negative.

    Example:
        >>> Fault("error", at_s=1, until_s=2, function="nvmlDeviceGetPowerUsage", code=UNKNOWN).at_s
        1
    """

    kind: FaultKind
    at_s: float = 0.0
    until_s: float | None = None
    function: str = "*"
    code: int = UNKNOWN
    delay_ms: float | None = None
    millijoules: int | None = None
    value: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Unknown fault {self.kind!r}; there are {', '.join(_KINDS)}.")
        needed = _KINDS[self.kind][1]
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"A {self.kind!r} fault needs {needed}=...")
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"The fault ends at {self.until_s} s, before it begins at {self.at_s} s.")
        symbol(self.function)

    def line(self) -> str:
        """The scenario line: `fault KIND FROM_NS TO_NS FUNCTION VALUE`."""
        values = {
            "lost": GPU_IS_LOST,
            "error": self.code,
            "hang": round((self.delay_ms or 0) * NS_PER_MS),
            "jump": self.millijoules,
            "raw": self.value,
            "sample_raw": self.value,
            "clock_step": round((self.seconds or 0) * NS_PER_S),
        }
        until_ns = -1 if self.until_s is None else round(self.until_s * NS_PER_S)
        word, value = _KINDS[self.kind][0], values.get(self.kind, 0)
        return f"fault {word} {round(self.at_s * NS_PER_S)} {until_ns} {symbol(self.function)} {value}"


@cache
def _symbols() -> dict[str, str]:
    names = {name: name for name in function_names()}
    return {name.removesuffix("_v2").removesuffix("_v3"): name for name in names} | names


def symbol(function: str) -> str:
    """The C symbol behind a name with or without version suffix; "*" stays."""
    if function == "*":
        return function
    if function not in _symbols():
        raise ValueError(f"The NVML lab has no function {function!r}; nvml.c lists what it has.")
    return _symbols()[function]
