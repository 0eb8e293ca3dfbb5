"""A sweeper for `study=advice`. Hydra takes sweepers from the package `hydra_plugins` only."""

from itertools import groupby

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from typing_extensions import override

from experiments.projection.order import counterbalanced


class CounterbalancedSweeper(BasicSweeper):
    """Hydra's basic sweeper, with another order: the values of the first list are rounds, each with an order of its own."""

    @staticmethod
    @override
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        ordered = []
        for number, (_, group) in enumerate(groupby(jobs, key=lambda job: job[0])):
            candidates = list(group)
            ordered += [candidates[place] for place in counterbalanced(len(candidates), number)]
        return list(BasicSweeper.split_overrides_to_chunks(ordered, max_batch_size))
