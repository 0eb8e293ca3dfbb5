"""Weights from one run to the next: what a checkpoint carries, reading it back, and saying what does not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from safetensors.torch import load_file
from torch import nn
from typing_extensions import override

from experiments.zoo import ANY
from lightning_watt.record.files import records_in

State = Mapping[str, torch.Tensor]

KEY = "zoo"  # where our checkpoints keep the timm model's own state and what it is
WRAPPERS = ("state_dict", "model", "state_dict_ema", "model_ema")  # how published files nest a state
MADE_WITH = {"model": "model", "model.timm_name": "timm_name", "scale": "scale", "data": "data", "task": "task"}
"""How to ask for the same model again: the config's keys, and the checkpoint's."""
LISTED = 4  # names that an error spells out of each kind of difference


class WeightsError(ValueError):
    """Weights that are missing, unreadable, or do not fit the model that the config asks for."""


class CarryWeights(Callback):
    """Puts the timm model's own state into every checkpoint, so that the next phase need not know the module.

    It costs no space: the tensors are those of the module's state, which torch stores once.

    Args:
        info: what the model is (family, timm name, scale, data); plain values only.
        whole: carry the whole module's state, where there is no timm model in it.
    """

    def __init__(self, info: Mapping[str, Any], *, whole: bool = False) -> None:
        self.info = dict(info)
        self.whole = whole

    @override
    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        whole = (
            pl_module if self.whole else getattr(pl_module, "model", None)
        )  # a classifier; self-supervised modules have a backbone
        # A classifier has a model, self-supervised modules have a backbone.
        state = pl_module.backbone_state() if whole is None else whole.state_dict()
        if "current_model_state" in checkpoint:  # a moving average is kept, and `state_dict` is its
            current = {tensor.data_ptr(): name for name, tensor in checkpoint["current_model_state"].items()}
            state = {name: checkpoint["state_dict"][current[tensor.data_ptr()]] for name, tensor in state.items()}
        checkpoint[KEY] = {"info": self.info, "has_head": whole is not None, "state": dict(state)}


@dataclass(frozen=True)
class Weights:
    """A timm model's state, read from a file.

    Args:
        state: tensors by timm's names (in foreign files by the file's own names).
        file: where it was read.
        has_head: whether a trained classifier is among it; None if the file does not say.
        info: what our own checkpoints hold about the model.
        module: the whole training module's state, in our own checkpoints (CLIP's text tower is in it).
        run: the run directory or checkpoint whose energy these weights carry; None if nobody measured it.
    """

    state: State
    file: Path
    has_head: bool | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    module: State = field(default_factory=dict)
    run: Path | None = None


def read_weights(path: str | Path) -> Weights:
    """Read weights from a run directory, a Lightning checkpoint or a file of weights.

    Nothing but tensors and plain values is ever unpickled.

    Args:
        path: a run directory of this project (of a lifecycle: of one of its phases), a `.ckpt`, or a `.pt`, `.pth`,
            `.bin` or `.safetensors` file.

    Raises:
        WeightsError: if there is nothing there, or it cannot be read.
    """
    file = _file_of(Path(path))
    try:
        content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{file} could not be read as weights ({type(error).__name__}: {error}). It must be a safetensors file, or a "
            "torch file that holds tensors and plain values only."
        ) from error
    if KEY in content:
        own = content[KEY]
        return Weights(
            own["state"], file, own["has_head"], own["info"], content.get("state_dict", {}), _measured(file, content)
        )
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    state = {name.removeprefix("module."): value for name, value in content.items() if torch.is_tensor(value)}
    if not state:
        raise WeightsError(f"{file} holds no tensors by name; it must hold a model's state_dict.")
    return Weights(state, file)


def load_weights(model: nn.Module, weights: Weights, *, head: bool, match: str = "names") -> None:
    """Load weights into a timm model, strictly.

    Args:
        model: the model to fill.
        weights: what `read_weights` gave.
        head: whether the classifier is loaded too; otherwise it keeps its fresh values.
        match: "names", or "order" for files with other names for the same layers: tensors are then matched by their
            place and shape.

    Raises:
        WeightsError: if anything is missing, left over or of another shape; it names what differs.
    """
    if head and weights.has_head is False:
        raise WeightsError(
            f"{weights.file} comes from self-supervised pretraining and has no classifier yet. Finetune it first "
            f"(phase=finetune checkpoint={weights.file}), and give that run as the checkpoint."
        )
    wanted = model.state_dict()
    given = dict(weights.state)
    if match == "order":
        given = _by_order(given, wanted, weights)
    if not head:
        fresh = head_names(model)
        wanted = {name: value for name, value in wanted.items() if name not in fresh}
        given = {name: value for name, value in given.items() if name not in fresh}
    difference = _difference(given, wanted)
    if difference:
        named = weights.info.get("model") == ANY  # by its name; the study's models are not
        made_for = " ".join(
            f"{key}={weights.info[name]}"
            for key, name in MADE_WITH.items()
            if name in weights.info and (named or name != "timm_name")
        )
        raise WeightsError(
            f"The weights in {weights.file} do not fit this model: {difference}. "
            + (f"They were made with {made_for}; ask for the same. " if made_for else "")
            + ("Their shapes fit one after the other, though: phase.match=order. " if _fits_by_order(weights, model) else "")
            + "The model is set by model=, scale=, model.timm_name and model.options, its channels by data=."
        )
    model.load_state_dict(given, strict=head)


def load_whole(module: pl.LightningModule, weights: Weights) -> None:
    """Load a module of the user's own, strictly.

    Raises:
        WeightsError: if anything is missing, left over or of another shape; it names what differs.
    """
    difference = _difference(weights.state, module.state_dict())
    if difference:
        raise WeightsError(f"The weights in {weights.file} do not fit {type(module).__name__}: {difference}.")
    module.load_state_dict(weights.state)


def head_of(model: nn.Module) -> nn.Module:
    """What gives a model's classes: timm says it; it is the last part of torchvision's video and of segmentation models."""
    return model.get_classifier() if hasattr(model, "get_classifier") else [*model.children()][-1]


def head_names(model: nn.Module) -> frozenset[str]:
    """The state names of a model's head."""
    classifier = head_of(model)
    prefixes = tuple(f"{name}." for name, module in model.named_modules() if module is classifier)
    return frozenset(name for name in model.state_dict() if name.startswith(prefixes)) if prefixes else frozenset()


