"""What is printed at the end of a run: the energy of each stage and each device, with its plus or minus; or one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lightning_watt.record.plus_minus import PlusMinus, inherited_by, with_inherited
from lightning_watt.record.schema import RecordFields, Stage
from lightning_watt.record.text.drawn import Drawing
from lightning_watt.sam.score import unit_that_sees
from lightning_watt.tables import ratio
from lightning_watt.units import J_PER, EnergyUnit, digits, energy_in, unit_that_fits

MOST_OF_IT = 0.9
"""A typical error that is nearer to the largest one than this is not told apart from it."""


def drawing(record: RecordFields, notes: Sequence[str] = (), where: str = "") -> Drawing:
    """What is shown of a record: energy by stage, energy by device, and sentences about the rest.

    Args:
        record: the record.
        notes: further sentences.
        where: a last line.
    """
    if record.energy.total_j is None:
        return Drawing((), [nothing_measured(record)], where)
    return Drawing(_tables(record), [*_sentences(record), *notes], where)


def summary(record: RecordFields, notes: Sequence[str] = (), width: int | None = None) -> str:
    """The same as text, whose sentences are wrapped at a width, if one is given."""
    return drawing(record, notes).text(width)


def summary_html(record: RecordFields) -> str:
    """The same as HTML, for a notebook."""
    return drawing(record).html()


def line(record: RecordFields, before: Mapping[str, Stage] | None = None) -> str:
    """A record in one line.

    Args:
        record: the record.
        before: the energy by stage that was printed of this run before; None if nothing was.
    """
    energy, accuracy = record.energy, record.accuracy
    if energy.total_j is None:
        return nothing_measured(record)
    unit = unit_that_fits(energy.total_j)
    seconds = sum(stage.seconds for stage in energy.by_stage.values())
    status = "" if record.status == "completed" else f"{record.status}; "
    used = energy_in(unit, energy.total_j, energy.uncertainty_j or 0.0)
    text = f"{status}energy {used}, {energy.provenance}, in {digits(seconds, 3)} s"
    if before is not None:
        text = f"{', '.join(_since(energy.by_stage, before, unit))}; in all {text}"
    if accuracy.last is not None:
        text += f"; accuracy {accuracy.last:.4f} ({accuracy.metric})"
    return f"{text[0].upper()}{text[1:]}."


def _since(stages: Mapping[str, Stage], before: Mapping[str, Stage], unit: EnergyUnit) -> list[str]:
    """What each stage that had batches has used since."""
    nothing = Stage(joules=0.0, seconds=0.0)
    earlier = {name: before.get(name, nothing) for name in stages}
    return [
        f"{name} {energy_in(unit, stage.joules - earlier[name].joules)}"
        for name, stage in stages.items()
        if stage.batches > earlier[name].batches
    ]


def nothing_measured(record: RecordFields) -> str:
    """The sentence for a record without energy."""
    return "No energy was measured. " + (" ".join(record.missing) or "There is no source.")


def _tables(record: RecordFields) -> list[tuple[list[list[str]], list[str]]]:
    """Energy by stage, and by device, in the unit that fits the total."""
    energy = record.energy
    unit = unit_that_fits(energy.total_j or 0.0)
    size = J_PER[unit]
    total_s = sum(stage.seconds for stage in energy.by_stage.values())
    stages: list[list[str]] = [
        [
            name,
            *_sized(stage.joules, stage.uncertainty_j, size),
            ratio(stage.joules, stage.seconds),
            f"{stage.seconds:.1f}",
            ratio(stage.joules, stage.batches),
            ratio(stage.joules, stage.samples),
        ]
        for name, stage in energy.by_stage.items()
    ]
    total = [
        *_sized(energy.total_j or 0.0, energy.uncertainty_j or 0.0, size),
        ratio(energy.total_j or 0.0, total_s),
        f"{total_s:.1f}",
    ]
    stages.append(["total", *total, "", ""])
    devices = [
        [label, *_sized(d.joules, d.joules * d.gain, size), ratio(d.joules, total_s), d.source, d.name]
        for label, d in energy.by_device.items()
    ]
    return [
        (stages, ["stage", unit, f"± {unit}", "mean W", "s", "J/batch", "J/sample"]),
        (devices, ["device", unit, f"± {unit}", "mean W", "source", "name"]),
    ]


def _known(shown: Callable[..., str], joules: float, known: PlusMinus | None) -> str:
    return shown(joules, known.total_j) if known is not None else f"{shown(joules)} ± unknown"


def _sized(joules: float, plus_minus_j: float, size: float) -> list[str]:
    """Energy and its plus or minus, in a unit of so many joules."""
    return [digits(joules / size), digits(plus_minus_j / size, 2)]


def _sentences(record: RecordFields) -> list[str]:
    """The lines below the tables: the energy in one sentence, lineage, CO2e, cost, the accuracy and SAM, and notes."""
    energy, sam, accuracy = record.energy, record.sam, record.accuracy
    own_j = energy.total_j or 0.0
    unit = unit_that_fits(own_j)
    shown = partial(energy_in, unit)
    lines = [f"Energy {shown(own_j, energy.uncertainty_j or 0.0)}, {energy.provenance}."]
    if energy.typical_j is not None and energy.typical_j < MOST_OF_IT * (energy.uncertainty_j or 0.0):
        typical = f"{digits(energy.typical_j / J_PER[unit], 2)} {unit}"
        lines[0] += f" The ± is what cannot be excluded; where the like was checked with a meter, ± {typical} was typical."
    if energy.provenance != "measured":
        lines[0] += " An estimate is off by tens of percent: compare it with other estimates only."
    vague = {name: stage for name, stage in energy.by_stage.items() if stage.uncertainty_j > stage.joules}
    if vague:
        most = ", ".join(f"{name} {shown(max(0.0, one.joules) + one.uncertainty_j)}" for name, one in vague.items())
        lines.append(f"Too short to be known well, at most: {most}.")
    inherited_j, of_inherited = inherited_by(record)
    if inherited_j:
        whole_j, of_whole = with_inherited(record)
        lines.append(f"Inherited {_known(shown, inherited_j, of_inherited)}; with it {_known(shown, whole_j, of_whole)}.")
    if record.resumed_j or record.wasted_j:
        resumed, wasted = shown(record.resumed_j), shown(record.wasted_j)
        lines.append(f"Of it, {resumed} up to the checkpoint that it resumed from, and {wasted} wasted after checkpoints.")
        lines += [f"Wasted: {shown(w.joules)} in {w.seconds:.1f} s, {w.status}, {w.directory}" for w in record.lost]
    if record.co2e_g is not None and record.carbon_intensity is not None:
        country = f" ({record.carbon_source})" if record.country else ""
        intensity = f"{record.carbon_intensity:g} g/kWh{country}"
        lines.append(f"CO2e {digits(record.co2e_g)} g, at {intensity} and a PUE of {record.pue:g}.")
    if record.cost is not None and record.electricity_price is not None:
        lines.append(f"Cost {digits(record.cost)}, at {record.electricity_price:g} a kWh and a PUE of {record.pue:g}.")
    if record.idle is not None:
        idle_w = sum(record.idle.power_w.values())
        run_s = sum(stage.seconds for stage in energy.by_stage.values())
        lines.append(
            f"Idle {idle_w:.4g} W, over {record.idle.seconds:.3g} s before the run; for the run's {run_s:.4g} s that is "
            f"{shown(idle_w * run_s)}. The numbers above contain it, as all that devices draw: it is not taken off."
        )
    if record.slurm_j is not None:
        lines.append(
            f"Slurm had counted {shown(record.slurm_j)} for its job {record.hardware.get('slurm_job_id')} by then: whole "
            "nodes, whoever else ran on them."
        )
    if accuracy.last is not None and sam.shifted is not None:
        value = f"undefined (at or below 1 {sam.unit})" if sam.value is None else _score(sam.value, sam.uncertainty)
        if sam.value is not None and own_j - (energy.uncertainty_j or 0.0) <= J_PER[sam.unit]:
            value += f" (its energy may be 1 {sam.unit}, where SAM has no limit)"
        shifted = _score(sam.shifted, sam.shifted_uncertainty)
        lines.append(
            f"Accuracy {accuracy.last:.4f} ({accuracy.metric}). SAM {value}, shifted {shifted}; "
            f"E in {sam.unit}, alpha {sam.alpha:g}, beta {sam.beta:g}."
        )
        better = unit_that_sees(own_j)
        if sam.value is None and better != sam.unit:
            lines[-1] += (
                f' E is so small there that accuracy alone ranks the shifted one: sam_unit="{better}" sees this energy.'
            )
    if record.parts:
        whole_j = sum(part.joules for part in record.parts.values()) or 1.0
        shares = ", ".join(f"{name} {part.joules / whole_j:.0%}" for name, part in record.parts.items())
        lines.append(f"Training steps: {shares}.")
    lines += [f"{label}: {device.note}" for label, device in energy.by_device.items() if device.note]
    # An estimate shows that nothing was measured. So only what the user asked for is listed as missing there.
    estimated = energy.provenance == "estimated"
    lines += [f"Missing: {missing}" for missing in record.missing if not estimated or missing in record.warnings]
    return lines


def _score(value: float, plus_minus: float | None) -> str:
    return digits(value) if plus_minus is None else f"{digits(value)} ± {digits(plus_minus, 2)}"
