"""One run of the study, or a multirun with `-m`: `python -m experiments.run model=vit phase=pretrain`."""

import logging
import math
import signal
import sys
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from experiments.boards import claim_boards, cuda_name
from experiments.command_line import CONF, check_names, name_boards, users_error
from experiments.data.held_out import TEST, VALIDATION
from experiments.job import Job, Outcome, prepare_torch, wants_boards
from experiments.outcome import describe, energy_tables, read_outcome, save_outcome
from experiments.restart.resume import FITS, read_resume, resume_in
from experiments.restart.skip_done import config_key, find_sweep, goes_on, hold
from experiments.tasks.base import check_combination, task_of

TERMINATED = 128 + signal.SIGTERM  # what a shell makes of it
log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")
def main(cfg: DictConfig) -> float:
    """Run what the config says and print where its things are; in a sweep, a failed job does not stop the others."""
    directory = Path(HydraConfig.get().runtime.output_dir)
    if not goes_on(cfg):
        return _main(cfg, directory)
    with hold(directory, rank_zero_only.rank) as mine:
        if mine:
            return _main(cfg, directory)
        print(f"skipped      {directory}: another process runs this job")
        return math.nan


def _main(cfg: DictConfig, directory: Path) -> float:
    hydra_cfg, key = HydraConfig.get(), config_key(cfg)
    earlier = read_outcome(directory) if goes_on(cfg) else {}
    is_same = earlier.get("config") == key
    if is_same and earlier["status"] == "completed":
        print(f"skipped      {directory}: it is complete")
        return _result(cfg, earlier.get("metrics", {}))
    choices = dict(hydra_cfg.runtime.choices)
    if cfg.test_on != TEST:
        choices["data"] = f"{choices['data']}, {cfg.test_on} part"
    save = partial(save_outcome, directory, choices, overrides=hydra_cfg.overrides.task, config=key)
    if rank_zero_only.rank == 0:
        OmegaConf.save(cfg, directory / "config.yaml")
        save()
    try:
        outcome = run(cfg, directory, go_on=is_same)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and to SIGTERM; the latter's has no exit status
        save(error=stop)
        raise SystemExit(stop.code or TERMINATED) from stop
    except Exception as error:
        save(error=error)
        sentence = users_error(error)
        if hydra_cfg.mode == RunMode.MULTIRUN:
            log.exception("failed: %s: %s", " ".join(hydra_cfg.overrides.task), sentence or "", exc_info=not sentence)
            return math.nan
        if sentence:
            raise SystemExit(sentence) from None
        raise
    if rank_zero_only.rank == 0:
        save(outcome)
        tables = energy_tables(outcome) if hydra_cfg.mode != RunMode.MULTIRUN else []  # a sweep has a table of its own
        print(*tables, describe(outcome), sep="\n")
        if cfg.test_on != TEST:
            print(f"tested on    the {cfg.test_on} part: to choose by, not to report")
    return _result(cfg, outcome.metrics)


def _result(cfg: DictConfig, metrics: Mapping[str, float | None]) -> float:
    """What Hydra's sweepers compare: the task's accuracy, of the validation part only.

    A sweeper that looks for the best recipe must not look at the part that is reported.
    """
    if cfg.test_on != VALIDATION:
        return math.nan
    accuracy = metrics.get(task_of(cfg).logged)
    return math.nan if accuracy is None else float(accuracy)


def run(cfg: DictConfig, directory: Path, *, go_on: bool = False) -> Outcome:
    """Run a composed config in a directory, on boards that are this job's alone while it runs.

    Args:
        cfg: the config.
        directory: where all that the job writes goes.
        go_on: whether it goes on with what an earlier start left there.

    Raises:
        TaskError: if the model, the data or the phase does not serve the task.
    """
    check_combination(cfg)
    # The data sets that are kept as tensors load faster without workers; Lightning cannot know.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # BEiT's tokenizer is frozen, and in eval mode on purpose.
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start of training.*")
    # Lightning's own use of torch's trees, which its next release settles.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    name = str if cfg.device.accelerator == "cpu" else cuda_name
    with claim_boards(wants_boards(cfg), cfg.device.count, share=cfg.device.share, name=name) as boards:
        prepare_torch(cfg)
        resume, phase = read_resume(cfg.resume), cfg.phase._target_.rpartition(".")[2]
        fits = _fits(cfg, phase)
        if resume:
            resume.check(fits)
        if go_on:
            resume = resume_in(directory, fits, resume)
        job = Job(cfg, directory, boards=boards, resume=resume)
        return job.finished(phase) or instantiate(cfg.phase)(job)


def _fits(cfg: DictConfig, phase: str) -> list[str]:
    """The fits that a job consists of, in order."""
    phases = ["pretrain", "finetune"] if phase == "lifecycle" else [phase]
    with_tokenizer = "pretrain" in phases and "tokenizer" in cfg.model
    return ["tokenizer"] * with_tokenizer + [one for one in phases if one in FITS]


if __name__ == "__main__":
    wrong = check_names(sys.argv[1:])
    if wrong:
        sys.exit(wrong)
    sys.argv[1:] = find_sweep(name_boards(sys.argv[1:]))
    main()
