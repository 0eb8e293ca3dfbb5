"""What makes two runs repetitions of each other: all settings but the seed, the machine and the paths."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.data.held_out import TEST
from experiments.modules.recipe import Recipe
from experiments.tasks import CLASSIFY

# What a run's result depends on, besides its model, recipe and data.
OF_THE_CONFIG = ("compile", "micro_batch", "channels_last", "matmul_precision", "pretrained", "trainer")
OF_THE_PHASE = ("linear_probe", "match")
A_PATH = ("root",)
OF_OTHER_PHASES = ("pretraining", "recipe", "recipes", "decoders", "decoder_of")
"""Of the task: what its pretraining is, and what else it could have been."""


def world_size(cfg: DictConfig) -> int:
    """How many processes train: one for each device of each node."""
    return int(cfg.device.count) * int(cfg.trainer.num_nodes)


def recipe_of(cfg: DictConfig, phase: str) -> Recipe:
    """The recipe of `phase`: the paper's, what the scale changes in it, then what the user gives."""
    given = {key: value for key, value in cfg.recipe.items() if value is not None}
    return Recipe(**(_at_scale(recipes_of(cfg)[phase], cfg.scale.name) | given))


def recipes_of(cfg: DictConfig) -> DictConfig:
    """The recipes by phase: the task's, if it has its own, else the model's."""
    return cfg.task.recipe if "recipe" in cfg.task else cfg.model.recipe


def options_of(cfg: DictConfig, what: str) -> dict[str, Any]:
    """The arguments that the family's config has for `what` ("pretraining", "tokenizer") at this scale."""
    return _at_scale(cfg.model[what], cfg.scale.name)


def decoder_options(cfg: DictConfig) -> dict[str, Any]:
    """The arguments that a segmentation's decoder has at this scale."""
    return _at_scale(cfg.task.decoders[cfg.task.decoder].options, cfg.scale.name)


def _at_scale(section: DictConfig, scale: str) -> dict[str, Any]:
    """The paper's settings of a section, with what the scale changes in them."""
    sizes = OmegaConf.to_container(section, resolve=True)
    return sizes["paper"] | sizes.get(scale, {})


def settings_of(cfg: DictConfig, phase: str) -> dict[str, Any]:
    """What the run record holds about a run's settings.

    Args:
        cfg: the composed config.
        phase: whose recipe is meant: "pretrain", "finetune", "tokenizer" or "inference", which has none.

    Returns:
        `settings`, eight hexadecimal digits that are equal if the runs differ only in seed, kind of device, workers and
        paths; the `seed`; and `epochs`, `batch_size` and `lr` where there is a recipe.
    """
    recipe = asdict(recipe_of(cfg, phase)) if phase in recipes_of(cfg) else {}
    model = {key: value for key, value in _plain(cfg.model).items() if key not in ("recipe", "pretraining", "tokenizer")}
    options = {what: options_of(cfg, what) for what in ("pretraining", "tokenizer") if what in cfg.model}
    data = {key: value for key, value in _plain(cfg.data).items() if key not in A_PATH}
    rest = {key: _plain(cfg[key]) for key in OF_THE_CONFIG if key in cfg} | {"world_size": world_size(cfg)}
    if cfg.test_on != TEST:
        rest["test_on"] = cfg.test_on
    if cfg.task.name != CLASSIFY:
        rest["task"] = {key: value for key, value in _plain(cfg.task).items() if key not in OF_OTHER_PHASES}
        rest["decoder"] = decoder_options(cfg) if "decoder" in cfg.task else {}
    asked = cfg.phase.get(phase, cfg.phase)  # a lifecycle holds all three
    rest |= {key: asked[key] for key in OF_THE_PHASE if key in asked}
    text = json.dumps([phase, cfg.scale.name, model, options, recipe, data, rest], sort_keys=True, default=str)
    named = {key: recipe[key] for key in ("epochs", "batch_size", "lr") if key in recipe}
    return {"settings": hashlib.sha256(text.encode()).hexdigest()[:8], "seed": cfg.seed, **named}


def _plain(section: Any) -> Any:
    """A part of the config as plain values."""
    return OmegaConf.to_container(section, resolve=True) if OmegaConf.is_config(section) else section
