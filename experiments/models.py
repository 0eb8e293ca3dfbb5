"""Builds timm models from the config, and counts their parameters and operations."""

import copy
from typing import Any

import timm
import torch
from omegaconf import DictConfig, OmegaConf
from timm.data import resolve_data_config
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.data.base import ImageData
from experiments.modules.recipe import Recipe
from experiments.settings import options_of
from experiments.tasks import CLASSIFY
from experiments.tasks.base import task_of
from experiments.tasks.video_families import VIDEO
from experiments.zoo import ANY, OWN, Size, family_of, known_facts, pretraining_of, published_config

OWN_KEYS = ("family", "timm_name", "image_size", "options", "recipe")
"""What the config holds about such a module beside its constructor's arguments."""


def size_of(cfg: DictConfig) -> Size:
    """The model and the size that `cfg.model` and `cfg.scale` ask for, with the config's own changes.

    Raises:
        UnknownModelError: if timm has no such model.
    """
    chosen = cfg.model
    if chosen.family == OWN:
        return Size("", chosen.image_size)
    of_the_task = cfg.task.image_size[cfg.scale.name] if "image_size" in cfg.task else None
    if chosen.family == ANY:
        size = Size(chosen.timm_name, published_config(chosen.timm_name).input_size[-1])
    else:
        size = family_of(chosen.family).size(cfg.scale.name)
    named = chosen.timm_name and chosen.timm_name != size.timm_name
    if named:
        published_config(chosen.timm_name)  # raises if there is none
    options = {} if named else dict(size.options)  # another model's options would not fit
    return Size(
        timm_name=chosen.timm_name or size.timm_name,
        image_size=chosen.image_size or of_the_task or size.image_size,
        options=options | OmegaConf.to_container(chosen.options, resolve=True),
    )


def build_model(
    cfg: DictConfig, *, in_chans: int, num_classes: int, pretrained: bool = False, recipe: Recipe | None = None
) -> nn.Module:
    """Build the timm model that the config asks for.

    Args:
        cfg: the composed config.
        in_chans: channels of the images.
        num_classes: outputs of the classifier; 0 leaves the head away.
        pretrained: load timm's published weights (needs them in the local cache, or the network).
        recipe: its stochastic depth and further arguments for training; None: none.

    Returns:
        The model, in channels-last layout if the config asks for it.
    """
    size = size_of(cfg)
    options: dict[str, Any] = {"in_chans": in_chans, "num_classes": num_classes, **size.options}
    options |= training_options(size, recipe)
    model = timm.create_model(size.timm_name, pretrained=pretrained, **options)
    return model.to(memory_format=torch.channels_last) if cfg.channels_last else model


def training_options(size: Size, recipe: Recipe | None = None) -> dict[str, Any]:
    """The arguments of `timm.create_model` for an image size, and for a recipe's stochastic depth and dropout."""
    of_recipe = dict(recipe.options) if recipe is not None else {}
    if recipe is not None and recipe.drop_path:
        of_recipe["drop_path_rate"] = recipe.drop_path
    return _image_size_option(size) | of_recipe


def _image_size_option(size: Size) -> dict[str, int]:
    """The argument that builds a model for the image size; none if it is the model's own, or its constructor takes none."""
    if size.image_size == published_config(size.timm_name).input_size[-1]:
        return {}
    option = {"img_size": size.image_size}
    try:
        with torch.device("meta"):  # without memory and without random numbers
            timm.create_model(size.timm_name, **size.options, **option)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        return {}  # most convolutional models: any size will do
    return option


def input_of(cfg: DictConfig) -> dict[str, Any]:
    """How the published weights of the config's model see an image: `mean`, `std`, `interpolation` and `crop_pct`."""
    if cfg.model.family in VIDEO:
        return {}  # the data has torchvision's constants
    config = resolve_data_config(pretrained_cfg=published_config(size_of(cfg).timm_name).to_dict())
    return {
        "mean": [float(value) for value in config["mean"]],
        "std": [float(value) for value in config["std"]],
        "interpolation": config["interpolation"],
        "crop_pct": config["crop_pct"],
    }


def count_gflops(model: nn.Module, in_chans: int, image_size: int, frames: int | None = None) -> float:
    """Count the operations of one image's, or one clip's, forward pass, in units of 10^9 (a multiply-add is two).

    It runs on the meta device, so it costs no arithmetic, with attention spelled out, since torch's counter does
    not know every fused kernel.
    """
    ghost = copy.deepcopy(model).to("meta").eval().requires_grad_(False)
    time = () if frames is None else (frames,)
    image = torch.empty(1, in_chans, *time, image_size, image_size, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        ghost(image)
    return counter.get_total_flops() / 1e9


def model_info(cfg: DictConfig, model: nn.Module, data: ImageData, phase: str) -> dict[str, Any]:
    """What the run record and the checkpoint hold about the model, as plain values; what is not known is left out."""
    size = size_of(cfg)
    task, facts = task_of(cfg), known_facts(cfg.model.family, size.timm_name)
    if task.name != CLASSIFY:
        facts.pop("published_top1", None)  # of another task
    clip = options_of(cfg, "clip") if "clip" in cfg.model else {}
    decoder = {"decoder": cfg.task.decoder} if "decoder" in cfg.task else {}
    return {
        "name": f"{facts['family']} ({', '.join([size.timm_name, *decoder.values()])})",
        "model": cfg.model.family,
        "timm_name": size.timm_name,
        **facts,
        "pretraining": pretraining_of(cfg.model.family),
        "task": task.name,
        "metric": task.metric,
        **decoder,
        "phase": phase,
        "scale": cfg.scale.name,
        "data": data.name,
        "input": data.input,
        **({"left_out": dict(data.left_out)} if getattr(data, "left_out", None) else {}),
        "num_classes": data.num_classes,
        "image_size": size.image_size,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "gflops_per_sample": count_gflops(model, data.in_chans, size.image_size, clip.get("frames")),
        **({"clip": clip} if clip else {}),
    }


def compile_model(model: nn.Module, cfg: DictConfig) -> None:
    """Compile in place if the config asks for it.

    A transformer is compiled block by block, since masked pretraining calls the blocks itself; other models whole.
    """
    if cfg.compile:
        for part in getattr(model, "blocks", [model]):
            part.compile()
