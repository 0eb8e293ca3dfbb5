"""What a poll of the Watt tab reads: of TensorBoard's real reader, over real event files."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

pytest.importorskip("tensorboard", reason="install lightning_watt[tensorboard]")
from tensorboard.context import RequestContext
from torch.utils.tensorboard import SummaryWriter

from lightning_watt.record.writer import to_json
from lightning_watt.tensorboard.plugin import WattPlugin
from lightning_watt.tensorboard.records import Records
from lightning_watt.units import J_PER_KWH
from tests.tab_runs import BEGAN_UNIX, client, get, provider, record, reload, write_run, write_text


class Asked:
    """A data provider that counts what is asked of it, and knows of which runs the last time."""

    def __init__(self, inner):
        self._inner = inner
        self.asked = Counter()
        self.runs_asked = {}

    def __getattr__(self, name):
        def call(*args, run_tag_filter=None, **options):
            self.asked[name] += 1
            self.runs_asked[name] = run_tag_filter and run_tag_filter.runs
            filtered = {} if run_tag_filter is None else {"run_tag_filter": run_tag_filter}
            return getattr(self._inner, name)(*args, **filtered, **options)

        return call


@pytest.mark.parametrize("count", [2, 40])
def test_a_poll_reads_only_the_records_that_are_new_however_many_there_are(tmp_path, count):
    for number in range(1, count):
        write_run(tmp_path, f"run{number}", 1.0 + number, 0.5, rows=1)
    going = SummaryWriter(str(tmp_path / "run0"))
    write_text(going, to_json(record(1.0, 0.5)).decode(), BEGAN_UNIX)
    going.flush()
    counted = Asked(events := provider(tmp_path))
    browser = client(counted, WattPlugin)
    always = {"read_last_scalars": 1, "list_tensors": 1, "experiment_metadata": 1}

    def poll():
        counted.asked.clear()
        return {run["name"]: run["joules"] / J_PER_KWH for run in get(browser, "runs")["runs"]}

    first = poll()
    assert first == {f"run{number}": 1.0 + number for number in range(count)}
    assert counted.asked == always | {"read_tensors": 1}
    assert poll() == first
    assert counted.asked == always
    write_text(going, to_json(record(7.0, 0.5)).decode(), BEGAN_UNIX + 900)
    going.close()
    write_run(tmp_path, "late", 3.0, 0.5, rows=1)
    reload(events)
    assert poll() == first | {"run0": 7.0, "late": 3.0}
    assert counted.asked == always | {"read_tensors": 1}
    assert counted.runs_asked["read_tensors"] == {"run0", "late"}
    shutil.rmtree(tmp_path / "late")
    reload(events)
    assert poll() == first | {"run0": 7.0}


def test_experiments_of_the_same_run_names_are_not_mixed_up(tmp_path):
    records, found = Records(), []
    for name, kwh in {"one": 1.0, "two": 2.0}.items():
        write_run(tmp_path / name, "vit", kwh, 0.5)
        where = {"ctx": RequestContext(), "experiment_id": name}
        found.append(records.of(provider(tmp_path / name), where)["vit"][-1].run.joules)
    assert found == [J_PER_KWH, 2 * J_PER_KWH]
