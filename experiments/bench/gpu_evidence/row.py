"""`python -m experiments.bench.gpu_evidence.row EVIDENCE.json ...`: put what boards said into the library's `boards.csv`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from experiments.bench.gpu_evidence.evidence import write_atomically
from lightning_watt.sources.nvidia.seen import FILE, SeenBoard, with_rows

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"


def row_of(content: dict[str, Any]) -> SeenBoard:
    """The board's row, from an evidence file's content; what no part has found is not known."""
    about, found = content["about"], {name: one["found"] for name, one in content["parts"].items()}
    samples = found.get("samples", {})
    under_load = samples.get("under load", {})
    latency = found.get("latency", {})
    ratios = {
        row["pause_s"]: row["against_samples"] for row in found.get("bias", {}).get("rates", []) if row["state"] == "busy"
    }
    return SeenBoard(
        name=about["gpu"],
        driver=about["driver"],
        counter_tick_ms=found.get("tick", {}).get("tick_ms"),
        counter_lag_ms=found.get("lag", {}).get("lag_ms"),
        call_idle_ms=_call_ms(latency, "idle"),
        call_busy_ms=_call_ms(latency, "busy"),
        samples_clock=samples.get("clock") or None,
        samples_ms=under_load.get("spacing_ms", {}).get("median"),
        samples_kept=samples.get("after a silence", {}).get("n"),
        samples_window_ms=samples.get("response", {}).get("window_ms"),
        counter_at_1=ratios.get(1.0),
        counter_at_10=ratios.get(0.1),
        counter_at_100=ratios.get(0.01),
        source=f"gpu_evidence {about['when'].split()[0]}",
    )


def _call_ms(latency: dict[str, Any], state: str) -> float | None:
    median_us = latency.get(state, {}).get(COUNTER, {}).get("median")
    return None if median_us is None else median_us / 1000


def main(paths: list[str], file: Path = FILE) -> int:
    """Add or replace the rows of these evidence files; 0 if all could be read."""
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        rows = [row_of(json.loads(Path(path).read_text(encoding="utf-8"))) for path in paths]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"These are not all evidence of boards: {error!r}.", file=sys.stderr)
        return 2
    write_atomically(file, with_rows(file.read_text(encoding="utf-8"), rows))
    print(f"{file}: {', '.join(row.name for row in rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
