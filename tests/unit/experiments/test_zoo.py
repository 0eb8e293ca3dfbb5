"""The zoo: eight families, and what it says of them agrees with timm."""

from __future__ import annotations

import pytest
import timm

from experiments.zoo import SCALES, ZOO, family_of


def test_the_eight_families_in_the_studys_order() -> None:
    assert list(ZOO) == ["resnet", "efficientnet", "mobilenet", "vit", "swin", "beit", "mae", "clip"]


@pytest.mark.parametrize("family", ZOO.values(), ids=str)
def test_every_scale_is_a_timm_model_and_its_licence_is_timms(family: object) -> None:
    for scale in SCALES:
        assert timm.is_model(family.size(scale).timm_name.split(".")[0])
    published = timm.get_pretrained_cfg(family.size("paper").timm_name)
    assert published.license == family.licence
    assert published.input_size[-1] == family.size("paper").image_size == 224


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("resnet", "a1_in1k"),
        ("efficientnet", "ra_in1k"),
        ("mobilenet", "ra_in1k"),
        ("vit", "augreg2_in21k_ft_in1k"),
        ("swin", "ms_in22k_ft_in1k"),
        ("beit", "in22k_ft_in22k_in1k"),
        ("mae", "mae"),
        ("clip", "laion2b_ft_in12k_in1k"),
    ],
)
def test_the_weights_are_those_whose_licence_was_looked_up(name: str, tag: str) -> None:
    assert timm.get_pretrained_cfg(ZOO[name].size("paper").timm_name).tag == tag


def test_years_are_those_of_the_arxiv_numbers() -> None:
    assert all(family.arxiv.startswith(f"{family.year % 100:02d}") for family in ZOO.values())


def test_an_unknown_family_names_the_known() -> None:
    with pytest.raises(ValueError, match="resnet, efficientnet"):
        family_of("alexnet")
