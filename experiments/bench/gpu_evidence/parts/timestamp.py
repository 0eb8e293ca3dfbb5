"""What the time stamp of a field value marks: the call, or the refresh of the sensor."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

from experiments.bench.gpu_evidence.bench import Bench, NotPossibleError
from experiments.bench.gpu_evidence.figures import number, percent, spread, table
from experiments.bench.gpu_evidence.load import steady

TITLE = "What a field value's time stamp marks"
LIMIT_S = 12.0
SECONDS = 4.0
PAUSE_S = 0.001
FIELDS = {83: "energy (83)", 191: "energy (191)", 186: "instant power (186)"}
CLEAR = 0.95
"""Both rules have to hold for this share of the readings to be called so."""
SLACK_US = 1000


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Read the three fields every millisecond under a steady load, and compare the stamps' steps with the values'."""
    rows: list[tuple[int, int, list[Any]]] = []
    with steady(bench.load):
        until = time.monotonic() + bench.seconds(SECONDS, 1.0)
        while time.monotonic() < until:
            before = time.time_ns() // 1000
            try:
                answers = bench.board.fields(list(FIELDS))
            except bench.board.nvml.NVMLError as error:
                raise NotPossibleError(f"nvmlDeviceGetFieldValues is not offered: {error}") from error
            rows.append((before, time.time_ns() // 1000, answers))
            time.sleep(PAUSE_S)
    for i, (number_, name) in enumerate(FIELDS.items()):
        mine = [(before, after, answers[i]) for before, after, answers in rows if answers[i].code == 0]
        if not mine:
            found[name] = {"verdict": f"not offered: return code {rows[0][2][i].code}"}
        else:
            found[name] = judge(mine) | {"field": number_}


def judge(rows: list[tuple[int, int, Any]]) -> dict[str, Any]:
    """What a field's stamps mark.

    Args:
        rows: microseconds since 1970 before and after each call, and the field's answer.

    Returns:
        The verdict with its numbers, and the raw ones: for each reading the microseconds from the call's beginning to its
        stamp, and whether stamp and value are new.
    """
    inside = sum(before - SLACK_US <= f.stamp_us <= after + SLACK_US for before, after, f in rows) / len(rows)
    steps = [(b[2].stamp_us != a[2].stamp_us, b[2].value != a[2].value) for a, b in pairwise(rows)]
    with_value = sum(stamp == value for stamp, value in steps) / max(1, len(steps))
    values = sum(value for _, value in steps)
    zero = sum(f.stamp_us == 0 for _, _, f in rows)
    if zero == len(rows):
        verdict = "nothing: it is 0"
    elif inside >= CLEAR:
        verdict = "the call"
    elif with_value >= CLEAR and values:
        verdict = "the sensor's refresh"
    else:
        verdict = "neither clearly"
    return {
        "verdict": verdict,
        "within_the_call": inside,
        "steps_with_the_value": with_value,
        "readings": len(rows),
        "new_values": values,
        "new_stamps": sum(stamp for stamp, _ in steps),
        "age_us": spread([after - f.stamp_us for _, after, f in rows], 1),
        "driver_latency_us": spread([f.latency_us for _, _, f in rows], 1),
        "raw": [(before - rows[0][0], f.stamp_us - before, f.value) for before, _, f in rows],
    }


def summarise(found: dict[str, Any]) -> list[str]:
    """The verdicts as a table."""
    rows = [
        [
            name,
            f"**{one['verdict']}**",
            percent(one.get("within_the_call")),
            percent(one.get("steps_with_the_value")),
            one.get("readings"),
            one.get("new_values"),
            one.get("new_stamps"),
            number(one.get("age_us", {}).get("median")),
        ]
        for name, one in found.items()
    ]
    headers = [
        "field", "its stamp marks", "stamps within the call", "step with the value", "readings", "new values", "new stamps",
        "age, µs: median",
    ]  # fmt: skip
    return table(headers, rows)
