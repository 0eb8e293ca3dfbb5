"""Which fit a resume belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.restart.resume import FIT, LAST, Resume, WholeCheckpoints, metrics_of, note_done, read_resume, resume_in
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


LIFECYCLE = ["tokenizer", "pretrain", "finetune"]


def test_an_earlier_start_is_gone_on_with_where_it_stopped(tmp_path: Path) -> None:
    assert resume_in(tmp_path, LIFECYCLE) == Resume("tokenizer")
    fit(tmp_path / "pretrain" / "tokenizer", "tokenizer")
    tokenizer = {"tokenizer": tmp_path / "pretrain" / "tokenizer"}
    assert resume_in(tmp_path, LIFECYCLE) == Resume("pretrain", None, tokenizer)
    checkpoint = fit(tmp_path / "pretrain", "pretrain", "running")
    assert resume_in(tmp_path, LIFECYCLE) == Resume("pretrain", checkpoint, tokenizer)
    note_done(tmp_path / "pretrain", "pretrain", {"test_acc": 0.5})  # also where nothing was measured
    done = tokenizer | {"pretrain": tmp_path / "pretrain"}
    assert resume_in(tmp_path, LIFECYCLE) == Resume("finetune", None, done)
    fit(tmp_path / "finetune", "finetune")
    assert resume_in(tmp_path, LIFECYCLE) == Resume(finished=done | {"finetune": tmp_path / "finetune"})
    assert metrics_of(tmp_path / "pretrain") == {"test_acc": 0.5}
    assert resume_in(tmp_path / "pretrain", ["pretrain"]) == Resume(finished={"pretrain": tmp_path / "pretrain"})
    assert resume_in(tmp_path, []) == Resume()  # an inference is made again


def test_a_start_that_was_itself_resumed_falls_back_on_that(tmp_path: Path) -> None:
    given = Resume("finetune", tmp_path / "elsewhere.ckpt", {"pretrain": tmp_path / "elsewhere"})
    assert resume_in(tmp_path / "job", ["pretrain", "finetune"], given) is given
    own = fit(tmp_path / "job" / "finetune", "finetune", "running")
    assert resume_in(tmp_path / "job", ["pretrain", "finetune"], given) == Resume("finetune", own, given.finished)


def test_a_checkpoint_that_cannot_be_read_is_said_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path, "pretrain", "running").write_bytes(b"half a file")
    assert resume_in(tmp_path, ["pretrain"]) == Resume("pretrain")
    assert "The pretrain fit begins anew." in caplog.text


def test_a_checkpoint_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_half(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise KeyboardInterrupt  # killed, while it copies to another disk

    saver, file = WholeCheckpoints(), tmp_path / "last.ckpt"
    saver.save_checkpoint({"epoch": 1}, file)
    monkeypatch.setattr("shutil.move", copy_half)
    with pytest.raises(KeyboardInterrupt):
        saver.save_checkpoint({"epoch": 2}, file)
    assert torch.load(file, weights_only=True) == {"epoch": 1}
