"""How long each NVML call takes that `sources/nvml.py` makes, on an idle board and on a busy one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from experiments.bench.gpu_evidence.bench import Bench
from experiments.bench.gpu_evidence.board import Board
from experiments.bench.gpu_evidence.figures import number, spread, table
from experiments.bench.gpu_evidence.load import steady

TITLE = "Latency of each NVML call"
LIMIT_S = 25.0
CALLS = 300
CALL_S = 0.8
PAUSE_S = 0.001


def run(bench: Bench, found: dict[str, Any]) -> None:
    """Each call some hundred times, a millisecond apart, idle and under load."""
    calls = _calls(bench.board)
    for state in ("idle", "busy"):
        found[state] = {}
        with steady(bench.load) if state == "busy" else nullcontext():
            for name, call in calls.items():
                found[state][name] = _time(bench, call)


def summarise(found: dict[str, Any]) -> list[str]:
    """A table of medians and 99th percentiles."""
    rows = []
    for name, idle in found.get("idle", {}).items():
        busy = found.get("busy", {}).get(name, {})
        if "error" in idle:
            rows.append([f"`{name}`", idle["error"], "", "", ""])
        else:
            cells = [number(state.get(key)) for state in (idle, busy) for key in ("median", "p99")]
            rows.append([f"`{name}`", *cells])
    return table(["call", "idle: median, µs", "p99", "busy: median, µs", "p99"], rows)


def _calls(board: Board) -> dict[str, Callable[[], Any]]:
    nvml, handle = board.nvml, board.handle
    return {
        "nvmlDeviceGetTotalEnergyConsumption": board.counter_mj,
        "nvmlDeviceGetPowerUsage": board.power_mw,
        "nvmlDeviceGetSamples, last second": lambda: board.samples(board.now_us() - 1_000_000),
        "nvmlDeviceGetSamples, all": board.samples,
        "nvmlDeviceGetFieldValues, 83": lambda: board.fields([83]),
        "nvmlDeviceGetFieldValues, 83 191 186": lambda: board.fields([83, 191, 186]),
        "nvmlDeviceGetPowerManagementLimitConstraints": lambda: nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle),
        "nvmlDeviceGetMigMode": lambda: nvml.nvmlDeviceGetMigMode(handle),
        "nvmlDeviceGetComputeRunningProcesses": lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle),
        "nvmlDeviceGetCount": nvml.nvmlDeviceGetCount,
        "nvmlDeviceGetHandleByIndex": lambda: nvml.nvmlDeviceGetHandleByIndex(board.index),
        "nvmlDeviceGetUUID": lambda: nvml.nvmlDeviceGetUUID(handle),
        "nvmlDeviceGetName": lambda: nvml.nvmlDeviceGetName(handle),
        "nvmlInit and nvmlShutdown, once open": lambda: (nvml.nvmlInit(), nvml.nvmlShutdown()),
    }


def _time(bench: Bench, call: Callable[[], Any]) -> dict[str, Any]:
    """Microseconds of a call; if it raises, the error's text instead."""
    taken: list[float] = []
    until = time.monotonic() + bench.seconds(CALL_S)
    while len(taken) < bench.times(CALLS, least=20) and time.monotonic() < until:
        start = time.perf_counter_ns()
        try:
            call()
        except bench.board.nvml.NVMLError as error:
            return {"error": f"not offered: {error}"}
        taken.append((time.perf_counter_ns() - start) / 1000)
        time.sleep(PAUSE_S)
    return spread(taken, 2) | {"us": [round(us, 2) for us in taken]}
