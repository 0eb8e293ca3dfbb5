"""What is read and given is what stands behind the Trainer's properties, and nothing is computed for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_watt.trainer import facts
from tests.integration.tiny import PACKAGES, QUIET, package

pytestmark = [pytest.mark.filterwarnings(entry) for entry in QUIET]


@pytest.fixture(params=PACKAGES)
def trainer(request: Any, tmp_path: Any) -> Any:
    """A real Trainer, which has not run."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return package(request.param).Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet)


def test_what_is_given_is_what_the_trainer_shows(trainer):
    facts.give_metrics(trainer, {"watt/energy_kwh": 0.5})
    facts.show_in_bar(trainer, {"W": 3.0})
    assert trainer.callback_metrics == {"watt/energy_kwh": torch.tensor(0.5, dtype=torch.float64)}
    assert trainer.progress_bar_metrics == {"W": 3.0}
    assert facts.computed_metrics(trainer) is trainer.callback_metrics


def test_nothing_is_computed(trainer, monkeypatch):
    """The properties are what computes; none of them may be asked."""

    def computes(self: Any) -> Any:
        raise AssertionError("this computes")

    for name in ("metrics", "callback_metrics", "logged_metrics", "progress_bar_metrics"):
        monkeypatch.setattr(type(trainer._logger_connector), name, property(computes))
    facts.give_metrics(trainer, {"watt/energy_kwh": 0.5})
    facts.show_in_bar(trainer, {"W": 3.0})
    assert list(facts.computed_metrics(trainer)) == ["watt/energy_kwh"]


def test_a_lightning_that_keeps_them_elsewhere_is_survived():
    facts.give_metrics(object(), {"watt/energy_kwh": 0.5})
    facts.show_in_bar(object(), {"W": 3.0})
    assert facts.computed_metrics(object()) == {}
