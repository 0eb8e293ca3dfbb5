"""One job of the study: its config, its directory, and the Trainers, data and callbacks made from them."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.tuner import Tuner

from experiments.data.base import ImageData
from experiments.data.held_out import test_on
from experiments.models import size_of
from experiments.modules.batches import BatchError, Split, largest_fitting, split_batch
from experiments.modules.recipe import Recipe
from experiments.restart.resume import LAST, NameFit, Resume, WholeCheckpoints, metrics_of, note_done
from experiments.settings import options_of, world_size
from experiments.zoo import OWN

FIND = "find"
"""What `micro_batch=` is called to be found."""
LOGGED_INFO = ("family", "timm_name", "task", "phase", "data", "scale", "image_size", "params", "gflops_per_sample")


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
        start: what an inference's weights are from, as its record says it.
    """

    directory: Path
    checkpoint: Path | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, "Outcome"] = field(default_factory=dict)
    note: str = ""
    model: str = ""
    start: str = ""


@dataclass(frozen=True)
class Job:
    """A composed config bound to a directory and to the boards it may use.

    Args:
        cfg: the composed config.
        directory: where everything that the job writes goes.
        checkpoint: what finetuning and inference start from; None: what `cfg.checkpoint` says.
        boards: indices of the GPUs that are this job's.
        resume: the interrupted job that this one goes on with; None: it begins at its beginning.
        instead_of_fit: what is done in the place of each training, with the arguments of `fit` after the job; None: it is
            trained.
    """

    cfg: DictConfig
    directory: Path
    checkpoint: str | Path | None = None
    boards: Sequence[int] = ()
    resume: Resume | None = None
    instead_of_fit: Callable[..., Outcome] | None = None

    def at(self, name: str, checkpoint: Path | None = None) -> "Job":
        """The job of one phase of this job, in its own subdirectory."""
        return dataclasses.replace(self, directory=self.directory / name, checkpoint=checkpoint)

    def finished(self, fit: str) -> Outcome | None:
        """What a fit left that is complete in the job that this one goes on with; None if it has to be run."""
        directory = self.resume.finished.get(fit) if self.resume else None
        if directory is None:
            return None
        note = f"{fit} is complete, and was taken as it is"
        return Outcome(directory, directory / LAST, metrics_of(directory), note=note)

    @property
    def start(self) -> str | Path | None:
        """What the job starts from: a run directory, a checkpoint, a file of weights, or None."""
        return self.checkpoint or self.cfg.checkpoint

    def data(
        self, recipe: Recipe | None = None, phase: str | None = None, *, captions: bool = False, **options: Any
    ) -> ImageData:
        """Build the data module, the user's own too, at the model's image size, and read the data.

        It tests on the part that `test_on` names.

        Args:
            recipe: gives the batch size; None: `eval_batch_size`.
            phase: whose augmentation is used; None: none.
            captions: let batches bring captions if the data has them.
            **options: further arguments of the data module.

        Raises:
            DataMissingError: if the data is not on this machine.
        """
        data = self._data(dict(self.cfg.data), recipe, phase, captions=captions, **options)
        test_on(data, self.cfg.test_on)
        return data

    def _data(
        self, settings: dict[str, Any], recipe: Recipe | None, phase: str | None, *, captions: bool, **options: Any
    ) -> ImageData:
        """Build the data module, which tests on its test part."""
        batch_size = self.split(recipe).micro if recipe else self.cfg.eval_batch_size
        if not issubclass(get_class(settings["_target_"]), ImageData):
            return self._own_data(settings, batch_size)
        augment = settings.pop("augment").get(phase or "none")
        with_captions = settings.pop("with_captions", {})
        data = instantiate(settings, _partial_=True, _convert_="all")(
            image_size=size_of(self.cfg).image_size,
            batch_size=batch_size,
            num_workers=self.cfg.num_workers,
            pin_memory=self.cfg.pin_memory,
            seed=self.cfg.seed,
            augment=_augment(augment, recipe),
            **(options_of(self.cfg, "clip") if "clip" in self.cfg.model else {}),
            **(with_captions if captions else {}),
            **options,
        )
        data.setup()
        return data

    def _own_data(self, settings: dict[str, Any], batch_size: int) -> pl.LightningDataModule:
        """Build a data module of the user's own, with what its constructor takes of what the config says besides.

        Raises:
            TypeError: if it is none, or does not say what a model of the study needs to know.
        """
        target = get_class(settings["_target_"])
        if not issubclass(target, pl.LightningDataModule):
            raise TypeError(f"data._target_={settings['_target_']} is no LightningDataModule of pytorch_lightning.")
        offered = {"batch_size": batch_size, "num_workers": self.cfg.num_workers, "seed": self.cfg.seed}
        offered["image_size"] = size_of(self.cfg).image_size
        taken = {name: offered[name] for name in inspect.signature(target).parameters if name in offered}
        data = instantiate(taken | settings, _convert_="all")
        missing = [name for name in ("num_classes", "in_chans") if not hasattr(data, name)]
        if missing and self.cfg.model.family != OWN:
            raise TypeError(
                f"{target.__name__} has no {' and no '.join(missing)}, which model={self.cfg.model.family} is built by: "
                "set it as an attribute in its constructor or on its class."
            )
        for name, value in (("name", target.__name__), ("input", {}), ("class_names", None)):
            if getattr(data, name, None) is None:
                setattr(data, name, value)
        return data

    def split(self, recipe: Recipe) -> Split:
        """How the recipe's batch is divided over the job's devices and steps.

        Raises:
            BatchError: if it does not divide.
        """
        given = self.cfg.micro_batch
        return split_batch(recipe, world_size(self.cfg), None if given == FIND else given)

    def trainer(self, recipe: Recipe | None = None, callbacks: Sequence[Callback] = ()) -> pl.Trainer:
        """Build the phase's Trainer.

        Args:
            recipe: says for how long, and how gradients are clipped; None: a Trainer that only evaluates.
            callbacks: further callbacks, besides energy, checkpoints and the learning rate's curve.
        """
        # Without Lightning's `hp_metric`: the table has the energy callback's metrics.
        loggers = [TensorBoardLogger(self.directory, name="", version="", default_hp_metric=False)]
        if self.cfg.csv:
            there = len(list(self.directory.glob("csv*/metrics.csv")))  # of earlier starts; a logger would remove it
            loggers.append(CSVLogger(self.directory, name=f"csv-v{there}" if there else "csv", version=""))
        options: dict[str, Any] = {"enable_checkpointing": False}
        own: list[Callback] = self._watt()
        if recipe is not None:
            options = {"max_epochs": recipe.epochs, "gradient_clip_val": recipe.clip_grad}
            options["plugins"] = [WholeCheckpoints()]
            options["accumulate_grad_batches"] = self.split(recipe).accumulate
            own += [
                ModelCheckpoint(self.directory / "checkpoints", filename="last", enable_version_counter=False),
                LearningRateMonitor(logging_interval="step"),
            ]
            if recipe.ema is not None:
                own.append(EMAWeightAveraging(decay=recipe.ema))
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
        fit = module.watt_model_info["phase"]
        if self.instead_of_fit is not None:
            return self.instead_of_fit(self, module, data, recipe, callbacks)
        trainer = self.trainer(recipe, [NameFit(fit), *callbacks])
        self.divide(trainer, module, data, recipe)
        self.log_config(trainer, module, recipe)
        goes_on = self.resume.checkpoint_of(fit) if self.resume else None
        trainer.fit(module, datamodule=data, **({"ckpt_path": goes_on, "weights_only": True} if goes_on else {}))
        metrics: dict[str, float] = {}
        if type(module).test_step is not pl.LightningModule.test_step:
            metrics = dict(trainer.test(module, datamodule=data, verbose=False)[0])
        if trainer.is_global_zero and not trainer.fast_dev_run:
            note_done(self.directory, fit, metrics)
        return Outcome(self.directory, self.directory / LAST, metrics)

    def divide(self, trainer: pl.Trainer, module: pl.LightningModule, data: ImageData, recipe: Recipe) -> Split:
        """Find the device's batch if that is asked for, and let each epoch consist of whole batches of the recipe's size.

        Returns:
            How the batch is divided.

        Raises:
            BatchError: if the batch does not divide, or the training set is smaller than one.
        """
        split = self.split(recipe)
        if self.cfg.micro_batch == FIND:
            split = self._find(trainer, module, data, split)
        if split.accumulate > 1 and getattr(module, "compares_pairs", False):
            raise BatchError(
                f"{type(module).__name__}'s loss compares all pairs of a batch of {split.total}, which steps of "
                f"{split.micro} on {split.devices} devices cannot. Take more devices, or a smaller recipe.batch_size."
            )
        module.watt_model_info |= {"micro_batch": split.micro, "devices": split.devices, "accumulate": split.accumulate}
        dataset = getattr(data, "train_set", None)
        if isinstance(dataset, Sized):
            steps = split.steps(len(dataset))
            if self.cfg.trainer.limit_train_batches is None:
                trainer.limit_train_batches = steps
        return split

    def _find(self, trainer: pl.Trainer, module: pl.LightningModule, data: ImageData, split: Split) -> Split:
        """Let Lightning find what the device's memory holds, and take the largest part of its share that fits.

        What the trials use is in the record's stage `tune`.
        """
        if split.devices > 1:
            raise BatchError(
                "Lightning finds a batch on one device: run micro_batch=find with device.count=1, then give what it found."
            )
        first = min(2, split.total)
        data.batch_size = first
        doublings = 1 + math.ceil(math.log2(split.total / first))
        found = Tuner(trainer).scale_batch_size(module, datamodule=data, init_val=first, max_trials=doublings)
        data.batch_size = largest_fitting(split.total, found or first)
        found_split = dataclasses.replace(split, micro=data.batch_size)
        trainer.accumulate_grad_batches = found_split.accumulate
        return found_split

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


def _augment(of_the_data: DictConfig | None, recipe: Recipe | None) -> Any:
    """The data's own augmentation, or the recipe's with what the data changes in it; None: none."""
    if of_the_data is None:
        return None
    if "_target_" in of_the_data:
        return instantiate(of_the_data, _convert_="all")
    return dict(recipe.augment if recipe else {}) | dict(of_the_data)


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
