"""What is published of the models of `study=years`: the list, held against timm, the study's config and itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import timm
import torch
from omegaconf import OmegaConf

from experiments.command_line import CONF
from experiments.history import history, published_epochs, published_facts, published_trainings


def test_the_list_is_of_many_years_and_in_their_order() -> None:
    rows = list(history().values())
    assert len(rows) >= 40
    assert all(earlier.year <= later.year for earlier, later in pairwise(rows))
    assert {row.year for row in rows} == set(range(2014, 2025))
    assert all(row.arxiv.startswith(f"{row.year % 100:02d}") for row in rows)
    assert all(0.65 < row.top1 < 0.9 for row in rows)


def test_every_model_is_one_of_timms_with_these_weights_and_this_size() -> None:
    for row in history().values():
        config = timm.get_pretrained_cfg(row.timm_name)
        assert config is not None
        assert (config.tag, config.input_size[-1]) == (row.timm_name.partition(".")[2], row.image_size)
        assert config.num_classes == 1000


@pytest.mark.parametrize("name", ["vgg16.tv_in1k", "swin_base_patch4_window7_224.ms_in1k", "starnet_s4.in1k"])
def test_the_parameters_are_those_of_the_model_that_is_built(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert sum(one.numel() for one in model.parameters()) == pytest.approx(history()[name].params, rel=0.005)


def test_a_published_schedule_says_where_it_is_from() -> None:
    known = [row for row in history().values() if row.epochs is not None]
    assert len(known) > 25
    assert {row.year for row in known} >= {2014, 2015, 2016, 2019, 2020, 2021, 2022, 2023, 2024}
    assert all(row.epochs_from for row in known)
    assert not any(row.epochs_from for row in history().values() if row.epochs is None)
    assert published_trainings().split(",") == [row.timm_name for row in known]
    with pytest.raises(ValueError, match=r"No published schedule of nasnetalarge\.tf_in1k is known: give recipe\.epochs=N"):
        published_epochs("nasnetalarge.tf_in1k")


@pytest.mark.parametrize(("family", "name"), [("resnet", "resnet50"), ("efficientnet", "efficientnet_b0")])
def test_the_schedules_of_the_studys_families_are_the_same_ones(family: str, name: str) -> None:
    of_family = OmegaConf.load(CONF / "published.yaml")
    schedule = of_family[family].pretrain
    epochs = schedule.get("epochs") or schedule.updates * schedule.batch_size / of_family.images.imagenet
    (row,) = [row for row in history().values() if row.timm_name.startswith(f"{name}.")]
    assert row.epochs == pytest.approx(epochs, rel=0.01)


def test_what_other_weights_reach_is_not_known() -> None:
    assert published_facts("resnet50.a1_in1k") == {"year": 2015, "arxiv": "1512.03385"}
    assert published_facts("test_resnet") == {}
