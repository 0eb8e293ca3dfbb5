"""The arguments of `WattCallback` and `EnergyMeter`: each with its default, its check, and how it is read from text.

A new argument is added in two places: a field here, and the signature and docstring of `WattCallback.__init__`.
Nothing here imports torch, because `EnergyMeter` works without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal, get_args

from lightning_watt.arguments import OFF, ON, check_choice, check_count, check_number, check_switch, check_word
from lightning_watt.carbon import carbon_intensity_of, check_carbon_intensity, read_carbon_intensity
from lightning_watt.sam.score import Scoring, check_sam_arguments
from lightning_watt.sources.base import CPU_SHARE, EnergySource, is_source
from lightning_watt.sources.masks import GPU, gpus_meant, is_gpu
from lightning_watt.units import EnergyUnit

GPU_WORDS = ("auto", "visible", "all")
"""`gpus` in one word: what the Trainer uses (for a meter: as `"visible"`), what the mask leaves, every board."""
SOURCE_WORDS = ("auto", CPU_SHARE)
Summary = Literal["auto", "table", "line", "none"]
"""What is printed at the end of a run: what fits the run and the program, the whole table, one line, nothing."""


def _name(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ValueError(f'{name} is {value!r}: give the name of a logged metric, or "auto".')


def _sam(name: str, value: Any) -> None:
    sam: dict[str, Any] = {"alpha": 5.0, "beta": 5.0, "unit": "kWh"} | {name.removeprefix("sam_"): value}
    check_sam_arguments(**sam)


def _read_gpus(text: str) -> str | list[GPU]:
    if text in GPU_WORDS:
        return text
    return [int(part) if part.isdigit() else part for part in text.split("+") if part]


def _read_switch(text: str) -> bool:
    if text.lower() in ON:
        return True
    if text.lower() in OFF:
        return False
    raise ValueError(f"{text!r} is neither 1 nor 0")


def _argument(default: Any, check: Callable[[str, Any], None], read: Callable[[str], Any] | None) -> Any:
    """A field: its default, what refuses a wrong value, and how it is read from text (None: it cannot be)."""
    return field(default=default, metadata={"check": check, "read": read})


def _gpus(name: str, value: Any) -> None:
    try:
        check_choice(name, value, GPU_WORDS, "NVML indices and UUIDs", is_gpu, empty=True)
    except ValueError as error:
        meant = gpus_meant(value)
        if meant is None:
            raise
        instead = f"Write {name}={meant!r}" + ("." if meant else ", which is the CPU alone.")
        torch = " Torch may number boards otherwise than NVML: `lightning-watt doctor` lists them." if meant else ""
        raise ValueError(f"{error} {instead}{torch if 'cuda' in str(value) else ''}") from None


_sources = partial(check_choice, words=SOURCE_WORDS, what="`EnergySource` objects", fits=is_source)
_interval = partial(check_number, what="the seconds between two reads of the counters", above=0.0)
_rows = partial(check_count, what="the training batches between two log rows")
_budget = partial(check_number, what="the kWh that the training may use", above=0.0, optional=True)
_pue = partial(check_number, what="the building's power over its computers' power", at_least=1.0)
_price = partial(check_number, what="what a kWh costs", at_least=0.0, optional=True)
_summary = partial(check_word, words=get_args(Summary))
_idle = partial(check_number, what="the seconds to measure idle power before the run", at_least=0.0)


@dataclass(frozen=True)
class Settings:
    """What is measured and how; `WattCallback` explains each.

    Raises:
        ValueError: a value that means nothing, in a sentence.

    Example:
        >>> Settings(interval=0)
        Traceback (most recent call last):
        ValueError: interval is 0: give the seconds between two reads of the counters, above 0.
    """

    accuracy: str = _argument("auto", _name, str)
    gpus: str | Sequence[GPU] = _argument("auto", _gpus, _read_gpus)
    sources: str | Sequence[EnergySource] = _argument("auto", _sources, str)
    alpha: float = _argument(5.0, _sam, float)
    beta: float = _argument(5.0, _sam, float)
    sam_unit: EnergyUnit = _argument("kWh", _sam, str)  # noqa: RUF009 - it makes a field
    interval: float = _argument(1.0, _interval, float)
    log_every_n_steps: int | None = _argument(None, _rows, int)
    budget_kwh: float | None = _argument(None, _budget, float)
    pue: float = _argument(1.0, _pue, float)
    carbon_intensity: float | str | None = _argument(None, check_carbon_intensity, read_carbon_intensity)
    record: bool = _argument(True, check_switch, _read_switch)
    batches: bool = _argument(False, check_switch, _read_switch)
    electricity_price: float | None = _argument(None, _price, float)
    idle_s: float = _argument(0.0, _idle, float)
    summary: Summary = _argument("auto", _summary, str)  # noqa: RUF009 - it makes a field

    def __post_init__(self) -> None:
        check(**vars(self))

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """The settings among some names and values; other names are left out."""
        return cls(**{name: arguments[name] for name in NAMES if name in arguments})

    @property
    def scoring(self) -> Scoring:
        """How energy becomes a score, CO2e and a cost."""
        return Scoring(
            alpha=self.alpha,
            beta=self.beta,
            unit=self.sam_unit,
            pue=self.pue,
            carbon=None if self.carbon_intensity is None else carbon_intensity_of(self.carbon_intensity),
            electricity_price=self.electricity_price,
        )

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the defaults, by name.

        Example:
            >>> Settings(gpus="all", interval=1).changed()
            {'gpus': 'all'}
        """
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) != one.default}


NAMES = tuple(one.name for one in fields(Settings))
"""The names of all settings, in the order of the signature."""
READERS: dict[str, Callable[[str], Any]] = {
    one.name: one.metadata["read"] for one in fields(Settings) if one.metadata["read"] is not None
}
"""The settings that can be given as text, and how each is read; a reader raises ValueError for a wrong text."""
_CHECKS: dict[str, Callable[[str, Any], None]] = {one.name: one.metadata["check"] for one in fields(Settings)}


def check(**values: Any) -> None:
    """Refuse the first of some settings that means nothing.

    Raises:
        ValueError: says which, and what to give instead.

    Example:
        >>> check(gpus="visibel")
        Traceback (most recent call last):
        ValueError: gpus is 'visibel': give 'auto' or 'visible' or 'all', or a list of NVML indices and UUIDs.
    """
    for name, value in values.items():
        _CHECKS[name](name, value)


class Elsewhere:
    """An attribute that people look for where it is not: they are told where what was measured is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type) -> Any:
        raise AttributeError(
            f"{kind.__name__!r} object has no attribute {self._name!r}. What was measured is in its `result`, such as "
            "`result.energy.total_kwh`."
        )


LOOKED_FOR = ("energy", "energy_kwh", "energy_j", "total_kwh", "total_j", "kwh", "joules", "power", "emissions", "results")
"""Names that people try on a callback."""


class Argument:
    """An argument as an attribute of what holds `settings`. One that is set later is checked too.

    There is one for each argument, because a `__getattr__` for all would slow down every look at their owner.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, owner: Any, kind: type) -> Any:
        return self if owner is None else getattr(owner.settings, self._name)

    def __set__(self, owner: Any, value: Any) -> None:
        owner.settings = replace(owner.settings, **{self._name: value})
