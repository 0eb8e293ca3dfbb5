"""The tasks: what does not serve one is refused in a sentence, before anything is read or built."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.command_line import users_error
from experiments.run import run
from experiments.tasks.base import TASKS, TaskError, check_combination
from tests.integration.study import composed, options


def test_every_task_is_an_option() -> None:
    assert options("task") == sorted(TASKS)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("task=action", "model=resnet"), r"model=resnet is for task=.*, and this is task=action\. .* there is model=.*own"),
        (
            ("task=segment", "model=own", "model._target_=a.B", "data=digits"),
            r"data=digits is for task=classify, .* there is data=.*own",
        ),
    ],
)
def test_what_does_not_serve_the_task_is_refused(overrides: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=said) as refused:
        run(composed(*overrides), tmp_path)
    assert users_error(refused.value) == str(refused.value)  # a sentence, no traceback
    assert not list(tmp_path.iterdir())


def test_a_phase_that_the_task_does_not_have_is_refused() -> None:
    cfg = composed()
    cfg.phase._target_ = "experiments.phases.other.distil"
    with pytest.raises(TaskError, match="task=classify has no phase=distil; it has finetune, inference, lifecycle"):
        check_combination(cfg)


def test_data_of_the_users_own_serves_every_task() -> None:
    for task in TASKS:
        check_combination(composed(f"task={task}", "model=own", "model._target_=a.B", "data._target_=torch.nn.Linear"))
