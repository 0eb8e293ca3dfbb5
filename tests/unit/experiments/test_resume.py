"""Which fit a resume belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.resume import FIT, LAST, read_resume
from experiments.weights import WeightsError
from tests.unit.experiments.report.made import made, write


def fit(directory: Path, name: str, status: str = "completed") -> Path:
    write(directory, made(status=status))
    (directory / LAST).parent.mkdir()
    torch.save({FIT: name}, directory / LAST)
    return directory / LAST


def test_nothing_is_resumed_unasked() -> None:
    assert read_resume(None) is None


def test_the_fits_before_a_checkpoints_own_are_kept(tmp_path: Path) -> None:
    tokenizer = fit(tmp_path / "pretrain" / "tokenizer", "tokenizer")
    pretrain = fit(tmp_path / "pretrain", "pretrain")
    finetune = fit(tmp_path / "finetune", "finetune", "interrupted")
    found = {name: read_resume(file) for name, file in (("t", tokenizer), ("p", pretrain), ("f", finetune))}
    assert {name: list(one.finished) for name, one in found.items()} == {
        "t": [], "p": ["tokenizer"], "f": ["pretrain", "tokenizer"]
    }  # fmt: skip
    assert (found["p"].checkpoint_of("pretrain"), found["p"].checkpoint_of("tokenizer")) == (pretrain, None)
    assert found["f"].finished["pretrain"] == tmp_path / "pretrain"


def test_of_a_jobs_directory_the_first_fit_that_did_not_complete_goes_on(tmp_path: Path) -> None:
    fit(tmp_path / "pretrain", "pretrain")
    finetune = fit(tmp_path / "finetune", "finetune", "interrupted")
    assert read_resume(tmp_path).checkpoint == finetune
    write(tmp_path / "finetune", made())
    with pytest.raises(WeightsError, match="all its trainings are complete"):
        read_resume(tmp_path)


def test_what_cannot_be_gone_on_with_is_said(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no checkpoints/last\.ckpt"):
        read_resume(tmp_path / "nowhere")
    (tmp_path / "x.ckpt").write_text("no checkpoint")
    with pytest.raises(WeightsError, match="cannot be read as a checkpoint"):
        read_resume(tmp_path / "x.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "y.ckpt")
    with pytest.raises(WeightsError, match="does not say which phase"):
        read_resume(tmp_path / "y.ckpt")
    finetune = fit(tmp_path / "finetune", "finetune")
    with pytest.raises(WeightsError, match=r"a finetune fit, and this job has pretrain\."):
        read_resume(finetune).check(["pretrain"])
    fit(tmp_path / "pretrain", "pretrain", "interrupted")
    with pytest.raises(WeightsError, match="whose training is interrupted"):
        read_resume(finetune)
