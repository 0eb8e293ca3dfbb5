"""Segmentation: decoders of segmentation_models_pytorch on the study's encoders, and how an encoder gets its weights."""

import copy
import dataclasses
import sys

import segmentation_models_pytorch as smp
import timm
import torch
from hydra.utils import get_class
from omegaconf import DictConfig
from torch import nn

from experiments.models import build_model, size_of, training_options
from experiments.modules.recipe import Recipe
from experiments.settings import decoder_options
from experiments.tasks.base import TaskError
from experiments.weights import Weights, load_weights


def build_segmenter(cfg: DictConfig, *, in_chans: int, num_classes: int, recipe: Recipe | None = None) -> nn.Module:
    """Build the segmentation model that the config asks for: the family's encoder with the task's decoder.

    Args:
        cfg: the composed config.
        in_chans: channels of the images.
        num_classes: classes of a pixel.
        recipe: its stochastic depth for training; None: none.

    Returns:
        A model that gives logits (batch, num_classes, height, width).

    Raises:
        TaskError: if the decoder cannot be put on the encoder.
    """
    size = size_of(cfg)
    target, options = get_class(cfg.task.decoders[cfg.task.decoder]._target_), decoder_options(cfg)
    encoder = {**size.options, **training_options(size, recipe)}
    if target is smp.DPT:
        encoder.pop("depth", None)  # the library's name for another thing; the encoder is exchanged below
    try:
        model = target(
            encoder_name=f"tu-{size.timm_name}",
            encoder_weights=None,
            in_channels=in_chans,
            classes=num_classes,
            **options,
            **encoder,
        )
        if target is smp.DPT:
            blocks = build_model(cfg, in_chans=in_chans, num_classes=0, recipe=recipe)
            model.encoder.model = blocks
            model.encoder._output_indices = _evenly(len(blocks.blocks), len(model.encoder._output_indices))
        with torch.device("meta"), torch.no_grad():
            given = (
                copy.deepcopy(model).to("meta").eval()(torch.empty(1, in_chans, size.image_size, size.image_size)).shape[-1]
            )
        if given != size.image_size:
            raise ValueError(f"it gives {given} pixels for {size.image_size}")
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        raise TaskError(
            f"task.decoder={cfg.task.decoder} cannot be put on {size.timm_name} ({type(error).__name__}: {error}). "
            "Convolutional networks take unet and deeplabv3plus, Swin takes upernet, and plain vision transformers take dpt."
        ) from error
    return model.to(memory_format=torch.channels_last) if cfg.channels_last else model


def load_encoder(cfg: DictConfig, segmenter: nn.Module, weights: Weights | None, *, in_chans: int, match: str) -> None:
    """Load a classifier's, or a self-supervised backbone's, weights into a segmentation model's encoder.

    Positions that were learnt at another image size are resampled, as timm does it.

    Args:
        cfg: the composed config.
        segmenter: what `build_segmenter` made.
        weights: what `read_weights` gave; None: timm's published ones.
        in_chans: channels of the images.
        match: "names" or "order", as for `load_weights`.

    Raises:
        WeightsError: if anything that the encoder needs is missing or of another shape.
        OSError: if timm's weights cannot be had.
    """
    whole = build_model(cfg, in_chans=in_chans, num_classes=2, pretrained=weights is None)  # with a head, to be passed over
    if weights is not None:
        module = sys.modules[timm.model_entrypoint(size_of(cfg).timm_name.partition(".")[0]).__module__]
        resample = getattr(module, "checkpoint_filter_fn", None)
        state = resample(dict(weights.state), whole) if resample and match == "names" else weights.state
        load_weights(whole, dataclasses.replace(weights, state=state), head=False, match=match)
    # timm calls the same tensors "layers.0.x" in a whole model and "layers_0.x" in one that gives features.
    known = {_plain(name): tensor for name, tensor in whole.state_dict().items()}
    own = segmenter.encoder.model.state_dict()
    segmenter.encoder.model.load_state_dict({name: known[_plain(name)] for name in own})


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _evenly(blocks: int, count: int) -> list[int]:
    """Which of a transformer's blocks the decoder reads: the last of each of so many equal parts."""
    return [(part + 1) * blocks // count - 1 for part in range(count)]
