"""`show`, `compare`, `sum`, `statement`, `export`: what is printed, and the exit status."""

from __future__ import annotations

import csv
import io

import msgspec
import pytest

from lightning_watt.commands import doctor, program
from lightning_watt.commands.main import main
from lightning_watt.commands.runs import export, sum_up
from lightning_watt.record import Inherited, Record
from lightning_watt.record.writer import to_json
from tests.unit.record.made import a_record


def write(directory, name: str = "watt.json", **changes) -> Record:
    directory.mkdir(parents=True, exist_ok=True)
    record = a_record(**({"status": "completed", "inherited": []} | changes))
    (directory / name).write_bytes(to_json(record))
    return record


@pytest.fixture
def runs(tmp_path):
    """Two runs of 2 kWh, and a third that went on from the first."""
    write(tmp_path / "a", session="a")
    write(tmp_path / "b", session="b")
    write(tmp_path / "b", "watt-v1.json", session="c", resumes=["a"], resumed_j=7.2e6 - 1.0)
    return tmp_path


def test_show_prints_every_run_of_a_directory(runs, capsys):
    assert main(["show", str(runs / "a"), str(runs / "b")]) == 0
    said = capsys.readouterr().out
    assert said.count("Energy 2 ± 0.1 kWh, measured.") == 3
    assert "run 2 of 2: completed" in said


def test_compare_says_whether_they_differ(runs, capsys):
    assert main(["compare", str(runs / "a"), str(runs / "b" / "watt.json")]) == 1
    assert "They cannot be told apart: the second used 0 ± 0 kWh more (+0.0%)." in capsys.readouterr().out
    record = a_record(status="completed")
    record.energy.total_j = 7.3e6
    (runs / "a" / "watt.json").write_bytes(to_json(record))
    assert main(["compare", str(runs / "b" / "watt.json"), str(runs / "a")]) == 0
    said = capsys.readouterr().out
    assert "They differ: the second used 0.02778 ± 0 kWh more (+1.4%).\nBoth were measured on the same devices" in said
    assert "only repetitions tell" in said


@pytest.mark.parametrize("terminal", [76], indirect=True)
@pytest.mark.parametrize(
    "asked",
    [
        ["show", "a"],
        ["compare", "a", "b"],
        ["sum", "."],
        ["statement", "--only", "text", "a"],
        ["doctor"],
        ["show", "c" * 80],
    ],
    ids=lambda asked: asked[0],
)
def test_no_line_is_longer_than_the_terminal(runs, terminal, monkeypatch, asked):
    stream, shown = terminal
    monkeypatch.chdir(runs)
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    record = a_record(status="interrupted")
    for label, device in record.energy.by_device.items():
        record.energy.by_device[label] = msgspec.structs.replace(device, name="NVIDIA RTX 6000 Ada Generation of somebody")
    (runs / "a" / "watt.json").write_bytes(to_json(record))
    main(asked)
    lines = shown().splitlines()
    assert lines
    # A name is not cut, so that it can be found.
    assert [line for line in lines if len(line) > 76 and "c" * 80 not in line] == []


def test_sum_counts_each_joule_once(runs, capsys):
    assert main(["sum", str(runs)]) == 0
    # 2 + 2 kWh, and one joule of the third run's own.
    assert capsys.readouterr().out.startswith("4 ± ")


def test_what_runs_inherited_has_its_plus_minus(tmp_path, capsys):
    known = Inherited(path="/elsewhere", total_j=3.6e6, uncertainty_j=3.6e5, gain_j=3.6e5)
    write(tmp_path / "a", session="a", inherited=[known])
    write(tmp_path / "b", session="b", inherited=[Inherited(path="/unknown", total_j=3.6e6)])
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "with inherited  3 ± 0.2 kWh  3 kWh ± unknown" in capsys.readouterr().out
    assert main(["sum", str(tmp_path)]) == 0
    assert "The runs outside of it that these started from: 2 kWh ± unknown." in capsys.readouterr().out
    assert main(["sum", str(tmp_path / "a")]) == 0
    assert "The runs outside of it that these started from: 1 ± 0.1 kWh." in capsys.readouterr().out


