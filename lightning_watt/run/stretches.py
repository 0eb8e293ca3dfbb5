"""What was used from one log row to the next, by stage, and the joules a batch that follow from it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning_watt.run.forecast import Rate
from lightning_watt.run.ledger import Entry
from lightning_watt.units import joules


class Stretch(NamedTuple):
    """What lies between two rows of one stage: joules, batches and samples; all zero where no batch ended."""

    joules: float
    batches: int
    samples: int


@dataclass
class Stretches:
    """The stages' last rows.

    By the stage's own account, so that a validation in between does not cut a stretch of training in two.

    Attributes:
        rates: joules a batch by stage, for the forecast.
        whole_of_own: by stage, all nodes' energy over this one's, when the others told theirs last; None where this is the
            only one.
    """

    rates: dict[str, Rate] = field(default_factory=dict)
    whole_of_own: dict[str, float] | None = None

    def __post_init__(self) -> None:
        self._from: dict[str, tuple[int, int, int]] = {}

    def expect_others(self, many: bool) -> None:
        """Note whether other nodes measure too; until they have told theirs, a batch's energy is not known."""
        self.whole_of_own = (self.whole_of_own or {}) if many else None

    def cut(self, stage: str, entry: Entry) -> Stretch:
        """Give what a stage has used since its last row.

        Args:
            stage: the stage.
            entry: its account so far.
        """
        standing = (entry.total_uj, entry.batches, entry.samples)
        uj, batches, samples = (now - was for now, was in zip(standing, self._from.get(stage, (0, 0, 0)), strict=True))
        if batches > 0:
            self._from[stage] = standing
        if self.whole_of_own is not None:
            if stage not in self.whole_of_own:  # a batch's energy is all nodes'; before they have told theirs, not known
                return Stretch(0.0, 0, 0)
            uj = round(uj * self.whole_of_own[stage])
        if batches > 0:
            self.rates.setdefault(stage, Rate()).add(joules(uj), batches)
        return Stretch(joules(uj), batches, samples)

    def known_rates(self, by_stage: Mapping[str, Entry]) -> dict[str, Rate]:
        """Joules a batch by stage; before the first validation, those of the sanity check stand for its."""
        check = by_stage.get("sanity_check")
        if "validate" in self.rates or check is None or not check.batches:
            return self.rates
        stand_in = Rate()
        stand_in.add(joules(check.total_uj), check.batches)
        return {**self.rates, "validate": stand_in}
