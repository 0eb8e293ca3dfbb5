"""What a user writes and how it is answered."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra.errors import InstantiationException

from experiments.command_line import CONF, check_names, users_error
from experiments.modules.recipe import Recipe


def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "experiments.run", *arguments], capture_output=True, text=True, cwd=CONF.parent, check=False
    )


@pytest.mark.parametrize(
    ("argument", "meant"), [("modle=vit", "model"), ("recpie.lr=1", "recipe"), ("sead=1", "seed"), ("phase1=a", "phase")]
)
def test_an_unknown_name_is_answered_with_the_nearest(argument: str, meant: str) -> None:
    assert f"Did you mean {meant}=?" in check_names(["-m", argument])


@pytest.mark.parametrize(
    ("argument", "meant"),
    [("model=vitt", "model=vit"), ("model=resnet,resnet50", "model=resnet"), ("data=fashion-mnist", "data=fashion_mnist")],
)
def test_an_unknown_option_is_answered_with_the_nearest(argument: str, meant: str) -> None:
    assert f"Did you mean {meant}?" in check_names(["-m", argument])
    assert "Options of" in check_names([argument.replace(",", "_")])


def test_known_and_added_names_pass() -> None:
    known = [
        "model=vit,swin",
        "device=0,1",
        "device=[0,1]",
        "study=null",
        "model=choice(vit,new)",
        "model.options={}",
        "seed=1",
        "+trainer.fast_dev_run=1",
        "~watt",
        "hydra.run.dir=a=b",
        "--help",
    ]
    assert check_names(known) == ""


def test_an_error_of_the_user_is_its_sentence_and_another_keeps_its_traceback() -> None:
    def caught(make):
        with pytest.raises(Exception) as found:  # noqa: PT011 - whatever it is
            make()
        return found.value

    wrong = caught(lambda: Recipe(lr=-1))
    assert users_error(wrong).startswith("a recipe needs lr above 0")
    wrapped = InstantiationException("hydra's own words")
    wrapped.__cause__ = wrong
    assert users_error(wrapped) == users_error(wrong)
    assert users_error(caught(lambda: int("x"))) == ""  # raised elsewhere: a fault of ours


def test_help_lists_the_groups_and_a_wrong_name_ends_with_a_sentence() -> None:
    shown = asked("--help")
    assert shown.returncode == 0
    assert all(line in shown.stdout for line in ("model: beit, clip", "phase: finetune, inference", "seed: 0"))
    wrong = asked("modle=vit")
    assert (wrong.returncode, wrong.stderr.splitlines()[0]) == (1, "modle= is not known. Did you mean model=?")
