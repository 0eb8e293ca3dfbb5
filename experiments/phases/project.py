"""Projection: what a whole training would cost, from a warm-up and some rounds of training and validation."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from experiments.data.base import ImageData
from experiments.job import Job, Outcome
from experiments.modules.batches import Split
from experiments.modules.recipe import Recipe
from experiments.phases.measure import meter_for
from experiments.projection.conditions import said_of
from experiments.projection.excerpt import MOST_ROUNDS, Excerpt, Sampling
from experiments.projection.interval import Plan, Projection, project_rounds
from experiments.report.inputs.projected import FILE_NAME, PHASE
from experiments.restart.resume import LAST
from lightning_watt import WattCallback
from lightning_watt.units import digits, human_energy, kwh

QUEUED = 2
"""Batches that each worker of a loader has ready, torch's `prefetch_factor`."""


def project(
    job: Job,
    *,
    of: str,
    sampling: Sampling,
    pretrain: Callable[[Job], Outcome],
    finetune: Callable[[Job], Outcome],
    images: int | None = None,
    val_images: int | None = None,
    round: int = 0,
) -> Outcome:
    """Measure a part of a training, and project its whole schedule from that.

    The record is that of the part. The projection is beside it, in `projection.json`. A part of a training is of no use as
    weights, so its checkpoints are removed.

    Args:
        job: the config and the directory.
        of: "pretrain" or "finetune": which training.
        sampling: how much of it is measured.
        pretrain: the one phase, with its options bound.
        finetune: the other.
        images: training images of an epoch; None: as many as the data has.
        val_images: images of a validation; None: as many as the data has.
        round: which repetition this is.

    Returns:
        `projected_kwh` with `projected_plus_minus_kwh`, `projected_hours`, `projected_j_per_sample`, and `projected_co2e_kg`
        and `projected_cost` if `watt.carbon_intensity` and `watt.electricity_price` are given.

    Raises:
        ValueError: if nothing is measured, or what is asked for cannot be projected.
    """
    phases = {"pretrain": pretrain, "finetune": finetune}
    if of not in phases:
        raise ValueError(f"phase.of={of} cannot be projected; these can: {', '.join(phases)}.")
    if not job.cfg.watt:
        raise ValueError("A projection is of energy, and watt=none measures none: leave watt= away.")
    if job.cfg.trainer.num_nodes > 1:
        raise ValueError("A projection measures the devices of one node: leave trainer.num_nodes at 1.")
    if job.cfg.trainer.get("val_check_interval") is not None:
        raise ValueError("A projection is of trainings that validate after whole epochs: leave val_check_interval away.")
    part = Part(sampling, images, val_images, round)
    return phases[of](dataclasses.replace(job, instead_of_fit=part.measure))


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a training that is measured, and the schedule of the whole.

    Args:
        sampling: how much is measured.
        images: training images of an epoch of the whole; None: as many as the data has.
        val_images: images of a validation; None: as many as the data has.
        round: which repetition this is.
    """

    sampling: Sampling
    images: int | None
    val_images: int | None
    round: int

    def measure(
        self,
        job: Job,
        module: pl.LightningModule,
        data: ImageData,
        recipe: Recipe,
        callbacks: Sequence[Callback] = (),
    ) -> Outcome:
        """Train a module for some rounds, in the place of a training, and project the whole from them."""
        facts = module.watt_model_info
        of = facts["phase"]
        facts |= {"phase": PHASE, "projects": of, "name": f"{facts['name']}, a part of its {of}"}
        excerpt = Excerpt(self.sampling, skip=QUEUED * job.cfg.num_workers)
        # As many epochs as it takes. The rate's schedule is longer so, which changes no step's work.
        longer = dataclasses.replace(recipe, epochs=max(recipe.epochs, MOST_ROUNDS))
        trainer = job.trainer(longer, [excerpt, *callbacks])
        split = job.divide(trainer, module, data, longer)
        whole_epoch = trainer.limit_train_batches
        trainer.limit_train_batches = excerpt.batches(whole_epoch, split.accumulate)
        trainer.limit_val_batches = _limited(self.sampling.val_batches, job.cfg.trainer.limit_val_batches)
        job.log_config(trainer, module, recipe)
        with meter_for(job) if rank_zero_only.rank == 0 else nullcontext() as meter:
            excerpt.begin(meter)
            trainer.fit(module, datamodule=data)
            shutil.rmtree(job.directory / LAST.parent, ignore_errors=True)
            if meter is None:
                return Outcome(job.directory)
            plan = self._plan(job, trainer, recipe, split, whole_epoch)
            joules, gain_j = meter.total.joules, meter.total.gain_j
            projection = project_rounds(
                excerpt.rounds,
                excerpt.start,
                excerpt.warm_ups,
                plan,
                gain=gain_j / joules if joules else 0.0,
                block_s=excerpt.block_s,
            )
            about = said_of(*excerpt.conditions)
        content = _plain(projection, plan, split, excerpt) | _priced(projection, trainer) | about
        content |= {"of": of, "round": self.round, "setup": _setup(job, recipe, split)}
        (job.directory / FILE_NAME).write_text(json.dumps(content, indent=2) + "\n")
        return Outcome(job.directory, None, _metrics(content), note=_sentence(content))

    def _plan(self, job: Job, trainer: pl.Trainer, recipe: Recipe, split: Split, whole_epoch: int | float | None) -> Plan:
        """The whole training, in batches of one device."""
        given = job.cfg.trainer
        loaders = trainer.val_dataloaders
        loaders = loaders if isinstance(loaders, list) else [] if loaders is None else [loaders]
        try:
            train = split.steps(self.images) if self.images else _limited(len(trainer.train_dataloader), whole_epoch)
            validation = sum(len(loader) for loader in loaders)
        except TypeError:
            raise ValueError(
                "The data does not say how long an epoch is. Say it: phase.images=N phase.val_images=N."
            ) from None
        if self.val_images and loaders:
            validation = math.ceil(self.val_images / (split.micro * split.devices))
        validation = _limited(validation, given.limit_val_batches)
        validations = recipe.epochs // (given.get("check_val_every_n_epoch") or 1) if validation else 0
        return Plan(recipe.epochs, train, validations, validation)


def _limited(batches: int, limit: int | float | None) -> int:
    """Batches under one of the Trainer's limits: a count, a share of them, or none."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def _plain(projection: Projection, plan: Plan, split: Split, excerpt: Excerpt) -> dict[str, Any]:
    """A projection as its file holds it."""
    energy, duration, rounds = projection.energy, projection.duration, excerpt.rounds
    return {
        "is": "projected",
        "energy_j": energy.value,
        "plus_minus_j": energy.plus_minus,
        "gain_j": projection.gain_j,
        "once_j": projection.once_j,
        "low_j": max(0.0, energy.value - projection.plus_minus_j),
        "high_j": energy.value + projection.plus_minus_j,
        "duration_s": duration.value,
        "duration_plus_minus_s": duration.plus_minus,
        "samples": plan.epochs * plan.train_batches * split.micro * split.devices,
        "updates": plan.epochs * plan.train_batches // split.accumulate,
        **plan._asdict(),
        "measured": {
            "energy_j": math.fsum(one.whole.joules for one in rounds) + excerpt.start.joules,
            "duration_s": math.fsum(one.whole.seconds for one in rounds) + excerpt.start.seconds,
            "rounds": len(rounds),
            "blocks": projection.blocks,
            "block_s": excerpt.block_s,
            "train_batches": sum(one.batches for one in rounds),
            "val_batches": sum(one.val_batches for one in rounds),
            "warm_up_rounds": excerpt.warm_ups,
            "start_j": excerpt.start.joules,
            "autocorrelation": energy.autocorrelation,
            "drift": energy.drift,
        },
    }


