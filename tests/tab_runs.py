"""Log directories for the Watt tab's tests, and TensorBoard's application over them: real event files, the real reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from tensorboard.backend.application import TensorBoardWSGI
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
from torch.utils.tensorboard import SummaryWriter
from werkzeug.test import Client

from lightning_watt.record import Accuracy, DeviceEnergy, Energy, Inherited, Record, Sam, Stage, Status
from lightning_watt.record.schema import SCHEMA_VERSION
from lightning_watt.record.writer import to_json
from lightning_watt.units import J_PER_KWH

BEGAN_UNIX = 1.7e9
ROW_S = 60.0
SHARES = {"train": 0.85, "validate": 0.12, "other": 0.03}


def record(
    kwh: float,
    accuracy: float | None,
    *,
    status: Status = "completed",
    provenance: Any = "measured",
    inherited_kwh: float = 0.0,
    **changes: Any,
) -> Record:
    """A run on two boards; an estimate is off by half, a measurement by a twentieth. `changes` are other fields."""
    total_j = kwh * J_PER_KWH
    gain = 0.05 if provenance == "measured" else 0.5
    made = Record(
        schema_version=SCHEMA_VERSION,
        status=status,
        energy=Energy(
            total_j=total_j,
            total_kwh=kwh,
            uncertainty_j=total_j * gain,
            provenance=provenance,
            gain_j=total_j * gain,
            by_stage={stage: Stage(joules=total_j * share, seconds=600.0 * share) for stage, share in SHARES.items()},
            by_device={
                label: DeviceEnergy(
                    joules=total_j / 2, name="a board", uuid=label, source="nvml-counter", provenance=provenance, gain=gain
                )
                for label in ("gpu0", "gpu1")
            },
        ),
        accuracy=Accuracy(metric=None if accuracy is None else "val_acc", last=accuracy, best=accuracy),
        sam=Sam(alpha=5.0, beta=5.0, unit="kWh"),
        inherited=[_pretrain(inherited_kwh * J_PER_KWH)] if inherited_kwh else [],
        started_unix=BEGAN_UNIX,
        updated_unix=BEGAN_UNIX + 600.0,
    )
    return msgspec.structs.replace(made, **changes)


def _pretrain(joules: float) -> Inherited:
    return Inherited(path="pretrain", total_j=joules, uncertainty_j=0.05 * joules, gain_j=0.05 * joules)


def write_rows(
    writer: SummaryWriter, kwh: float, accuracy: float | None, rows: int = 4, began_unix: float = BEGAN_UNIX
) -> None:
    """The rows of a run that grows evenly to this energy and accuracy."""
    for row in range(1, rows + 1):
        share = row / rows
        values: dict[str, float] = {
            "watt/energy_kwh": kwh * share,
            "watt/uncertainty_kwh": 0.05 * kwh * share,
            **{f"watt/{stage}/energy_kwh": kwh * share * part for stage, part in SHARES.items()},
            **dict.fromkeys(("watt/gpu0/power_w", "watt/gpu1/power_w"), 300.0 + row),
            "watt/power_w": 600.0 + 2 * row,
            "epoch": row - 1,
        }
        if accuracy is not None:
            values["watt/accuracy"] = accuracy * share
        for tag, value in values.items():
            writer.add_scalar(tag, value, row, walltime=began_unix + ROW_S * row)
        if accuracy is not None and kwh < 1e10:
            writer.add_scalar(
                "watt_vs_energy/accuracy",
                accuracy * share,
                round(kwh * share * J_PER_KWH),
                walltime=began_unix + ROW_S * row,
            )


def write_text(writer: SummaryWriter, json_text: str, unix: float) -> None:
    """A record's row, as the callback writes it."""
    writer.add_text("watt/record", f"```json\n{json_text}\n```", 1, walltime=unix)


def write_run(logdir: Path, name: str, kwh: float, accuracy: float | None, *, rows: int = 4, **about: Any) -> None:
    """A finished run; `about` is what `record` takes."""
    with SummaryWriter(str(logdir / name)) as writer:
        write_rows(writer, kwh, accuracy, rows)
        write_text(writer, to_json(record(kwh, accuracy, **about)).decode(), BEGAN_UNIX + ROW_S * rows + 1)


def provider(logdir: Path) -> MultiplexerDataProvider:
    """TensorBoard's own reader of event files, with TensorBoard's own limits, loaded."""
    from tensorboard.backend.event_processing.data_ingester import DEFAULT_TENSOR_SIZE_GUIDANCE

    events = EventMultiplexer(tensor_size_guidance=dict(DEFAULT_TENSOR_SIZE_GUIDANCE))
    found = MultiplexerDataProvider(events, str(logdir))
    reload(found)
    return found


def reload(data_provider: MultiplexerDataProvider) -> None:
    """Read what is new in its directory, as TensorBoard does every few seconds."""
    events = data_provider._multiplexer
    events.AddRunsFromDirectory(data_provider._logdir)
    events.Reload()


def client(data_provider: Any, *plugins: Any) -> Client:
    """TensorBoard's application with these plugins."""
    context = TBContext(data_provider=data_provider, logdir="")
    made = [plugin(context) for plugin in plugins]
    return Client(TensorBoardWSGI(made, path_prefix="", data_provider=data_provider))


def strict_json(text: str) -> Any:
    """JSON as the standard has it: NaN and Infinity are errors."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def get(browser: Client, path: str, query: Mapping[str, Any] | None = None) -> Any:
    """What a route of the tab answers."""
    answer = browser.get(f"/data/plugin/watt/{path}", query_string=query)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return strict_json(answer.get_data(as_text=True))


def hparams_table(logdir: Path) -> tuple[list[str], list[str], dict[str, dict[str, Any]]]:
    """TensorBoard's table of hyperparameters: its columns, those of metrics, and its rows by session."""
    browser = client(provider(logdir), HParamsPlugin)

    def ask(route: str, **request: Any) -> Any:
        answer = browser.post(f"/data/plugin/hparams/{route}", json=request)
        assert answer.status_code == 200
        return json.loads(answer.get_data())

    found = ask("experiment")
    metrics = [info["name"]["tag"] for info in found.get("metricInfos", [])]
    groups = ask(
        "session_groups",
        startIndex=0,
        sliceSize=100,
        allowedStatuses=["STATUS_SUCCESS", "STATUS_UNKNOWN"],
        colParams=[{"metric": {"tag": tag, "group": ""}} for tag in metrics],
    )
    rows = {
        group["sessions"][0]["name"]: group["hparams"]
        | {value["name"]["tag"]: value["value"] for value in group.get("metricValues", [])}
        for group in groups.get("sessionGroups", [])
    }
    return [info["name"] for info in found.get("hparamInfos", [])], metrics, rows
