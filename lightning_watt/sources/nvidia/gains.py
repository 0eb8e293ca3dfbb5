"""By how much the power sensors of NVIDIA's boards were found to be off, as far as it was published.

All figures are of the power sensor beside a meter in the board's supply lines. No energy counter's was ever published: that
a counter errs as its board's sensor does is an assumption. A figure is of the specimens that were measured, one or a few.
They were under a steady load: a sensor's line also has an offset of up to 23 W, so at low power it may be further off.

Source: Yang, Adamek, Armour, "Part-time Power Measurements: nvidia-smi's Lack of Attention", SC'24, arXiv 2312.02741: the
steady-state errors of its artefact's results, and the sums of its recordings over those of the meter.
"""

from __future__ import annotations

import re
from statistics import median
from typing import NamedTuple

YANG = "Yang et al., SC'24, arXiv 2312.02741"
COUNTER = "no counter's was ever published"


class SensorError(NamedTuple):
    """A power sensor's published errors: shown over true watts, less one, in percent; and who published them."""

    lowest_pct: float
    highest_pct: float
    source: str = YANG

    @property
    def typical(self) -> float:
        """The same in the middle of what was published."""
        return abs(1 / (1 + (self.lowest_pct + self.highest_pct) / 200) - 1)

    @property
    def gain(self) -> float:
        """By which share of what is shown the truth may be off: 1 W that is shown 10 % too low is 11 % more."""
        return max(abs(1 / (1 + pct / 100) - 1) for pct in (self.lowest_pct, self.highest_pct))


SENSOR_ERRORS = {
    "A100-PCIE-40GB": SensorError(-5.7, -5.4),
    "GeForce GTX 1080": SensorError(0.5, 1.0),
    "GeForce GTX 1080 Ti": SensorError(-0.4, -0.3),
    "GeForce GTX TITAN X": SensorError(1.8, 1.9),
    "GeForce RTX 2060 SUPER": SensorError(10.8, 10.9),
    "GeForce RTX 2080 Ti": SensorError(-6.3, -6.2),
    "GeForce RTX 3070 Ti": SensorError(-2.3, -2.2),
    "GeForce RTX 3090": SensorError(-4.9, -0.9),
    "GeForce RTX 4090": SensorError(-5.7, -4.3),
    "Quadro K620": SensorError(-41.2, -40.9),
    "RTX A5000": SensorError(-7.0, -4.9),
    "TITAN X (Pascal)": SensorError(0.6, 0.7),
    "Tesla K40m": SensorError(3.0, 3.4),
    "Tesla K80": SensorError(-9.0, -8.9),
    "Tesla M40": SensorError(-1.7, -1.4),
    "Tesla P100-PCIE-16GB": SensorError(0.3, 0.8),
}
"""By the board's name."""
ALONE = ("Quadro K620",)
"""Off by four times as much as any other: an office board of 2014 without a counter, whose table covers itself alone."""
SPECIMEN = 0.05
"""Two RTX 3090 lie 4 % apart, so a board is not taken for better than this because another one of its name was."""
OTHERS = SensorError(
    min(error.lowest_pct for name, error in SENSOR_ERRORS.items() if name not in ALONE),
    max(error.highest_pct for name, error in SENSOR_ERRORS.items() if name not in ALONE),
)
"""What the sensors of boards that nobody has measured are taken for: as bad as the published ones on either side."""

TYPICAL = median(error.typical for name, error in SENSOR_ERRORS.items() if name not in ALONE)
"""By which share the published sensors were off in the middle: half of the boards by less, half by more."""


def _key(name: str) -> str:
    """A name without the brands that NVIDIA put before it at one time and left out at another."""
    words = re.findall(r"[a-z0-9]+", name.casefold())
    return " ".join(word for word in words if word not in ("nvidia", "geforce", "tesla", "quadro"))


_BY_KEY = {_key(name): error for name, error in SENSOR_ERRORS.items()}


def typical_gain_of(name: str) -> float:
    """By which share of what it shows a board was typically off, where it or boards like it were measured.

    Example:
        >>> round(typical_gain_of("NVIDIA A100-PCIE-40GB"), 3), round(typical_gain_of("a new board"), 3)
        (0.059, 0.03)
    """
    error = _BY_KEY.get(_key(name))
    return TYPICAL if error is None else error.typical


def gain_of(name: str, *, is_counter: bool) -> tuple[float, str]:
    """A board's relative error of scale, and where that comes from, in a sentence.

    Args:
        name: as NVML names it.
        is_counter: its energy counter is read, and not its power.

    Example:
        >>> gain, why = gain_of("NVIDIA A100-PCIE-40GB", is_counter=True)
        >>> round(gain, 3), why[:49]
        (0.06, 'of its power sensor -5.7 to -5.4 % was published ')
        >>> round(gain_of("a new board", is_counter=True)[0], 3)
        0.099
    """
    error = _BY_KEY.get(_key(name))
    found = error or OTHERS
    span = f"{found.lowest_pct:+.1f} to {found.highest_pct:+.1f} %"
    if error is not None:
        why = f"of its power sensor {span} was published ({error.source})"
    else:
        why = f"of its power sensor nothing was published; {span} of other boards' sensors ({found.source})"
    return max(SPECIMEN, found.gain), f"{why}; {COUNTER}" if is_counter else why
