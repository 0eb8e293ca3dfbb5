"""A run in words for a paper: sentences, a row of a LaTeX table, BibTeX, and the block of a Hugging Face model card.

Everything in them is taken from the record; what the record does not know is left out or said to be unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lightning_watt.record.plus_minus import PlusMinus, inherited_by, with_inherited
from lightning_watt.record.schema import Energy, RecordFields
from lightning_watt.record.text.summary import MOST_OF_IT, nothing_measured
from lightning_watt.units import J_PER, digits, energy_in, unit_that_fits

WAYS = {
    "nvml-counter": "by the energy counters of the boards (NVML)",
    "nvml-power": "by the power samples of the boards (NVML)",
    "rapl": "by RAPL",
    "estimate": "from busy CPU time",
}
SI = {"kWh": r"\kilo\watt\hour", "Wh": r"\watt\hour", "J": r"\joule"}
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
BIBTEX = r"""@misc{lightning_watt,
  author = {{The lightning_watt authors}},
  title = {lightning\_watt: an energy callback for {PyTorch} {Lightning}},
  note = {Version %s}
}
@misc{gowda2023watt,
  author = {Gowda, Shreyank N. and Hao, Xinyue and Li, Gen and Gowda, Shashank Narayana and Jin, Xiaobo and
    Sevilla-Lara, Laura},
  title = {Watt For What: Rethinking Deep Learning's Energy-Performance Relationship},
  year = {2023},
  eprint = {2310.06522},
  archivePrefix = {arXiv}
}"""


@dataclass(frozen=True)
class Statement:
    """One run for a paper.

    Attributes:
        text: two sentences, and one more for each thing that a reader must know.
        latex: a row of a table whose units are siunitx's, below a comment that names the columns.
        bibtex: this project's entry, and that of the paper that SAM is from.
        model_card: the block `co2_eq_emissions` of a model card's metadata, as YAML.
    """

    text: str
    latex: str
    bibtex: str
    model_card: str

    def __str__(self) -> str:
        """All of it, below headings."""
        parts = {"Text": self.text, "LaTeX": self.latex, "BibTeX": self.bibtex, "Model card": self.model_card}
        return "\n\n".join(f"# {name}\n{part}" for name, part in parts.items())


def statement(record: RecordFields, name: str = "") -> Statement:
    """Put a run into words.

    Args:
        record: the run's record.
        name: what the run is called in the table; by default its model.
    """
    version = str(record.software.get("lightning_watt") or "of unknown version")
    name = name or str(record.model.get("name") or "run")
    return Statement(
        text=_text(record, version),
        latex=_latex(record, name),
        bibtex=BIBTEX % version,
        model_card=_model_card(record, version),
    )


# -- sentences --------------------------------------------------------------------------------------------------------


def _text(record: RecordFields, version: str) -> str:
    energy = record.energy
    if energy.total_j is None:
        return nothing_measured(record)
    shown = partial(energy_in, unit_that_fits(energy.total_j))  # one unit in all sentences
    is_measured = energy.provenance == "measured"
    verb = {"measured": "measured", "estimated": "estimated", "mixed": "partly measured and partly estimated"}
    what = "the sensors" if is_measured else "the estimate"
    whole = "This run" if record.status == "completed" else f"This run, which has the status {record.status!r},"
    sentences = [
        f"{whole} used {shown(energy.total_j, energy.uncertainty_j or 0.0)} of electricity in {_duration(record)} on "
        f"{_listed(device_names(record.energy))}, "
        f"{verb[energy.provenance or 'measured']} {_ways(record)}; {_left_out(record)} are not included.",
        f"It was recorded with lightning_watt {version}; the ± holds the error of {what} "
        f"({_share(energy.gain_j, energy.total_j)}) and of the edges of the measurement "
        f"({_share(energy.boundary_j, energy.total_j)}){_building(record, shown)}.",
    ]
    if energy.typical_j is not None and energy.typical_j < MOST_OF_IT * (energy.uncertainty_j or 0.0):
        typical = _share(energy.typical_j, energy.total_j)
        sentences.append(
            f"That ± is what cannot be excluded; where the like was checked with a meter, {typical} was typical."
        )
    if record.slurm_j is not None:
        sentences.append(
            f"Slurm had counted {shown(record.slurm_j)} for its job by then, of whole nodes, whoever else ran on them."
        )
    inherited_j, of_inherited = inherited_by(record)
    if inherited_j:
        runs = "the run" if len(record.inherited) == 1 else f"the {len(record.inherited)} runs"
        whole_j, of_whole = with_inherited(record)
        sentences.append(
            f"Not in it are the {_known(shown, inherited_j, of_inherited)} of {runs} that it started from; with them it is "
            f"{_known(shown, whole_j, of_whole)}."
        )
    if record.wasted_j:
        sentences.append(f"In it are {shown(record.wasted_j)} whose result was lost when the run was interrupted.")
    if record.gaps:
        filled_j = sum(gap.joules for gap in record.gaps)
        sentences.append(f"In it are {shown(filled_j)} that were filled in where readings were missing.")
    missing = [reason for reason in record.missing if not reason.startswith("rapl:")]  # "CPUs" are named above
    if missing and is_measured:
        sentences.append(f"Not measured: {' '.join(missing)}")
    return " ".join(sentences)


def _known(shown: Callable[..., str], joules: float, known: PlusMinus | None) -> str:
    """An energy of several runs, as far as what is uncertain of it is known."""
    return shown(joules, known.total_j) if known is not None else f"{shown(joules)} (its ± is not known)"


def _share(joules: float, of_j: float) -> str:
    return f"{digits(100 * joules / of_j, 2)} %" if of_j else "unknown"


def _seconds(record: RecordFields) -> float:
    return sum(stage.seconds for stage in record.energy.by_stage.values())


def _duration(record: RecordFields) -> str:
    passed_s = _seconds(record)
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if passed_s >= size:
            return f"{digits(passed_s / size, 3)} {unit}"
    return f"{digits(passed_s, 3)} seconds"


def device_names(energy: Energy) -> list[str]:
    """The devices that an energy is of, each kind once: `["2 × NVIDIA A100", "x86_64"]`."""
    names = Counter(device.name or label for label, device in energy.by_device.items())
    return [f"{count} × {name}" if count > 1 else name for name, count in names.items()]


def _ways(record: RecordFields) -> str:
    sources = dict.fromkeys(device.source for device in record.energy.by_device.values())
    return _listed([WAYS.get(source, f"through {source}") for source in sources])


def _left_out(record: RecordFields) -> str:
    kinds = {label.rpartition("/")[2].rstrip("0123456789") for label in record.energy.by_device}
    no_cpu = [] if "cpu" in kinds else ["CPUs"]
    no_memory = [] if "dram" in kinds else ["memory"]
    return _listed([*no_cpu, *no_memory, "power supplies", "fans", "disks", "the network", "cooling"])


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _building(record: RecordFields, shown: Callable[..., str]) -> str:
    """What the building used, or its CO2e, where that is known."""
    total_j, plus_minus_j = record.energy.total_j or 0.0, record.energy.uncertainty_j or 0.0
    if record.co2e_g is None or record.carbon_intensity is None:
        whole = shown(record.pue * total_j, record.pue * plus_minus_j)
        return f"; with a PUE of {record.pue:g} that is {whole} of the building" if record.pue != 1 else ""
    grams = record.co2e_g
    spread = grams * plus_minus_j / total_j if total_j else 0.0
    size, unit = (1000.0, "kg") if grams >= 1000 else (1.0, "g")
    source = f" ({record.carbon_source})" if record.country else ""
    return (
        f"; at {record.carbon_intensity:g} g of CO2e a kWh{source} and a PUE of {record.pue:g} that is "
        f"{digits(grams / size)} ± {digits(spread / size, 2)} {unit} of CO2e"
    )


# -- for other programs -----------------------------------------------------------------------------------------------


def _latex(record: RecordFields, name: str) -> str:
    energy = record.energy
    cells = [_escaped(name), "--", "--", "--", "--"]
    if record.accuracy.last is not None:
        cells[1] = f"{record.accuracy.last:.4f}"
    if energy.total_j is not None:
        unit = unit_that_fits(energy.total_j)
        value, spread = digits(energy.total_j / J_PER[unit]), digits((energy.uncertainty_j or 0.0) / J_PER[unit], 2)
        mark = "" if energy.provenance == "measured" else f" ({energy.provenance})"
        cells[2:] = [
            rf"\SI{{{value} \pm {spread}}}{{{SI[unit]}}}{mark}",
            rf"\SI{{{digits(_seconds(record), 4)}}}{{\second}}",
            _escaped(_listed(device_names(energy))).replace("×", r"$\times$"),
        ]
    return "% \\usepackage{siunitx}; columns: run & accuracy & energy & time & devices\n" + " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in text)


def _model_card(record: RecordFields, version: str) -> str:
    lines = ["co2_eq_emissions:"]
    if record.co2e_g is not None:
        lines.append(f"  emissions: {digits(record.co2e_g)}  # grams")
    else:
        lines.append("  # emissions: not known without the CO2e of a kWh: give carbon_intensity= or --carbon-intensity")
    how = f"lightning_watt {version}, {record.energy.provenance or 'nothing measured'}"
    if record.co2e_g is not None:
        how += f"; {record.carbon_intensity:g} g/kWh ({record.carbon_source}), PUE {record.pue:g}"
    lines.append(f"  source: {json.dumps(how, ensure_ascii=False)}")
    if "train" in record.energy.by_stage:  # a test, or any program, is no training
        lines.append(f'  training_type: "{"fine-tuning" if record.inherited else "pre-training"}"')
    if record.country:
        lines.append(f"  geographical_location: {json.dumps(record.country, ensure_ascii=False)}")
    lines.append(f"  hardware_used: {json.dumps(_listed(device_names(record.energy)), ensure_ascii=False)}")
    return "\n".join(lines)