def test_export_has_a_row_for_each_run(runs, capsys):
    assert main(["export", str(runs), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["run"] for row in rows] == ["a", "b", "b/watt-v1"]
    assert [float(row["energy_kwh"]) for row in rows] == [2.0, 2.0, 2.0]
    assert main(["export", str(runs), "--table", "stages", "--csv", str(runs / "out.csv")]) == 0
    with (runs / "out.csv").open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["train", "other"] * 3


def test_the_other_tables_have_the_records_numbers(runs, capsys):
    for kind, column in (("epochs", "accuracy"), ("devices", "joules")):
        assert export(str(runs), kind, None) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [float(row[column]) for row in rows] == [0.8 if kind == "epochs" else 7.2e6] * 3


def test_a_statement_takes_an_intensity_that_is_given_afterwards(runs, capsys):
    asked = ["statement", str(runs / "a"), "--only", "text", "--carbon-intensity", "DE", "--pue", "1.5"]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "at 381 g of CO2e a kWh (mean of Germany, 2023" in said
    assert "and a PUE of 1.5 that is 1.143 ± 0.057 kg of CO2e." in said  # 2 kWh * 1.5 * 381 g

    # What is not given is the record's.
    write(runs / "d", carbon_intensity=100.0, co2e_g=240.0, pue=1.2)
    assert main(["statement", str(runs / "d"), "--pue", "1.5"]) == 0
    assert "at 100 g of CO2e a kWh and a PUE of 1.5 that is 300 ± 15 g of CO2e." in capsys.readouterr().out
    assert main(["statement", str(runs / "d"), "--carbon-intensity", "50"]) == 0
    assert "at 50 g of CO2e a kWh and a PUE of 1.2 that is 120 ± 6 g of CO2e." in capsys.readouterr().out
    assert main(["statement", str(runs / "a"), "--pue", "1.5"]) == 0
    assert "with a PUE of 1.5 that is 3 ± 0.15 kWh of the building." in capsys.readouterr().out
    assert main(["statement", str(runs / "a"), "--only", "latex"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("a & 0.8000 & ")


def test_a_broken_record_is_left_out_and_told(runs, capsys):
    (runs / "b" / "watt.json").write_text("{")
    assert sum_up(str(runs)) == 1
    said = capsys.readouterr().out
    assert "Left out: " in said
    assert "in 2 runs (2 completed)" in said


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["show", "/none"], "/none/watt.json: there is no such file"),
        (["sum", "/none"], "/none: there is no such directory"),
        (["run"], "write the program after two dashes"),
        (["run", "python", "-c", "1"], "write the program after two dashes"),
        (["run", "nohup", "--", "true"], "write the program after two dashes"),
        (["show", __file__], "no run record. Give the run's directory, or the watt.json in it."),
        (["run", "--interval", "0", "--", "true"], "interval is 0.0: give the seconds between two reads"),
        (["statement", "/none", "--carbon-intensity", "Germny"], "the nearest: Germany"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_status_2(asked, sentence, capsys):
    assert main(asked) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert "Traceback" not in said.err


def test_an_option_that_is_not_there_is_an_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["run", "--watts", "0", "--", "true"])
    assert ended.value.code == 2
    assert "--watts" in capsys.readouterr().err


def test_a_directory_without_records_is_told(tmp_path, capsys):
    assert main(["export", str(tmp_path)]) == 2
    assert "there is no run record in it or below it" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["doctor", "run", "show", "compare", "sum", "statement", "export"])
def test_every_command_has_its_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert (ended.value.code, "usage: lightning-watt" in capsys.readouterr().out) == (0, True)


def test_a_program_that_is_not_there_has_a_shells_status(tmp_path):
    assert main(["run", "--dir", str(tmp_path), "--", "no-such-program"]) == program.NOT_FOUND
    assert list(tmp_path.iterdir()) == []


def test_doctor_for_other_programs_is_json(capsys):
    import json

    status = doctor.doctor(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"measured", "devices", "missing"}
    assert found["measured"] is (status == 0)
    assert {"label", "source", "provenance", "gain"} <= set(found["devices"][0])
