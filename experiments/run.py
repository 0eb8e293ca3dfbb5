"""One run of the study, or a multirun with `-m`: `python -m experiments.run model=vit phase=pretrain`."""

import logging
import math
import signal
import sys
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from experiments.boards import claim_boards, cuda_name
from experiments.command_line import CONF, check_names, name_boards, users_error
from experiments.job import Job, Outcome, prepare_torch, wants_boards
from experiments.outcome import describe, energy_tables, save_outcome
from experiments.resume import FITS, read_resume

TERMINATED = 128 + signal.SIGTERM  # what a shell makes of it
log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="run")
def main(cfg: DictConfig) -> float:
    """Run what the config says and print where its things are; in a sweep, a failed job does not stop the others."""
    hydra_cfg = HydraConfig.get()
    directory = Path(hydra_cfg.runtime.output_dir)
    if rank_zero_only.rank == 0:
        OmegaConf.save(cfg, directory / "config.yaml")
    try:
        outcome = run(cfg, directory)
    except SystemExit as stop:  # Lightning's answer to Ctrl-C and to SIGTERM; the latter's has no exit status
        save_outcome(directory, hydra_cfg.runtime.choices, error=stop, overrides=hydra_cfg.overrides.task)
        raise SystemExit(stop.code or TERMINATED) from stop
    except Exception as error:
        save_outcome(directory, hydra_cfg.runtime.choices, error=error, overrides=hydra_cfg.overrides.task)
        sentence = users_error(error)
        if hydra_cfg.mode == RunMode.MULTIRUN:
            log.exception("failed: %s: %s", " ".join(hydra_cfg.overrides.task), sentence or "", exc_info=not sentence)
            return math.nan
        if sentence:
            raise SystemExit(sentence) from None
        raise
    if rank_zero_only.rank == 0:
        save_outcome(directory, hydra_cfg.runtime.choices, outcome, overrides=hydra_cfg.overrides.task)
        tables = energy_tables(outcome) if hydra_cfg.mode != RunMode.MULTIRUN else []  # a sweep has a table of its own
        print(*tables, describe(outcome), sep="\n")
    return float(outcome.metrics.get("test_acc", math.nan))


def run(cfg: DictConfig, directory: Path) -> Outcome:
    """Run a composed config in a directory, on boards that are this job's alone while it runs."""
    # The data sets that are kept as tensors load faster without workers; Lightning cannot know.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # BEiT's tokenizer is frozen, and in eval mode on purpose.
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start of training.*")
    # Lightning's own use of torch's trees, which its next release settles.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    name = str if cfg.device.accelerator == "cpu" else cuda_name
    with claim_boards(wants_boards(cfg), cfg.device.count, share=cfg.device.share, name=name) as boards:
        prepare_torch(cfg)
        resume = read_resume(cfg.resume)
        if resume:
            resume.check(_fits(cfg))
        return instantiate(cfg.phase)(Job(cfg, directory, boards=boards, resume=resume))


def _fits(cfg: DictConfig) -> list[str]:
    """The fits that a job consists of, in order."""
    phase = cfg.phase._target_.rpartition(".")[2]
    phases = ["pretrain", "finetune"] if phase == "lifecycle" else [phase]
    with_tokenizer = "pretrain" in phases and "tokenizer" in cfg.model
    return ["tokenizer"] * with_tokenizer + [one for one in phases if one in FITS]


if __name__ == "__main__":
    wrong = check_names(sys.argv[1:])
    if wrong:
        sys.exit(wrong)
    sys.argv[1:] = name_boards(sys.argv[1:])
    main()
