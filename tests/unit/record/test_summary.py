"""The table at the end of a run: each number, each sentence, as text and as HTML in which nothing of a record runs."""

from __future__ import annotations

import io
import re
import sys
from html import unescape

import pytest

from lightning_watt.record import Accuracy, DeviceEnergy, Energy, Idle, Inherited, LostWork, Record, Sam, Stage, StepPart
from lightning_watt.record.text.drawn import say
from lightning_watt.record.text.summary import line, summary, summary_html
from tests.unit.record.made import a_record

HOSTILE = "<script>alert('ours')</script> & \"more\""


def an_energy(**changes) -> Energy:
    """An hour: 3600 Wh on a board of ten percent, and 360 Wh on a CPU."""
    energy = Energy(
        total_j=3600.0 * 3960,
        total_kwh=3.96,
        uncertainty_j=3600.0 * 396,
        provenance="measured",
        by_stage={
            "train": Stage(joules=3600.0 * 3600, seconds=3000.0, batches=100, samples=1600, uncertainty_j=3600.0 * 90),
            "other": Stage(joules=3600.0 * 360, seconds=600.0),
        },
        by_device={
            "gpu0": a_device(3600.0 * 3600, gain=0.1, name="NVIDIA H100"),
            "cpu0": a_device(3600.0 * 360, source="rapl", name="Xeon"),
        },
    )
    for name, value in changes.items():
        setattr(energy, name, value)
    return energy


def a_device(joules: float, **changes) -> DeviceEnergy:
    about = {"name": "board", "uuid": "GPU-0", "source": "nvml-counter", "provenance": "measured"}
    return DeviceEnergy(joules=joules, **(about | changes))


def bare(**changes) -> Record:
    """A record of which no sentence is to be said but the energy's."""
    nothing = {"energy": an_energy(), "accuracy": Accuracy(), "inherited": [], "sam": Sam(alpha=5.0, beta=5.0, unit="kWh")}
    return a_record(**(nothing | changes))


def cells(text: str, label: str) -> list[str]:
    """The row of a table that begins with this label."""
    (row,) = [line.split() for line in text.splitlines() if line.startswith(f"{label} ")]
    return row[1:]


def sentences(record: Record) -> list[str]:
    """What stands below the two tables."""
    return summary(record).rpartition("\n\n")[2].splitlines()


# ---- the tables ----


def test_energy_by_stage():
    text = summary(bare())
    assert cells(text, "stage") == ["kWh", "±", "kWh", "mean", "W", "s", "J/batch", "J/sample"]
    assert cells(text, "train") == ["3.6", "0.09", "4320", "3000.0", "129600", "8100"]
    assert cells(text, "other") == ["0.36", "0", "2160", "600.0", "-", "-"]
    assert cells(text, "total") == ["3.96", "0.4", "3960", "3600.0"]


@pytest.mark.parametrize(
    ("total_j", "unit", "shown"),
    [(7.2e6, "kWh", "2"), (7200.0, "Wh", "2"), (2.345678, "J", "2.346"), (0.0001234, "J", "0.0001234")],
)
def test_the_unit_of_the_tables_fits_the_total(total_j, unit, shown):
    energy = an_energy(total_j=total_j, by_stage={}, by_device={"gpu0": a_device(total_j)})
    text = summary(bare(energy=energy))
    assert (cells(text, "stage")[0], cells(text, "device")[0]) == (unit, unit)
    assert cells(text, "total")[0] == cells(text, "gpu0")[0] == shown


def test_energy_by_device():
    text = summary(bare())
    assert cells(text, "device") == ["kWh", "±", "kWh", "mean", "W", "source", "name"]
    assert cells(text, "gpu0") == ["3.6", "0.36", "3600", "nvml-counter", "NVIDIA", "H100"]
    assert cells(text, "cpu0") == ["0.36", "0.018", "360", "rapl", "Xeon"]


def test_a_stage_of_no_time_has_no_mean_power():
    text = summary(bare(energy=an_energy(by_stage={"train": Stage(joules=3600.0, seconds=0.0)})))
    assert cells(text, "train") == ["0.001", "0", "-", "0.0", "-", "-"]