def _priced(projection: Projection, trainer: pl.Trainer) -> dict[str, float]:
    """CO2e and cost of the whole, as the energy callback reckons those of what was measured."""
    record = next(one.result for one in trainer.callbacks if isinstance(one, WattCallback))
    energy_kwh = record.pue * kwh(projection.energy.value)
    prices = {"co2e_g": record.carbon_intensity, "cost": record.electricity_price}
    return {name: energy_kwh * price for name, price in prices.items() if price is not None}


def _setup(job: Job, recipe: Recipe, split: Split) -> dict[str, Any]:
    """What `study=advice` compares, by the names that the command line has for it."""
    cfg = job.cfg
    return {
        "recipe.batch_size": recipe.batch_size,
        "micro_batch": split.micro if cfg.micro_batch else "whole",
        "trainer.precision": str(cfg.trainer.precision),
        "compile": bool(cfg.compile),
        "channels_last": bool(cfg.channels_last),
        "matmul_precision": cfg.matmul_precision,
        "num_workers": cfg.num_workers,
        "device.accelerator": cfg.device.accelerator,
        "device.count": split.devices,
        "threads": cfg.threads,
    }


def _metrics(content: dict[str, Any]) -> dict[str, float]:
    metrics = {
        "projected_kwh": kwh(content["energy_j"]),
        "projected_low_kwh": kwh(content["low_j"]),
        "projected_high_kwh": kwh(content["high_j"]),
        "projected_hours": content["duration_s"] / 3600,
        "projected_j_per_sample": content["energy_j"] / content["samples"],
    }
    if "co2e_g" in content:
        metrics["projected_co2e_kg"] = content["co2e_g"] / 1000
    return metrics | ({"projected_cost": content["cost"]} if "cost" in content else {})


def _sentence(content: dict[str, Any]) -> str:
    measured, drift = content["measured"], content["measured"]["drift"]
    joules, low, high, plus_minus = (human_energy(content[name]) for name in ("energy_j", "low_j", "high_j", "plus_minus_j"))
    said = (
        f"projected, not measured: {joules} for {content['epochs']} epochs, 95 % between {low} and {high} "
        f"(± {plus_minus} without the devices' own errors of scale). From {measured['train_batches']} of "
        f"{content['epochs'] * content['train_batches']} training batches, in {measured['blocks']} blocks of "
        f"{digits(measured['block_s'])} s."
    )
    if drift:
        said += f" The blocks {'rose' if drift > 0 else 'fell'} by {abs(drift):.1%} meanwhile: warm up for longer."
    return said if not content["others"] else f"{said} {content['others']}"
