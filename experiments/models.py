"""Builds timm models from the config, and counts their parameters and operations."""

import copy
from typing import Any

import timm
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.data.base import ImageData
from experiments.zoo import Family, Size, family_of


def size_of(cfg: DictConfig) -> tuple[Family, Size]:
    """The family and the size that `cfg.model` and `cfg.scale` ask for, with the config's own changes."""
    family = family_of(cfg.model.family)
    size = family.size(cfg.scale.name)
    named = cfg.model.timm_name and cfg.model.timm_name != size.timm_name
    options = {} if named else dict(size.options)  # another model's options would not fit
    return family, Size(
        timm_name=cfg.model.timm_name or size.timm_name,
        image_size=cfg.model.image_size or size.image_size,
        options=options | OmegaConf.to_container(cfg.model.options, resolve=True),
    )


def build_model(
    cfg: DictConfig, *, in_chans: int, num_classes: int, pretrained: bool = False, drop_path: float = 0.0
) -> nn.Module:
    """Build the timm model that the config asks for.

    Args:
        cfg: the composed config.
        in_chans: channels of the images.
        num_classes: outputs of the classifier; 0 leaves the head away.
        pretrained: load timm's published weights (needs them in the local cache, or the network).
        drop_path: rate of stochastic depth.

    Returns:
        The model, in channels-last layout if the config asks for it.
    """
    family, size = size_of(cfg)
    options = dict(size.options)
    if family.takes_image_size:
        options["img_size"] = size.image_size
    if drop_path:
        options["drop_path_rate"] = drop_path
    model = timm.create_model(size.timm_name, pretrained=pretrained, in_chans=in_chans, num_classes=num_classes, **options)
    return model.to(memory_format=torch.channels_last) if cfg.channels_last else model


def count_gflops(model: nn.Module, in_chans: int, image_size: int) -> float:
    """Count the floating-point operations of one image's forward pass, in units of 10^9 (a multiply-add is two).

    It runs on the meta device, so it costs no arithmetic, with attention spelled out, since torch's counter does
    not know every fused kernel.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    image = torch.empty(1, in_chans, image_size, image_size, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        ghost(image)
    return counter.get_total_flops() / 1e9


def model_info(cfg: DictConfig, model: nn.Module, data: ImageData, phase: str) -> dict[str, Any]:
    """What the run record and the checkpoint hold about the model, as plain values."""
    family, size = size_of(cfg)
    return {
        "name": f"{family.name} ({size.timm_name})",
        "family": family.name,
        "timm_name": size.timm_name,
        "year": family.year,
        "paper": family.paper,
        "arxiv": family.arxiv,
        "licence": family.licence,
        "pretraining": family.pretraining,
        "phase": phase,
        "scale": cfg.scale.name,
        "data": data.name,
        "num_classes": data.num_classes,
        "image_size": size.image_size,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "gflops_per_sample": count_gflops(model, data.in_chans, size.image_size),
    }


def compile_model(model: nn.Module, cfg: DictConfig) -> None:
    """Compile in place if the config asks for it.

    A transformer is compiled block by block, since masked pretraining calls the blocks itself; other models whole.
    """
    if cfg.compile:
        for part in getattr(model, "blocks", [model]):
            part.compile()