def test_a_run_of_no_energy_is_a_table_of_zeros():
    """Nothing was used, which is not the same as nothing was measured."""
    text = summary(bare(energy=an_energy(total_j=0.0, uncertainty_j=0.0, by_stage={}, by_device={})))
    assert cells(text, "total") == ["0", "0", "-", "0.0"]
    assert "Energy 0 ± 0 J, measured." in text


# ---- the sentences ----


def test_the_energy_in_one_sentence_and_no_other():
    assert sentences(bare()) == ["Energy 3.96 ± 0.4 kWh, measured."]


@pytest.mark.parametrize("provenance", ["estimated", "mixed"])
def test_an_estimate_says_how_good_it_is(provenance):
    (sentence,) = sentences(bare(energy=an_energy(provenance=provenance)))
    assert sentence == (
        f"Energy 3.96 ± 0.4 kWh, {provenance}. An estimate is off by tens of percent: compare it with other estimates only."
    )


def test_what_was_inherited():
    inherited = [Inherited(path="a", total_j=3600.0 * 40), Inherited(path="b", total_j=3600.0 * 1000)]
    assert sentences(bare(inherited=inherited))[1:] == ["Inherited 1.04 kWh ± unknown; with it 5 kWh ± unknown."]
    for run in inherited:
        run.uncertainty_j = run.gain_j = run.total_j / 10
    assert sentences(bare(inherited=inherited))[1:] == ["Inherited 1.04 ± 0.1 kWh; with it 5 ± 0.5 kWh."]
    assert sentences(bare(inherited=[Inherited(path="a", total_j=0.0)]))[1:] == []


def test_what_a_resumed_run_resumed_from_and_wasted():
    lost = [LostWork(session="a", directory="runs/3", status="killed", joules=7200.0, seconds=12.34)]
    assert sentences(bare(resumed_j=3600.0, wasted_j=7200.0, lost=lost))[1:] == [
        "Of it, 0.001 kWh up to the checkpoint that it resumed from, and 0.002 kWh wasted after checkpoints.",
        "Wasted: 0.002 kWh in 12.3 s, killed, runs/3",
    ]
    assert sentences(bare(resumed_j=3600.0))[1:] == [
        "Of it, 0.001 kWh up to the checkpoint that it resumed from, and 0 kWh wasted after checkpoints."
    ]


def test_co2e():
    assert sentences(bare(co2e_g=1900.8, carbon_intensity=400.0, pue=1.2))[1:] == [
        "CO2e 1901 g, at 400 g/kWh and a PUE of 1.2."
    ]


def test_cost():
    assert sentences(bare(cost=1.4256, electricity_price=0.3, pue=1.2))[1:] == ["Cost 1.426, at 0.3 a kWh and a PUE of 1.2."]


def test_the_idle_power_before_the_run():
    """It is in the energy and not taken off: 50 W over the run's hour are 50 Wh."""
    (sentence,) = sentences(bare(idle=Idle(seconds=10.0, power_w={"gpu0": 40.0, "cpu0": 10.0})))[1:]
    assert sentence.startswith("Idle 50 W, over 10 s before the run; for the run's 3600 s that is 0.05 kWh. ")
    assert "not taken off" in sentence


def test_the_accuracy_and_sam():
    sam = Sam(alpha=5.0, beta=2.5, unit="Wh", value=0.4567891, uncertainty=0.0, shifted=0.3456789)
    assert sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.81234, best=0.9), sam=sam))[1:] == [
        "Accuracy 0.8123 (val_acc). SAM 0.4568 ± 0, shifted 0.3457; E in Wh, alpha 5, beta 2.5."
    ]


def test_sam_at_its_pole():
    sam = Sam(alpha=5.0, beta=5.0, unit="kWh", value=None, shifted=1.5)
    (sentence,) = sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.8), sam=sam))[1:]
    assert "SAM undefined (at or below 1 kWh), shifted 1.5;" in sentence


def test_a_small_sam_keeps_its_digits():
    """The accuracy of an untrained classifier of a thousand classes."""
    sam = Sam(alpha=5.0, beta=5.0, unit="Wh", value=1.234567e-9, uncertainty=1e-11, shifted=0.00012345)
    (sentence,) = sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.1), sam=sam))[1:]
    assert "SAM 1.235e-09 ± 1e-11, shifted 0.0001234;" in sentence


