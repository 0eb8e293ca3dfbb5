"""Reads a `run-*.wandb` file back: LevelDB's log format, whose records are W&B's own protobuf messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto.wandb_internal_pb2 import Record

HEADER = 7  # ":W&B", a magic number and a version
BLOCK = 32_768


class WandbRun(NamedTuple):
    """What a run logged: its rows in order, the step metric that each metric was given, and its summary."""

    rows: list[dict[str, Any]]
    axes: dict[str, str]
    summary: dict[str, Any]


def read_wandb(directory: Path) -> WandbRun:
    """The only run below a directory."""
    [path] = directory.rglob("run-*.wandb")
    rows, axes, summary = [], {}, {}
    for raw in _records(path.read_bytes()):
        record = Record()
        record.ParseFromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "history":
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item})
        elif kind == "metric":
            axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "summary":
            summary |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
    return WandbRun(rows, axes, summary)


def _records(raw: bytes) -> Iterator[bytes]:
    assert raw[:4] == b":W&B"
    at, whole = HEADER, b""
    while at + 7 <= len(raw):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", raw, at)
        whole += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""
