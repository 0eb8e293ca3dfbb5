"""A run for a paper, checked against its record by hand: sentences, LaTeX, BibTeX, model card."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from lightning_watt.record import Accuracy, DeviceEnergy, Energy, Inherited, Record, Stage
from lightning_watt.record.text.statement import statement
from lightning_watt.sources.base import Gap
from tests.unit.record.made import a_record

ROOT = Path(__file__).parents[3]


def a_board(uuid: str) -> DeviceEnergy:
    return DeviceEnergy(joules=1.8e6, name="NVIDIA A100", uuid=uuid, source="nvml-counter", provenance="measured", gain=0.05)


def a_run(**changes) -> Record:
    """Two hours on two boards: 1 kWh, of which a twentieth is the boards' error and a hundredth that of the edges."""
    energy = Energy(
        total_j=3.6e6,
        total_kwh=1.0,
        uncertainty_j=0.051 * 3.6e6,
        gain_j=0.05 * 3.6e6,
        boundary_j=0.01 * 3.6e6,
        provenance="measured",
        by_stage={"train": Stage(joules=3.6e6, seconds=7200.0)},
        by_device={"gpu0": a_board("GPU-0"), "gpu1": a_board("GPU-1")},
    )
    about = {
        "energy": energy,
        "status": "completed",
        "inherited": [],
        "software": {"lightning_watt": "0.1.0"},
        "model": {"name": "resnet_50 & co"},
        "accuracy": Accuracy(metric="val_acc", last=0.7613),
    }
    return a_record(**(about | changes))


def test_two_sentences_say_all_that_a_reviewer_asks():
    assert statement(a_run()).text == (
        "This run used 1 ± 0.051 kWh of electricity in 2 hours on 2 × NVIDIA A100, measured by the energy counters of the "
        "boards (NVML); CPUs, memory, power supplies, fans, disks, the network and cooling are not included. It was "
        "recorded with lightning_watt 0.1.0; the ± holds the error of the sensors (5 %) and of the edges of the "
        "measurement (1 %)."
    )


def test_co2e_has_its_source_and_its_plus_minus():
    said = statement(
        a_run(co2e_g=457.2, carbon_intensity=381.0, carbon_source="mean of Germany, 2023", country="Germany", pue=1.2)
    )
    assert said.text.endswith(
        "(1 %); at 381 g of CO2e a kWh (mean of Germany, 2023) and a PUE of 1.2 that is 457.2 ± 23 g of CO2e."
    )
    block = yaml.safe_load(said.model_card)["co2_eq_emissions"]
    assert block == {
        "emissions": 457.2,
        "source": "lightning_watt 0.1.0, measured; 381 g/kWh (mean of Germany, 2023), PUE 1.2",
        "training_type": "pre-training",
        "geographical_location": "Germany",
        "hardware_used": "2 × NVIDIA A100",
    }


def test_a_resumed_run_that_started_from_another_says_both():
    said = statement(a_run(status="interrupted", wasted_j=3.6e4, inherited=[Inherited(path="p", total_j=7.2e6)]))
    assert said.text.startswith("This run, which has the status 'interrupted', used 1 ± 0.051 kWh")
    unknown = "(its ± is not known)"
    assert (
        f"Not in it are the 2 kWh {unknown} of the run that it started from; with them it is 3 kWh {unknown}." in said.text
    )
    assert "In it are 0.01 kWh whose result was lost" in said.text
    assert 'training_type: "fine-tuning"' in said.model_card


def test_what_was_inherited_has_its_plus_minus():
    known = Inherited(path="p", total_j=7.2e6, uncertainty_j=0.36e6, gain_j=0.36e6)
    said = statement(a_run(inherited=[known])).text
    assert "the 2 ± 0.1 kWh of the run that it started from; with them it is 3 ± 0.15 kWh." in said


def test_all_sentences_have_one_unit():
    gap = Gap(device="gpu0", seconds=1.0, joules=9000.0, why="")
    run = a_run(slurm_j=4e6, wasted_j=36e3, inherited=[Inherited(path="p", total_j=9e4)], gaps=[gap])
    said = statement(run).text
    assert len(re.findall(r" kWh\b", said)) == 6
    assert not re.search(r"\d (J|Wh)\b", said)


def test_an_estimate_is_called_one_everywhere():
    run = a_run()
    run.energy.provenance = "estimated"
    run.energy.by_device = {
        "cpu0": DeviceEnergy(joules=3.6e6, name="x86_64", uuid="e", source="estimate", provenance="estimated", gain=0.5)
    }
    said = statement(run)
    assert "on x86_64, estimated from busy CPU time; memory, power supplies" in said.text
    assert r"\SI{1 \pm 0.051}{\kilo\watt\hour} (estimated)" in said.latex
    assert "lightning_watt 0.1.0, estimated" in said.model_card


def test_the_row_is_latex_whatever_the_run_is_called():
    row = statement(a_run(), "a_b\\c%").latex.splitlines()[1]
    assert row == (
        r"a\_b\textbackslash{}c\% & 0.7613 & \SI{1 \pm 0.051}{\kilo\watt\hour} & \SI{7200}{\second} & "
        r"2 $\times$ NVIDIA A100 \\"
    )
    assert statement(a_run()).latex.splitlines()[1].startswith(r"resnet\_50 \& co & ")


def test_without_energy_it_says_so():
    run = a_run(missing=["nvml: no driver."])
    run.energy.total_j = None
    assert statement(run).text == "No energy was measured. nvml: no driver."
    assert " & -- & -- & -- " in statement(run).latex


def test_without_an_intensity_the_card_says_what_to_give():
    said = statement(a_run())
    assert "emissions" not in yaml.safe_load(said.model_card)["co2_eq_emissions"]
    assert "# emissions: not known without the CO2e of a kWh" in said.model_card


def test_the_card_calls_no_test_and_no_program_a_training():
    run = a_run()
    run.energy.by_stage = {"test": run.energy.by_stage["train"]}
    assert "training_type" not in yaml.safe_load(statement(run).model_card)["co2_eq_emissions"]


def test_the_entries_are_those_of_the_citation_file():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    said = re.sub(r"\s+", " ", statement(a_run()).bibtex)
    assert f"author = {{{{{cited['authors'][0]['name']}}}}}" in said
    (paper,) = cited["references"]
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"author = {{{authors}}}" in said
    assert f"title = {{{paper['title']}}}" in said
    assert f"eprint = {{{paper['identifiers'][0]['value'].removeprefix('arXiv:')}}}" in said
    assert "note = {Version 0.1.0}" in said


@pytest.mark.parametrize(("seconds", "words"), [(59.96, "60 seconds"), (90.0, "1.5 minutes"), (36000.0, "10 hours")])
def test_time_is_in_a_unit_that_fits(seconds, words):
    run = a_run()
    run.energy.by_stage["train"].seconds = seconds
    assert f"in {words} on" in statement(run).text


def test_a_record_has_its_statement():
    assert str(a_run().statement("mine")).startswith("# Text\nThis run used 1 ± 0.051 kWh")