def _file_of(path: Path) -> Path:
    """The file that a run directory or a path to a file means."""
    if path.is_file():
        return path
    own = path / "checkpoints" / "last.ckpt"
    if own.is_file():
        return own
    if not path.exists():
        raise WeightsError(f"checkpoint={path} does not exist. Give a run directory, a .ckpt, or a file of weights.")
    inside = sorted(str(found.relative_to(path)) for found in path.glob("*/checkpoints/last.ckpt"))
    hint = f" It holds several runs; give one of them: {', '.join(inside)}." if inside else ""
    raise WeightsError(f"checkpoint={path} holds no checkpoints/last.ckpt: no run ended there.{hint}")


def _measured(file: Path, content: Mapping[str, Any]) -> Path | None:
    """What knows the energy spent on a checkpoint: its run's record, if it is the only one there; else its own state."""
    run = file.parent.parent
    records = records_in(run)
    if len(records) == 1:
        return run
    has_state = any("WattCallback" in name for name in content.get("callbacks", {}))
    return file if has_state else run if records else None


def _by_order(given: State, wanted: State, weights: Weights) -> dict[str, torch.Tensor]:
    """Give the tensors of a file the model's names, by their place."""
    if len(given) != len(wanted):
        raise WeightsError(
            f"{weights.file} holds {len(given)} tensors and the model has {len(wanted)}, so they cannot be matched by "
            "order. The model is set by model.timm_name."
        )
    return dict(zip(wanted, given.values(), strict=True))


def _fits_by_order(weights: Weights, model: nn.Module) -> bool:
    """Whether a file's tensors have the model's shapes in the model's order, the classifier aside."""
    wanted, fresh = model.state_dict(), head_names(model)
    return len(wanted) == len(weights.state) and all(
        name in fresh or wanted[name].shape == value.shape
        for name, value in zip(wanted, weights.state.values(), strict=True)
    )


def _difference(given: State, wanted: State) -> str:
    """Say how two states differ; empty if they fit."""
    missing = [name for name in wanted if name not in given]
    left_over = [name for name in given if name not in wanted]
    shapes = [
        f"{name} is {tuple(given[name].shape)} in the file and {tuple(wanted[name].shape)} in the model"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    kinds = (("missing", missing), ("not in the model", left_over), ("of another shape", shapes))
    return "; ".join(
        f"{len(names)} {kind} ({', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''})"
        for kind, names in kinds
        if names
    )
