"""How a model is trained: optimiser, warm-up, schedule, layer decay, mixup, with what the papers' recipes need."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2
from torch import nn

SCHEDULES = ("cosine", "constant", "step", "exponential", "poly")


@dataclass(frozen=True)
class Recipe:
    """The training recipe of one phase; the values live in `conf/model/`, each with its source.

    Args:
        optimizer: a name that `timm.optim.create_optimizer_v2` knows: "adamw", "rmsproptf", "lamb", "sgd" (with
            Nesterov's momentum), "momentum" (SGD with the classical one).
        lr: peak learning rate of the last layer, stated for a batch of `lr_batch` images.
        weight_decay: decoupled or L2, as the optimiser has it; biases and norms are left out.
        betas: Adam's two momenta; ignored by optimisers that have none.
        momentum: momentum of SGD and RMSprop.
        eps: the optimiser's own epsilon; None keeps its default.
        warmup_epochs: epochs of linear warm-up from `lr / 1000`; fractions are allowed.
        schedule: "cosine" to `min_lr`, "constant", "step" (a tenth at each third of the run, in place of ResNet's
            plateaus), "exponential" (falls by `decay_rate` every `decay_epochs`, EfficientNet's and MobileNet's) or "poly"
            (to `min_lr` by a power of what is left of the training, as segmentation has it).
        min_lr: the learning rate at the end of the cosine or the power, stated for `lr_batch` images as `lr` is.
        poly_power: the power; 1 is a straight line.
        decay_rate: factor of the exponential schedule.
        decay_epochs: epochs after which the exponential schedule has fallen by `decay_rate`.
        lr_batch: the batch size that `lr` is stated for; the learning rate grows in proportion to the
            effective batch (Goyal et al., arXiv 1706.02677). None: `lr` is used as it is.
        layer_decay: factor of the learning rate from one layer to the one below it (BEiT, arXiv 2106.08254).
        label_smoothing: share of the target spread over all classes (Szegedy et al., arXiv 1512.00567).
        mixup: alpha of mixup (arXiv 1710.09412); 0 switches it off.
        cutmix: alpha of CutMix (arXiv 1905.04899); 0 switches it off.
        drop_path: rate of stochastic depth (arXiv 1603.09382), given to the timm model.
        augment: arguments of `timm.data.create_transform` for pictures that are read one by one, and `shorter_side` (see
            `experiments.data.augment.augmentation`); data kept as tensors has its own.
        options: arguments of `timm.create_model` that belong to the training: dropout, batch norm's momentum.
        ema: decay of the weights' moving average by update, which is what is tested and kept; None: no average.
        clip_grad: largest gradient norm; None: not clipped.
        epochs: epochs that the phase lasts.
        batch_size: images of one update, over all devices and accumulated steps.

    Raises:
        ValueError: if a value is outside what it can be.

    Example:
        >>> Recipe(lr=1e-3, warmup_epochs=1).lr
        0.001
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    eps: float | None = None
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    min_lr: float = 0.0
    poly_power: float = 1.0
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    lr_batch: int | None = None
    layer_decay: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    drop_path: float = 0.0
    augment: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    ema: float | None = None
    clip_grad: float | None = None
    epochs: int = 1
    batch_size: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))  # YAML has lists only
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; it must be one of {', '.join(SCHEDULES)}")
        if self.lr <= 0 or self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                "a recipe needs lr above 0, and epochs and batch_size of at least 1; "
                f"got lr={self.lr}, epochs={self.epochs}, batch_size={self.batch_size}"
            )

    def peak_lr(self, effective_batch: int) -> float:
        """The peak learning rate for a batch of so many images over all devices and accumulations."""
        return self.lr * effective_batch / self.lr_batch if self.lr_batch else self.lr

    def lr_factor(self, step: int, total_steps: int, steps_per_epoch: float) -> float:
        """The learning rate at `step` as a share of its peak."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return max(1e-3, step / warmup)
        if self.schedule == "exponential":
            return self.decay_rate ** ((step - warmup) / (self.decay_epochs * steps_per_epoch))
        done = min(1.0, (step - warmup) / max(1.0, total_steps - warmup))
        if self.schedule == "step":
            return 0.1 ** min(2, int(3 * done))
        if self.schedule == "constant":
            return 1.0
        floor = self.min_lr / self.lr
        left = (1 - done) ** self.poly_power if self.schedule == "poly" else 0.5 * (1 + math.cos(math.pi * done))
        return floor + (1 - floor) * left

    def configure(self, parameters: nn.Module | Iterable[Any], trainer: pl.Trainer) -> dict[str, Any]:
        """Build the optimiser and its per-step schedule, in the form `configure_optimizers` returns.

        Args:
            parameters: a module (a timm model if `layer_decay` is set, since it knows its own layers), or
                parameters, or parameter groups.
            trainer: the Trainer that will run it; its estimated step count is the schedule's length.

        Returns:
            The dict of optimiser and scheduler that Lightning expects.
        """
        lr = self.peak_lr(self.batch_size)
        optimizer = create_optimizer_v2(
            parameters, lr=lr, layer_decay=self.layer_decay, weight_decay=self.weight_decay, **self._options()
        )
        for group in optimizer.param_groups:  # timm leaves applying the layer's scale to its own schedulers
            group["lr"] = lr * group.get("lr_scale", 1.0)
        total = max(1, int(trainer.estimated_stepping_batches))
        per_epoch = total / max(1, trainer.max_epochs or self.epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.lr_factor(step, total, per_epoch))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _options(self) -> dict[str, Any]:
        """What this optimiser takes beyond the learning rate and the decay."""
        options: dict[str, Any] = {"opt": self.optimizer, "momentum": self.momentum}
        if self.optimizer.startswith(("adam", "nadam", "lamb")):
            options["betas"] = self.betas
        if self.eps is not None:
            options["eps"] = self.eps
        return options
