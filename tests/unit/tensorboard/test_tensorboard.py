"""The Watt tab's routes, asked as a browser asks them, over real event files and TensorBoard's own reader."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("tensorboard", reason="install lightning_watt[tensorboard]")
from torch.utils.tensorboard import SummaryWriter

from lightning_watt.accounts.ledger import STAGES
from lightning_watt.record import Epoch, difference
from lightning_watt.record.writer import to_json
from lightning_watt.tensorboard import curves, plugin, rows
from lightning_watt.tensorboard.plugin import STATIC, WattPlugin
from lightning_watt.tensorboard.reader import MAX_CURVES, MAX_POINTS
from lightning_watt.tensorboard.runs import MAX_SETTINGS, MAX_TEXT
from lightning_watt.units import J_PER_KWH
from tests.tab_runs import BEGAN_UNIX, ROW_S, client, get, provider, record, write_rows, write_run, write_text

HOSTILE = ["<script>document.title='owned'<", "a&amp;b", "<b>bold<", "%{x} $x^2$", "..%2F..%2Fetc"]


def tab(logdir: Path):
    return client(provider(logdir), WattPlugin)


def runs(logdir: Path) -> dict[str, dict]:
    return {run["name"]: run for run in get(tab(logdir), "runs")["runs"]}


def test_an_empty_directory_has_no_runs_and_leaves_the_tab_inactive(tmp_path):
    browser = tab(tmp_path)
    answer = get(browser, "runs")
    assert (answer["runs"], answer["where"]) == ([], str(tmp_path))
    assert get(browser, "curves") == {}
    assert get(browser, "record", {"run": "none"}) == {"record": None, "problem": None}
    listed = json.loads(browser.get("/data/plugins_listing").get_data())["watt"]
    assert not listed["enabled"]


def test_one_measured_run_makes_it_active(tmp_path):
    write_run(tmp_path, "resnet", 2.0, 0.8)
    listed = json.loads(tab(tmp_path).get("/data/plugins_listing").get_data())["watt"]
    assert listed["enabled"]
    assert listed["tab_name"] == "Watt"
    assert listed["loading_mechanism"] == {"type": "IFRAME", "module_path": "/data/plugin/watt/static/index.js"}


def test_pip_install_is_enough():
    (found,) = [point for point in entry_points(group="tensorboard_plugins") if point.name == "watt"]
    assert found.load() is WattPlugin


def test_a_finished_run_is_what_its_record_says(tmp_path):
    write_run(tmp_path, "vit", 2.0, 0.8, provenance="estimated")
    run = runs(tmp_path)["vit"]
    # Exactly: the rows of the event file are float32, the record is not.
    assert run["joules"] == 2.0 * J_PER_KWH
    assert run["uncertainty_j"] == J_PER_KWH
    assert (run["accuracy"], run["metric"]) == (0.8, "val_acc")
    assert (run["status"], run["provenance"]) == ("completed", "estimated")
    assert run["by_stage"] == {"train": 1.7 * J_PER_KWH, "validate": 0.24 * J_PER_KWH, "other": 0.06 * J_PER_KWH}
    assert (run["alpha"], run["beta"], run["unit"]) == (5.0, 5.0, "kWh")
    assert run["seen_unix"] == pytest.approx(BEGAN_UNIX + 4 * ROW_S + 1)


def test_a_runs_settings_are_numbers_and_texts_and_not_too_many(tmp_path):
    with SummaryWriter(str(tmp_path / "set")) as writer:
        told = record(2.0, 0.8)
        many = {f"k{number}": number for number in range(2 * MAX_SETTINGS)}
        deep: dict = {"x": 1}
        for _ in range(200):
            deep = {"hyperparameters": deep}
        told.model = {
            "name": "ResNet",
            "hyperparameters": {"lr": 0.1, "optimizer": {"name": "s" * 500}, "layers": [1, 2], "scale": float("inf")} | deep,
            "data_hyperparameters": {"batch_size": 32, **many},
        }
        write_text(writer, to_json(told).decode(), BEGAN_UNIX)
    found = runs(tmp_path)["set"]["hparams"]
    assert (found["name"], found["lr"], found["batch_size"]) == ("ResNet", 0.1, 32)
    assert found["optimizer/name"] == "s" * MAX_TEXT
    assert len(found) == MAX_SETTINGS
    assert not {"layers", "scale"} & found.keys()


def test_what_cannot_be_a_number_is_none():
    assert (rows.finite(float("nan")), rows.finite(1.0)) == (None, 1.0)
    assert curves.Curves().power == {}


def test_rows_that_are_younger_than_the_record_win(tmp_path):
    with SummaryWriter(str(tmp_path / "going")) as writer:
        write_text(writer, to_json(record(0.01, None, status="running")).decode(), BEGAN_UNIX + 1)
        write_rows(writer, 3.0, 0.6)
        writer.add_scalar("watt/forecast_kwh", 9.0, 4, walltime=BEGAN_UNIX + 4 * ROW_S)
    run = runs(tmp_path)["going"]
    assert run["joules"] == pytest.approx(3.0 * J_PER_KWH, rel=1e-6)
    assert run["accuracy"] == pytest.approx(0.6, rel=1e-6)
    assert run["forecast_j"] == pytest.approx(9.0 * J_PER_KWH, rel=1e-6)
    assert (run["status"], run["provenance"]) == ("running", "measured")


def test_a_test_after_the_fit_is_running_again(tmp_path):
    with SummaryWriter(str(tmp_path / "again")) as writer:
        write_text(writer, to_json(record(1.0, 0.5)).decode(), BEGAN_UNIX)
        write_rows(writer, 3.0, 0.6)
    assert runs(tmp_path)["again"]["status"] == "running"


def test_several_trainers_that_logged_to_one_directory_are_a_run_each(tmp_path):
    """One logger for a fit and for the next Trainer's prediction: both write into the same event files' directory."""
    with SummaryWriter(str(tmp_path / "shared")) as writer:
        for begin, kwh, session, resumes in ((0, 3.0, "a", []), (1000, 1.0, "b", []), (2000, 1.5, "c", ["b"])):
            for step in range(3):
                at = BEGAN_UNIX + begin + step * ROW_S
                writer.add_scalar("watt/energy_kwh", kwh * step / 2, step, walltime=at)
                writer.add_scalar("watt/power_w", 100.0 * kwh, step, walltime=at)
            text = msgspec.structs.replace(record(kwh, 0.5), session=session, resumes=resumes)
            for _ in range(2):  # after the fit, and after the test of the same Trainer
                write_text(writer, to_json(text).decode(), BEGAN_UNIX + begin + 3 * ROW_S)
    found = runs(tmp_path)
    # The third one went on from the second, and so has its energy.
    assert {name: run["joules"] / J_PER_KWH for name, run in found.items()} == {"shared · 1": 3.0, "shared": 1.5}
    assert {run["status"] for run in found.values()} == {"completed"}
    browser = tab(tmp_path)
    asked = {
        name: get(browser, "record", {"run": name})["record"] for name in (*found, "shared · 2", "shared · 0", "no · 1")
    }
    assert {name: told and told["session"] for name, told in asked.items()} == {
        "shared · 1": "a",
        "shared": "c",
        "shared · 2": None,
        "shared · 0": None,
        "no · 1": None,
    }
    curves = get(browser, "curves", [("run", "shared"), ("run", "shared · 1"), ("run", "shared · 7")])
    assert curves["shared · 1"]["power"]["total"]["v"] == [300.0] * 3
    assert curves["shared"]["power"]["total"]["v"] == [100.0] * 3 + [150.0] * 3
    assert curves["shared · 7"]["power"]["total"]["v"] == []


def test_a_run_without_a_record_is_there_with_its_provenance_unknown(tmp_path):
    with SummaryWriter(str(tmp_path / "young")) as writer:
        write_rows(writer, 1.0, None)
    run = runs(tmp_path)["young"]
    assert (run["status"], run["provenance"], run["accuracy"], run["unit"]) == ("running", None, None, None)


def test_runs_of_others_are_left_out(tmp_path):
    write_run(tmp_path, "ours", 1.5, 0.5)
    with SummaryWriter(str(tmp_path / "theirs")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    assert list(runs(tmp_path)) == ["ours"]


@pytest.mark.parametrize("text", ["", "{}", "[1,", '{"schema_version": 99}', '{"schema_version": 1, "status": "<img>"}'])
def test_a_broken_record_is_told_and_the_rows_are_shown(tmp_path, text):
    with SummaryWriter(str(tmp_path / "broken")) as writer:
        write_rows(writer, 1.0, 0.5)
        write_text(writer, text, BEGAN_UNIX + 10 * ROW_S)
    run = runs(tmp_path)["broken"]
    assert "watt/record" in run["problem"]
    assert run["joules"] == pytest.approx(J_PER_KWH, rel=1e-6)
    answer = get(tab(tmp_path), "record", {"run": "broken"})
    assert answer == {"record": None, "problem": run["problem"]}


def test_numbers_that_do_not_exist_are_null_and_huge_ones_stay(tmp_path):
    nan = float("nan")
    with SummaryWriter(str(tmp_path / "nan")) as writer:
        write_rows(writer, nan, nan)
    with SummaryWriter(str(tmp_path / "huge")) as writer:
        write_rows(writer, 3e38, 0.5)
    write_run(tmp_path, "beyond", 1e308, 0.5)  # its joules are beyond float64
    found = runs(tmp_path)
    assert (found["nan"]["joules"], found["nan"]["accuracy"]) == (None, None)
    assert found["huge"]["joules"] == pytest.approx(3e38 * J_PER_KWH, rel=1e-6)
    assert found["beyond"]["joules"] is None
    assert found["beyond"]["accuracy"] == 0.5
    curves = get(tab(tmp_path), "curves", {"run": ["nan", "huge"]})
    assert curves["nan"]["path_accuracy"] == []
    assert curves["nan"]["power"]["total"]["v"][-1] == 608.0


def test_names_come_through_as_they_are(tmp_path):
    for name in HOSTILE:
        write_run(tmp_path, name, 1.5, 0.5)
    assert sorted(runs(tmp_path)) == sorted(HOSTILE)
    browser = tab(tmp_path)
    assert set(get(browser, "curves", {"run": HOSTILE})) == set(HOSTILE)
    assert all(get(browser, "record", {"run": name})["record"]["status"] == "completed" for name in HOSTILE)
    answer = browser.get("/data/plugin/watt/runs")
    assert answer.headers["Content-Type"] == "application/json"


def test_the_record_comes_with_the_epochs_that_it_has_here(tmp_path):
    epochs = [Epoch(epoch=number, stage="train", joules=1.0, seconds=2.0, accuracy=0.5) for number in range(3)]
    write_run(tmp_path, "vit", 2.0, 0.8, epochs=epochs)
    with SummaryWriter(str(tmp_path / "broken")) as writer:
        write_text(writer, "{}", BEGAN_UNIX)
    browser = tab(tmp_path)
    found = get(browser, "record", {"run": "vit"})["record"]
    assert [epoch["epoch"] for epoch in found["epochs"]] == [0, 1, 2]
    assert found["energy"]["by_device"]["gpu1"]["source"] == "nvml-counter"
    assert get(browser, "epochs", {"run": ["vit", "broken", "none"]}) == {"vit": found["epochs"], "none": []}


def test_two_runs_are_compared_by_the_rule_of_the_command(tmp_path):
    for name, kwh in (("a", 2.0), ("b", 2.2), ("again", 2.0)):
        write_run(tmp_path, name, kwh, 0.8)
    with SummaryWriter(str(tmp_path / "young")) as writer:
        write_rows(writer, 1.0, None)
    browser = tab(tmp_path)
    found = get(browser, "compare", {"run": ["a", "b"]})
    ours = difference(record(2.2, 0.8), record(2.0, 0.8))
    assert (found["joules"], found["plus_minus_j"], found["why"]) == (ours.joules, ours.plus_minus_j, ours.why)
    assert (found["verdict"], found["is_sure"], found["problem"]) == ("They differ", True, None)
    assert get(browser, "compare", {"run": ["a", "again"]})["verdict"] == "They cannot be told apart"
    assert "no record yet" in get(browser, "compare", {"run": ["a", "young"]})["problem"]
    assert "problem" in get(browser, "compare", {"run": "a"})


def test_a_run_in_words_is_what_the_command_says(tmp_path):
    write_run(tmp_path, "vit", 2.0, 0.8)
    browser = tab(tmp_path)
    assert get(browser, "statement", {"run": "vit"}) == asdict(record(2.0, 0.8).statement("vit"))
    assert get(browser, "statement", {"run": "none"}) == {"problem": "The run has no record yet."}


def test_what_stands_beside_the_energy(tmp_path):
    told = {
        "co2e_g": 800.0, "cost": 0.6, "budget_kwh": 3.0, "session": "s", "resumes": ["r"], "resumed_j": 1e6, "wasted_j": 2e5,
    }  # fmt: skip
    write_run(tmp_path, "vit", 2.0, 0.8, **told)
    run = runs(tmp_path)["vit"]
    assert (run["co2e_g"], run["cost"], run["budget_j"]) == (800.0, 0.6, 3.0 * J_PER_KWH)
    assert (run["session"], run["resumes"], run["earlier_j"], run["wasted_j"]) == ("s", ["r"], 1.2e6, 2e5)
    assert (run["boards"], run["by_device"]) == ("2 × a board", {"gpu0": J_PER_KWH, "gpu1": J_PER_KWH})
    with SummaryWriter(str(tmp_path / "vit")) as writer:  # it goes on: twice the energy so far
        write_rows(writer, 4.0, 0.8, began_unix=BEGAN_UNIX + 1000)
    run = runs(tmp_path)["vit"]
    assert (run["co2e_g"], run["cost"]) == (pytest.approx(1600.0), pytest.approx(1.2))
    assert run["seconds"] == 1240.0


def test_curves_are_bounded_and_keep_their_last_point(tmp_path):
    write_run(tmp_path, "long", 1.0, 0.5, rows=3 * MAX_POINTS)
    found = get(tab(tmp_path), "curves", {"run": "long"})["long"]
    assert list(found["power"]) == ["total"]
    assert len(found["power"]["total"]["t"]) == len(found["power"]["total"]["v"]) == MAX_POINTS
    assert found["power"]["total"]["v"][-1] == 600.0 + 2 * 3 * MAX_POINTS
    assert len(found["path_j"]) == MAX_POINTS
    assert found["path_j"][-1] == J_PER_KWH


def test_curves_by_device(tmp_path):
    write_run(tmp_path, "vit", 1.0, 0.5)
    power = get(tab(tmp_path), "curves", {"run": "vit", "by_device": "1"})["vit"]["power"]
    assert list(power) == ["gpu0", "gpu1"]
    assert power["gpu0"]["v"] == power["gpu1"]["v"] == [301.0, 302.0, 303.0, 304.0]
    assert power["gpu0"]["step"] == [1, 2, 3, 4]
    assert power["gpu0"]["t"] == [BEGAN_UNIX + ROW_S * row for row in (1, 2, 3, 4)]


def test_no_more_curves_are_sent_than_a_chart_shows(tmp_path):
    names = [f"run{number}" for number in range(MAX_CURVES + 1)]
    for name in names:
        write_run(tmp_path, name, 1.0, 0.5, rows=1)
    assert list(get(tab(tmp_path), "curves", {"run": [*names, "run0"]})) == names[:MAX_CURVES]


# ---- the page ----


def scripts() -> dict[str, str]:
    return {file.relative_to(STATIC).as_posix(): file.read_text() for file in STATIC.rglob("*") if file.is_file()}


def test_every_file_of_the_page_is_served_and_not_sniffed(tmp_path):
    browser = tab(tmp_path)
    for name, text in scripts().items():
        answer = browser.get(f"/data/plugin/watt/static/{name}")
        assert answer.status_code == 200
        assert answer.get_data(as_text=True) == text
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"


def test_what_a_module_imports_is_there():
    for name, text in scripts().items():
        for target in re.findall(r'^(?:import|export) .*? from "(.+?)";', text, re.MULTILINE):
            assert (STATIC / name).parent.joinpath(target).resolve().is_file(), f"{name} imports {target}"


@pytest.mark.parametrize(
    "path",
    ["static/../plugin.py", "static/%2e%2e/plugin.py", "static//etc/passwd", "static/", "static/..%2fruns.py", "../../x"],
)
def test_no_path_leads_out(tmp_path, path):
    assert tab(tmp_path).get(f"/data/plugin/watt/{path}").status_code == 404


def test_the_page_makes_no_markup_of_text_and_asks_nobody_else():
    for name, text in scripts().items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), name
        assert not re.search(r"https?:|//[a-z]+\.[a-z]+/|@import|url\(", text), name


def test_the_charting_library_comes_packed_and_is_kept(tmp_path):
    answer = tab(tmp_path).get("/data/plugin/watt/plotly.js", headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "max-age=86400" in answer.headers["Cache-Control"]
    assert tab(tmp_path).get("/data/plugin/watt/plotly.js").get_data()[:2000].count(b"plotly.js v") == 1


def test_without_the_charting_library_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(plugin.importlib.util, "find_spec", lambda name: None)
    plugin._plotly.cache_clear()
    try:
        answer = tab(tmp_path).get("/data/plugin/watt/plotly.js")
    finally:
        plugin._plotly.cache_clear()
    assert answer.status_code == 404
    assert "pip install 'lightning_watt[tensorboard]'" in answer.get_data(as_text=True)


def test_the_tab_knows_every_stage_and_so_the_bars_add_up():
    """A stage that its chart left out would be missing from the bars, as `wasted` once was."""
    drawn = (STATIC / "views" / "stages.js").read_text(encoding="utf-8")
    named = re.findall(r'^  \["(\w+)", "[^"]+"\],', drawn, re.MULTILINE)
    assert set(named) == {*STAGES, "inherited_j"}
    coloured = re.findall(r"^  (\w+): \{ light:", (STATIC / "palette.js").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(coloured) == set(named)
