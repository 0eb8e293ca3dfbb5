"""One job of the study: its config, its directory, and the Trainers, data and callbacks made from them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from experiments.data.base import ImageData
from experiments.models import size_of
from experiments.modules.recipe import Recipe

LOGGED_INFO = ("family", "timm_name", "phase", "data", "scale", "image_size", "params", "gflops_per_sample")


@dataclass(frozen=True)
class Outcome:
    """What a phase leaves behind.

    Args:
        directory: where its record, checkpoints and curves are.
        checkpoint: the weights to go on with; None if the phase makes none.
        metrics: what it measured, by name.
        parts: the phases that it consisted of, in order.
        note: a sentence about how it went.
        model: what was run, if the name of its config group does not say it.
    """

    directory: Path
    checkpoint: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, "Outcome"] = field(default_factory=dict)
    note: str = ""
    model: str = ""


@dataclass(frozen=True)
class Job:
    """A composed config bound to a directory and to the boards it may use.

    Args:
        cfg: the composed config.
        directory: where everything that the job writes goes.
        checkpoint: what finetuning and inference start from; None: what `cfg.checkpoint` says.
        boards: indices of the GPUs that are this job's.
    """

    cfg: DictConfig
    directory: Path
    checkpoint: str | Path | None = None
    boards: Sequence[int] = ()

    def at(self, name: str, checkpoint: Path | None = None) -> "Job":
        """The job of one phase of this job, in its own subdirectory."""
        return dataclasses.replace(self, directory=self.directory / name, checkpoint=checkpoint)

    @property
    def start(self) -> str | Path | None:
        """What the job starts from: a run directory, a checkpoint, a file of weights, or None."""
        return self.checkpoint or self.cfg.checkpoint

    def data(
        self, recipe: Recipe | None = None, phase: str | None = None, *, captions: bool = False, **options: Any
    ) -> ImageData:
        """Build the data module, at the model's image size, and read the data.

        Args:
            recipe: gives the batch size; None: `eval_batch_size`.
            phase: whose augmentation is used; None: none.
            captions: let batches bring captions if the data has them.
            **options: further arguments of the data module.

        Raises:
            DataMissingError: if the data is not on this machine.
        """
        settings = dict(self.cfg.data)
        augment = settings.pop("augment").get(phase or "none")
        with_captions = settings.pop("with_captions", {})
        data = instantiate(settings, _partial_=True, _convert_="all")(
            image_size=size_of(self.cfg).image_size,
            batch_size=recipe.batch_size if recipe else self.cfg.eval_batch_size,
            num_workers=self.cfg.num_workers,
            seed=self.cfg.seed,
            augment=instantiate(augment, _convert_="all") if augment else None,
            **(with_captions if captions else {}),
            **options,
        )
        data.setup()
        return data

    def trainer(self, recipe: Recipe | None = None, callbacks: Sequence[Callback] = ()) -> pl.Trainer:
        """Build the phase's Trainer.

        Args:
            recipe: says for how long, and how gradients are clipped; None: a Trainer that only evaluates.
            callbacks: further callbacks, besides energy, checkpoints and the learning rate's curve.
        """
        # Without Lightning's `hp_metric`: the table has the energy callback's metrics.
        loggers = [TensorBoardLogger(self.directory, name="", version="", default_hp_metric=False)]
        if self.cfg.csv:
            loggers.append(CSVLogger(self.directory, name="csv", version=""))
        options: dict[str, Any] = {"enable_checkpointing": False}
        own: list[Callback] = self._watt()
        if recipe is not None:
            options = {"max_epochs": recipe.epochs, "gradient_clip_val": recipe.clip_grad}
            own += [
                ModelCheckpoint(self.directory / "checkpoints", filename="last", enable_version_counter=False),
                LearningRateMonitor(logging_interval="step"),
            ]
        return instantiate(self.cfg.trainer, _partial_=True, _convert_="all")(
            accelerator=self.cfg.device.accelerator,
            devices=self._devices(),
            default_root_dir=str(self.directory),
            logger=loggers,
            callbacks=[*own, *callbacks],
            **options,
        )

    def fit(
        self, module: pl.LightningModule, data: ImageData, recipe: Recipe, callbacks: Sequence[Callback] = ()
    ) -> Outcome:
        """Train a module, test it if it can be tested, and say where it is."""
        trainer = self.trainer(recipe, callbacks)
        self.log_config(trainer, module, recipe)
        resume = {"ckpt_path": self.cfg.resume, "weights_only": True} if self.cfg.resume else {}
        trainer.fit(module, datamodule=data, **resume)
        metrics: dict[str, float] = {}
        if type(module).test_step is not pl.LightningModule.test_step:
            metrics = dict(trainer.test(module, datamodule=data, verbose=False)[0])
        return Outcome(self.directory, self.directory / "checkpoints" / "last.ckpt", metrics)

    def log_config(self, trainer: pl.Trainer, module: pl.LightningModule, recipe: Recipe | None = None) -> None:
        """Give the loggers what makes this run differ from others of a sweep, for TensorBoard's table of hyperparameters.

        Args:
            trainer: whose loggers.
            module: what is run; its `watt_model_info` says which model, phase, data and scale.
            recipe: how it is trained; None: it is not.
        """
        info = {name: module.watt_model_info[name] for name in LOGGED_INFO if name in module.watt_model_info}
        settings = {"seed": self.cfg.seed, "precision": self.cfg.trainer.precision, "device": self.cfg.device.accelerator}
        recipe_settings = {"recipe": dataclasses.asdict(recipe)} if recipe else {}
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_hyperparams(info | settings | recipe_settings)

    def _watt(self) -> list[Callback]:
        """The energy callback, unless the config has none."""
        if not self.cfg.watt:
            return []
        on_cpu = self.cfg.device.accelerator == "cpu"
        watched = {"gpus": list(self.boards)} if on_cpu and self.boards else {}
        return [instantiate(self.cfg.watt, _convert_="all", **watched)]

    def _devices(self) -> int | list[int]:
        """What Lightning's `devices` is: this job's boards, or how many processes on the CPU."""
        if self.cfg.device.accelerator == "cpu" or not self.boards:
            return self.cfg.device.count
        return list(self.boards)


def wants_boards(cfg: DictConfig) -> list[int]:
    """The boards that the job may choose from; empty if it runs without any."""
    if cfg.device.boards is not None:
        boards = cfg.device.boards
        return [boards] if isinstance(boards, int) else list(boards)
    if cfg.device.accelerator == "cpu" or not torch.cuda.is_available():
        return []
    return list(range(torch.cuda.device_count()))


def prepare_torch(cfg: DictConfig) -> None:
    """Seed Python, NumPy, torch and the loaders' workers, and set torch's threads and precision."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision(cfg.matmul_precision)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