def test_an_accuracy_without_energy_has_no_sentence():
    assert sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.8)))[1:] == []


def test_the_parts_of_the_training_steps():
    parts = {"forward": StepPart(joules=30.0, seconds=1.0), "backward": StepPart(joules=70.0, seconds=2.0)}
    assert sentences(bare(parts=parts))[1:] == ["Training steps: forward 30%, backward 70%."]
    assert sentences(bare(parts={"forward": StepPart(joules=0.0, seconds=0.0)}))[1:] == ["Training steps: forward 0%."]


def test_a_devices_note():
    devices = {"gpu0": a_device(1.0, note="shared by 2 slices"), "gpu1": a_device(1.0)}
    assert sentences(bare(energy=an_energy(by_device=devices)))[1:] == ["gpu0: shared by 2 slices"]


def test_what_is_missing():
    assert sentences(bare(missing=["cpu0: no access.", "gpu1: lost."]))[1:] == [
        "Missing: cpu0: no access.",
        "Missing: gpu1: lost.",
    ]


def test_an_estimate_lists_only_what_the_user_asked_for():
    """The user was warned of that, so it is among the warnings too."""
    record = bare(energy=an_energy(provenance="estimated"), missing=["gpu: none.", "rapl: no access."])
    record.warnings = ["gpu: none."]
    assert sentences(record)[1:] == ["Missing: gpu: none."]


def test_all_sentences_are_in_one_order():
    record = bare(
        inherited=[Inherited(path="a", total_j=1.0)],
        resumed_j=1.0,
        co2e_g=1.0,
        carbon_intensity=1.0,
        cost=1.0,
        electricity_price=1.0,
        idle=Idle(seconds=1.0, power_w={}),
        accuracy=Accuracy(metric="acc", last=0.5),
        sam=Sam(alpha=5.0, beta=5.0, unit="kWh", shifted=0.1),
        parts={"forward": StepPart(joules=1.0, seconds=1.0)},
        missing=["cpu0: no access."],
    )
    first_words = [sentence.split()[0].rstrip(",:") for sentence in sentences(record)]
    assert first_words == ["Energy", "Inherited", "Of", "CO2e", "Cost", "Idle", "Accuracy", "Training", "Missing"]


def test_what_is_typical_stands_beside_what_cannot_be_excluded():
    (sentence,) = sentences(bare(energy=an_energy(typical_j=3600.0 * 130)))
    assert sentence == (
        "Energy 3.96 ± 0.4 kWh, measured. The ± is what cannot be excluded; where the like was checked with a meter, "
        "± 0.13 kWh was typical."
    )
    assert sentences(bare(energy=an_energy(typical_j=3600.0 * 390))) == ["Energy 3.96 ± 0.4 kWh, measured."]


def test_a_stage_whose_plus_or_minus_is_larger_than_it_is_explained():
    stages = {
        "train": Stage(joules=3600.0 * 3500, seconds=3000.0, uncertainty_j=3600.0 * 300),
        "test": Stage(joules=3600.0, seconds=0.1, uncertainty_j=7200.0),
        "other": Stage(joules=-0.5, seconds=0.0, uncertainty_j=3600.0),
    }
    assert sentences(bare(energy=an_energy(by_stage=stages)))[1:] == [
        "Too short to be known well, at most: test 0.003 kWh, other 0.001 kWh."
    ]


def test_the_plus_or_minus_of_sam():
    sam = Sam(alpha=5.0, beta=5.0, unit="kWh", value=2.0, shifted=1.5, uncertainty=0.123, shifted_uncertainty=0.0456)
    (sentence,) = sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.8), sam=sam))[1:]
    assert "SAM 2 ± 0.12, shifted 1.5 ± 0.046;" in sentence
    sam.uncertainty = None  # nothing is made up of a record that does not say
    (sentence,) = sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.8), sam=sam))[1:]
    assert "SAM 2, shifted" in sentence
    wide = an_energy(total_j=7.2e6, uncertainty_j=4e6)
    (sentence,) = sentences(bare(accuracy=Accuracy(metric="val_acc", last=0.8), sam=sam, energy=wide))[1:]
    assert "SAM 2 (its energy may be 1 kWh, where SAM has no limit), shifted" in sentence


# ---- nothing was measured ----


