"""Two arms side by side: which tests came out differently, whether they do so again, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.lightning_suite.runs import Arm, Result

PAIRS = (("empty", "none"), ("quiet", "empty"), ("full", "empty"), ("full", "none"))
"""What is compared, and beside what."""


@dataclass(frozen=True)
class Difference:
    """A test that came out differently.

    Attributes:
        here: its result in the arm.
        there: its result in the arm beside it.
        again: whether it did so again, alone; None if that was not tried.
    """

    here: Result
    there: Result
    again: bool | None = None

    def __str__(self) -> str:
        tried = "" if self.again is None else ("again: " if self.again else "not again: ")
        wrong = self.here if self.here.failed else self.there
        place = f" ({wrong.where})" if wrong.where else ""
        return f"  {tried}{self.here.test}\n      {self.there.outcome} -> {self.here.outcome}: {wrong.error}{place}"


def differences(here: dict[str, Result], there: dict[str, Result]) -> list[Difference]:
    """The tests whose outcomes differ, among the files that both arms have run.

    Args:
        here: an arm's results, by test.
        there: the results of the arm that it is held against.
    """
    files = {row.file for row in here.values()} & {row.file for row in there.values()}
    tests = [test for test in {**there, **here} if test.partition("::")[0] in files]
    pairs = [
        (
            here.get(test, Result(test, "died", error="it was not run in this arm")),
            there.get(test, Result(test, "died", error="it was not run in the other arm")),
        )
        for test in tests
    ]
    return [Difference(one, other) for one, other in pairs if one.outcome != other.outcome]


def confirm(found: Sequence[Difference], here: Arm, there: Arm, say: Callable[[str], None]) -> list[Difference]:
    """Run each of the tests once more, alone, in both arms."""
    confirmed = []
    for number, difference in enumerate(found, 1):
        test = difference.here.test
        one, other = here.alone(test), there.alone(test)
        say(f"{here.name}: {number} of {len(found)} again: {test}: {other.outcome} -> {one.outcome}")
        again = one.outcome != other.outcome
        confirmed.append(Difference(one if again else difference.here, other if again else difference.there, again))
    return confirmed


def report(here: Arm, there: Arm, found: Sequence[Difference]) -> str:
    """The comparison in words."""
    shared = len(here.results.by_test.keys() & there.results.by_test.keys())
    worse = [difference for difference in found if difference.here.failed and not difference.there.failed]
    better = [difference for difference in found if difference.there.failed and not difference.here.failed]
    other = [difference for difference in found if difference not in worse and difference not in better]
    lines = [f"{here.name} beside {there.name}: {len(found)} of {shared} tests differ"]
    for title, part in (("fail only in", worse), ("fail only without", better), ("differ otherwise in", other)):
        if part:
            lines.append(f" {len(part)} {title} {here.name}:")
            lines += map(str, part)
    return "\n".join(lines)
