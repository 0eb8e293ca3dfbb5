"""The zoo: eight families, and what it says of them agrees with timm."""

from __future__ import annotations

import pytest
import timm

from experiments.zoo import SCALES, ZOO, UnknownModelError, family_of, known_facts, published_config


def test_the_eight_families_in_the_studys_order() -> None:
    assert list(ZOO) == ["resnet", "efficientnet", "mobilenet", "vit", "swin", "beit", "mae", "clip"]


@pytest.mark.parametrize("family", ZOO.values(), ids=list(ZOO))
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


@pytest.mark.parametrize(
    ("family", "name", "known"),
    [
        ("vit", "vit_base_patch16_224", {"family": "vit", "year": 2020, "arxiv": "2010.11929"}),
        ("resnet", "resnet50.a1_in1k", {"family": "resnet", "year": 2015, "arxiv": "1512.03385"}),
        ("timm", "convnextv2_atto", {"family": "convnext", "year": 2023, "arxiv": "2301.00808"}),
        # Not ResNet's paper and year, though they are in the same module; the paper that timm names is of these weights.
        ("resnet", "resnet34.a1_in1k", {"family": "resnet", "year": 2021, "arxiv": "2110.00476"}),
        ("resnet", "resnext26ts.ra2_in1k", {"family": "byobnet", "year": None, "arxiv": None}),
        (
            "timm",
            "resnext50_32x4d.tv_in1k",
            {"family": "resnet", "year": 2016, "arxiv": "1611.05431", "published_top1": 0.77632},
        ),
        ("timm", "resnext50_32x4d.a1_in1k", {"year": 2016, "arxiv": "1611.05431", "published_top1": None, "paper": None}),
        ("resnet", "test_vit2", {"family": "vision_transformer", "year": None, "arxiv": None, "paper": None}),
    ],
)
def test_a_model_has_no_paper_that_is_not_its_own(family: str, name: str, known: dict[str, object]) -> None:
    facts = known_facts(family, name)
    assert {key: facts.get(key) for key in known} == known
    assert all(facts.values())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet5O", "no model 'resnet5O'. Did you mean resnet50"),
        ("vit_base_patch16_224.augreg2_in21k", "no weights .* Did you mean .*augreg2_in21k_ft_in1k"),
        ("q", "no model 'q'"),
    ],
)
def test_an_unknown_name_gets_the_close_ones(name: str, said: str) -> None:
    with pytest.raises(UnknownModelError, match=said):
        published_config(name)