@pytest.mark.parametrize(
    ("missing", "why"),
    [([], "There is no source."), (["gpu: no driver.", "cpu: no access."], "gpu: no driver. cpu: no access.")],
)
def test_without_energy_there_is_the_reason_and_no_zero(missing, why):
    record = bare(energy=an_energy(total_j=None), missing=missing)
    assert summary(record) == f"No energy was measured. {why}"
    assert summary_html(record) == f"<p>No energy was measured. {why}</p>"


# ---- a notebook ----


def test_the_html_has_the_same_numbers_and_sentences():
    record = bare(missing=["cpu0: no access."], cost=1.0, electricity_price=0.3)
    html = summary_html(record)
    assert html.count("<table>") == 2
    rows = [[cell.strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in html.split("<tr>")]
    assert ["train", *cells(summary(record), "train")] in rows
    assert ["cpu0", *cells(summary(record), "cpu0")] in rows
    assert unescape(re.search("<p>(.*?)</p>", html)[1]).split("<br>") == sentences(record)
    # The button copies the text.
    assert unescape(re.search("<pre hidden>(.*?)</pre>", html, re.DOTALL)[1]) == summary(record).strip()


@pytest.mark.parametrize(
    "changes",
    [
        {"energy": an_energy(by_stage={HOSTILE: Stage(joules=1.0, seconds=1.0)})},
        {"energy": an_energy(by_device={HOSTILE: a_device(1.0)})},
        {"energy": an_energy(by_device={"gpu0": a_device(1.0, name=HOSTILE)})},
        {"energy": an_energy(by_device={"gpu0": a_device(1.0, source=HOSTILE)})},
        {"energy": an_energy(by_device={"gpu0": a_device(1.0, note=HOSTILE)})},
        {"energy": an_energy(total_j=None), "missing": [HOSTILE]},
        {"missing": [HOSTILE]},
        {"lost": [LostWork(session="a", directory=HOSTILE, status="x", joules=1.0, seconds=1.0)], "wasted_j": 1.0},
        {"lost": [LostWork(session="a", directory="x", status=HOSTILE, joules=1.0, seconds=1.0)], "wasted_j": 1.0},
        {
            "accuracy": Accuracy(metric=HOSTILE, last=0.5),
            "sam": Sam(alpha=5.0, beta=5.0, unit="kWh", shifted=0.1),
        },
        {"parts": {HOSTILE: StepPart(joules=1.0, seconds=1.0)}},
    ],
)
def test_nothing_of_a_record_runs_in_a_notebook(changes):
    html = summary_html(bare(**changes))
    assert "<script" not in html
    assert HOSTILE in unescape(html)


# ---- printing ----


def test_in_one_line():
    used = "energy 3.96 ± 0.4 kWh, measured, in 3600 s"
    assert line(bare(status="completed")) == f"E{used[1:]}."
    assert line(bare(status="failed")) == f"Failed; {used}."
    found = bare(status="completed", accuracy=Accuracy(metric="val_acc", last=0.81234))
    assert line(found) == f"E{used[1:]}; accuracy 0.8123 (val_acc)."
    unmeasured = Energy(total_j=None, total_kwh=None, uncertainty_j=None, provenance=None)
    assert line(bare(energy=unmeasured, missing=["No access."])) == "No energy was measured. No access."


def test_in_one_line_after_an_earlier_one():
    """What has been added is said by the stages that had batches since."""
    before = {"train": Stage(joules=3600.0 * 3500, seconds=2900.0, batches=90)}
    assert line(bare(status="completed"), before) == "Train 0.1 kWh; in all energy 3.96 ± 0.4 kWh, measured, in 3600 s."


def test_a_text_is_printed(capsys):
    say("Energy 1 J.")
    assert capsys.readouterr().out == "Energy 1 J.\n"


def test_a_terminal_of_ascii_gets_ascii(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    say(summary(bare(missing=["Gerät: €"])))
    assert b"Energy 3.96 +- 0.4 kWh, measured." in raw.getvalue()
    assert b"Missing: Ger?t: ?" in raw.getvalue()


def test_a_stream_that_is_closed_is_left_alone(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    say(summary(bare()))


def test_a_pipe_without_a_reader_is_left_alone(monkeypatch):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    say(summary(bare()))
