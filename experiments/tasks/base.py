"""The tasks: classify, segment, action; what accuracy each has, and which models, data and phases serve it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.command_line import CONF
from experiments.tasks import CLASSIFY
from experiments.zoo import ALL, ANY, OWN


class TaskError(ValueError):
    """A model, data or phase that does not serve the task; the message says what does."""


@dataclass(frozen=True)
class Task:
    """One task of the study.

    Args:
        name: the name that `task=` takes.
        metric: the accuracy that SAM takes, as the field calls it.
        logged: the name under which a test logs it.
        sample: what an inference is of.
        needs: the package that it needs beside the study's; None: none.
        phases: the phases that it has.
    """

    name: str
    metric: str
    logged: str
    sample: str
    needs: str | None = None
    phases: frozenset[str] = frozenset({"pretrain", "finetune", "inference", "lifecycle", "project"})


_TASKS = (
    Task(CLASSIFY, "top-1", "test_acc", "image"),
    Task("segment", "mean IoU", "test_miou", "image", "segmentation_models_pytorch"),
    Task("action", "clip top-1", "test_acc", "clip", "av"),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _TASKS}


def task_of(cfg: DictConfig) -> Task:
    """The task that `cfg.task` means."""
    return TASKS[cfg.task.name]


def of_pretraining(cfg: DictConfig) -> DictConfig:
    """The config by which a task's pretraining is run: with the data, and of the task, that it says it has."""
    if "pretraining" not in cfg.task:
        return cfg
    changed = cfg.copy()
    with open_dict(changed):
        for key, section in cfg.task.pretraining.items():
            changed[key] = section
    return changed


def tasks_of_model(name: str) -> frozenset[str]:
    """The tasks that `model=name` serves; a module of the user's own serves what its user makes of it."""
    if name == OWN:
        return frozenset(TASKS)
    return frozenset({CLASSIFY, "segment"}) if name == ANY else ALL[name].tasks


def tasks_of_data(target: str) -> frozenset[str]:
    """The tasks that the data module of a config's `_target_` serves; one that does not say serves all."""
    return getattr(get_class(target), "tasks", frozenset(TASKS))


def check_combination(cfg: DictConfig) -> None:
    """Refuse a model, data or a phase that does not serve the task.

    Raises:
        TaskError: if one does not, naming those that do; or a package is missing.
    """
    task, phase = task_of(cfg), cfg.phase._target_.rpartition(".")[2]
    if task.needs and find_spec(task.needs) is None:
        raise TaskError(f"task={task.name} needs {task.needs}: pip install 'lightning_watt[tasks]'.")
    if phase not in task.phases:
        raise TaskError(f"task={task.name} has no phase={phase}; it has {', '.join(sorted(task.phases))}.")
    if task.name not in tasks_of_model(cfg.model.family):
        models = [name for name in _options("model") if name in (ANY, OWN) or name in ALL]
        serving = [name for name in models if task.name in tasks_of_model(name)]
        raise TaskError(_refused(f"model={cfg.model.family}", tasks_of_model(cfg.model.family), task, "model", serving))
    if task.name not in tasks_of_data(cfg.data._target_):
        name = get_class(cfg.data._target_).name
        raise TaskError(_refused(f"data={name}", tasks_of_data(cfg.data._target_), task, "data", _data_for(task)))


def _refused(what: str, serves: Iterable[str], task: Task, group: str, serving: Iterable[str]) -> str:
    """Say what does not serve the task, what it does serve, and what would."""
    tasks = " and ".join(f"task={name}" for name in sorted(serves))
    there = f"{group}={', '.join(serving)}" if serving else f"no {group} yet"
    return f"{what} is for {tasks}, and this is task={task.name}. For task={task.name} there is {there}."


def _data_for(task: Task) -> list[str]:
    """The options of `data=` that serve a task."""
    targets = {name: _target(name) for name in _options("data")}
    return [name for name, target in targets.items() if target is None or task.name in tasks_of_data(target)]


def _target(name: str) -> str | None:
    """The data module of an option of `data=`, its own or that of the option it begins with; None: the user's to name."""
    config = OmegaConf.load(CONF / "data" / f"{name}.yaml")
    if OmegaConf.is_missing(config, "_target_"):
        return None
    return config["_target_"] if "_target_" in config else _target(config["defaults"][0])


def _options(group: str) -> list[str]:
    """The options of a config group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))
