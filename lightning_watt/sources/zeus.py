"""AMD, Apple and Jetson devices through Zeus's device classes: an optional extra (`pip install lightning_watt[zeus]`).

Zeus's `get_gpus()` and `get_soc()` know those vendors' libraries; this adapter reads their counters as they are and leaves
Zeus's monitor, its windows and its synchronising alone. It is imported only when a `ZeusSource` is opened.

Source: zeus/device/gpu/common.py and zeus/device/soc of ml-energy/zeus 0.16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning_watt.errors import SourceUnavailable
from lightning_watt.sources.base import Clock, Device, Failure, Reading
from lightning_watt.units import UJ_PER_MJ

INSTALL = "pip install lightning_watt[zeus]"
SOC_FIELDS = {
    "gpu0": ("gpu_mj", "gpu_energy_mj"),
    "cpu0": ("cpu_total_mj", "cpu_energy_mj"),
    "dram0": ("dram_mj",),
}
"""Which fields of Apple's and Jetson's measurement are whole devices; their parts are in them already."""


class ZeusSource:
    """Reads what Zeus can read.

    Args:
        kind: `"gpu"` for discrete GPUs (AMD), `"soc"` for Apple silicon and Jetson.

    Raises:
        ValueError: `kind` is neither.
    """

    name = "zeus"
    due_s = 1.0

    def __init__(self, kind: str = "gpu") -> None:
        if kind not in {"gpu", "soc"}:
            raise ValueError(f'kind="{kind}" is neither "gpu" nor "soc".')
        self.kind = kind
        self._clock: Clock | None = None
        self._counters: dict[str, Callable[[], int]] = {}

    def open(self, clock: Clock) -> Sequence[Device]:
        """Find the devices.

        Raises:
            SourceUnavailable: Zeus is not installed, or finds nothing with an energy counter.
        """
        self._clock = clock
        try:
            from zeus import device as zeus_device
        except ImportError as error:
            raise SourceUnavailable(self.name, f"Zeus cannot be imported ({error}).", INSTALL) from error
        try:
            names = self._open_gpus(zeus_device) if self.kind == "gpu" else self._open_soc(zeus_device)
        except Exception as error:  # Zeus raises many kinds of its own, and its vendors' libraries others
            raise SourceUnavailable(
                self.name, f"Zeus finds no {self.kind}: {error}.", "See Zeus's documentation."
            ) from error
        if not names:
            raise SourceUnavailable(self.name, f"Zeus finds no {self.kind} with an energy counter.", "Nothing to do here.")
        return [
            Device(
                label=label,
                name=name,
                uuid=f"zeus-{label}",
                source=self.name,
                always_draws=self.kind == "gpu",
            )
            for label, name in names.items()
        ]

    def read(self) -> list[Reading | Failure]:
        """Read every counter once."""
        assert self._clock is not None, "open the source first"
        found: list[Reading | Failure] = []
        for label, counter in self._counters.items():
            try:
                found.append(Reading(label, self._clock.now_ns(), counter() * UJ_PER_MJ))
            except Exception as error:  # noqa: BLE001 - whatever a vendor's library raises, the training goes on
                found.append(Failure(label, f"Zeus says: {error}.", "See Zeus's documentation."))
        return found

    def close(self) -> None:
        """Forget the devices."""
        self._counters = {}

    def _open_gpus(self, zeus_device: Any) -> dict[str, str]:
        gpus = zeus_device.get_gpus()
        usable = [i for i in range(len(gpus)) if gpus.supports_get_total_energy_consumption(i)]
        self._counters = {f"gpu{i}": lambda i=i: int(gpus.get_total_energy_consumption(i)) for i in usable}  # type: ignore[misc]
        return {f"gpu{i}": str(gpus.get_name(i)) for i in usable}

    def _open_soc(self, zeus_device: Any) -> dict[str, str]:
        soc = zeus_device.get_soc()
        first = soc.get_total_energy_consumption()
        for label, fields in SOC_FIELDS.items():
            field = next((f for f in fields if getattr(first, f, None) is not None), None)
            if field:
                self._counters[label] = lambda field=field: int(getattr(soc.get_total_energy_consumption(), field))  # type: ignore[misc]
        return {label: type(soc).__name__ for label in self._counters}
