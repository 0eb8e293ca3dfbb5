"""A LightningModule of the user's own: built from the config, trained by the recipe, loaded again."""

from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.job import Job, Outcome
from experiments.models import OWN_KEYS
from experiments.modules.recipe import Recipe
from experiments.phases.start import start_name
from experiments.settings import recipe_of, settings_of
from experiments.tasks.base import task_of
from experiments.weights import CarryWeights, Weights, load_whole
from experiments.zoo import OWN


def is_own(cfg: DictConfig) -> bool:
    """Whether the config asks for a module of the user's own."""
    return cfg.model.family == OWN


def train_own(job: Job, phase: str, weights: Weights | None = None) -> Outcome:
    """Train the module, and test it if it can be tested.

    Args:
        job: the config and the directory.
        phase: "pretrain" or "finetune": whose recipe is used.
        weights: what it starts from; None: what its constructor makes.

    Returns:
        Where it all is, and what its `test_step` logs.
    """
    recipe = recipe_of(job.cfg, phase)
    data = job.data(recipe, phase)
    module = own_module(job, data, phase, recipe)
    if weights is not None:
        load_whole(module, weights)
        module.watt_inherits = [str(weights.run)] if weights.run else []
    if phase == "finetune":
        module.watt_model_info["start"] = start_name(job, weights)
    return job.fit(module, data, recipe, [CarryWeights(module.watt_model_info, whole=True)])


def own_module(job: Job, data: pl.LightningDataModule, phase: str, recipe: Recipe | None = None) -> pl.LightningModule:
    """Build the module, and note on it what the record holds about it.

    Args:
        job: the config; what stands beside `model._target_` are the constructor's arguments.
        data: what it runs on.
        phase: what is done with it.
        recipe: gives the optimiser of a module without `configure_optimizers`; None: none is needed.

    Raises:
        TypeError: if it is no LightningModule.
    """
    section = OmegaConf.to_container(job.cfg.model, resolve=True)
    module = instantiate({key: value for key, value in section.items() if key not in OWN_KEYS}, _convert_="all")
    if not isinstance(module, pl.LightningModule):
        raise TypeError(
            f"model._target_={job.cfg.model._target_} makes a {type(module).__name__}, and model=own needs a "
            "LightningModule of pytorch_lightning: name a class, or a function that returns one."
        )
    if recipe is not None and type(module).configure_optimizers is pl.LightningModule.configure_optimizers:
        module.configure_optimizers = lambda: recipe.configure(module, module.trainer)
    told: dict[str, Any] = dict(getattr(module, "watt_model_info", None) or {})
    known = {
        "name": type(module).__name__,
        "model": OWN,
        "family": type(module).__name__,
        "task": task_of(job.cfg).name,
        "metric": task_of(job.cfg).metric,
        "phase": phase,
        "scale": job.cfg.scale.name,
        "data": data.name,
        "params": sum(parameter.numel() for parameter in module.parameters()),
    }
    module.watt_model_info = known | told | settings_of(job.cfg, phase)
    return module
