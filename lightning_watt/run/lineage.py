"""What a checkpoint or a run directory has cost, with everything that it started from."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_watt.errors import RecordError
from lightning_watt.record.files import RECORD_NAME, check_regular
from lightning_watt.record.read import read_record
from lightning_watt.record.schema import Inherited
from lightning_watt.run.ledger import Ledger
from lightning_watt.units import joules, kwh

STATE_KEY = "WattCallback"
"""Lightning's key for the callback's state in a checkpoint."""


@dataclass(frozen=True)
class CarriedEnergy:
    """The energy that a checkpoint or a run carries.

    Attributes:
        path: what was asked about.
        own_j: joules of the run itself, up to the checkpoint.
        inherited: the runs that it started from, each with its own inheritance included.
    """

    path: Path
    own_j: float
    inherited: tuple[Inherited, ...] = ()

    @property
    def total_j(self) -> float:
        """Joules, own and inherited."""
        return self.own_j + sum(run.total_j for run in self.inherited)

    @property
    def total_kwh(self) -> float:
        """Kilowatt-hours, own and inherited."""
        return kwh(self.total_j)

    def __float__(self) -> float:
        return self.total_j


def energy_of(path: str | os.PathLike[str]) -> CarriedEnergy:
    """The energy that a checkpoint or run directory carries, with all it inherited.

    Args:
        path: a Lightning checkpoint of a run with `WattCallback`, a run's log directory, or its `watt.json`. Checkpoints
            are loaded with `weights_only=True`, so nothing in them is executed.

    Returns:
        Own, inherited and total joules.

    Raises:
        RecordError: there is no such file, it holds no energy, or it cannot be read safely.

    Example:
        >>> energy_of("runs/pretrain/checkpoints/last.ckpt").total_j  # doctest: +SKIP
        48211.3
    """
    file = Path(path)
    if file.is_dir() or file.name == RECORD_NAME or file.suffix == ".json":
        record = read_record(file)
        if record.energy.total_j is None:
            raise RecordError(f"{file}: the run measured nothing ({' '.join(record.missing) or 'no source'}).")
        return CarriedEnergy(file, record.energy.total_j, tuple(record.inherited))
    state = _callback_state(file)
    ledger = Ledger()
    try:
        own_uj = ledger.absorb([*state["session"]["ledger"], *state["session"].get("ahead", [])])
        inherited = tuple(Inherited(path=str(run["path"]), total_j=float(run["total_j"])) for run in state["inherited"])
        if not all(0 <= run.total_j < math.inf for run in inherited):
            raise ValueError("an inherited energy that is none")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordError(f"{file}: the energy in this checkpoint is broken: {error}.") from error
    return CarriedEnergy(file, joules(own_uj), inherited)


def _callback_state(file: Path) -> dict[str, Any]:
    try:
        check_regular(file)
        # Mapped, so that only the callback's few numbers are read and not gigabytes of weights.
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RecordError:
        raise
    except FileNotFoundError as error:
        raise RecordError(f"{file}: there is no such file.") from error
    except Exception as error:  # torch raises many kinds for what is not a checkpoint, or not a safe one
        raise RecordError(
            f"{file}: it cannot be read without running code in it, which is not done here ({type(error).__name__}). "
            "Ask the run's directory instead, or save without pickled objects in the hyperparameters."
        ) from error
    callbacks = checkpoint.get("callbacks") if isinstance(checkpoint, dict) else None
    for key, state in callbacks.items() if isinstance(callbacks, dict) else ():
        if str(key).startswith(STATE_KEY) and isinstance(state, dict):
            return state
    raise RecordError(f"{file}: this checkpoint carries no energy: its run had no WattCallback.")
