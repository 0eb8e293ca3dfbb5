"""The eight model families of the study, what stands for each at each scale, and what timm knows of all other models."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm

from experiments.history import published_facts
from experiments.report.inputs.run import TIMM
from experiments.tasks.family import Family, Size
from experiments.tasks.video_families import VIDEO

SCALES = ("tiny", "small", "paper")

# Licences: timm's configs and the cards of its weights on the Hugging Face hub agree on all eight (looked up by the names
# below). They are timm's word: BEiT's authors publish under MIT (microsoft/unilm), MAE's code and weights are not for
# commercial use (facebookresearch/mae), and timm's README warns that what ImageNet's own terms mean for weights trained on
# it is not settled. Not known: what the weights that these were finetuned from ask for (ImageNet-21k, LAION-2B).
#   resnet50.a1_in1k, efficientnet_b0.ra_in1k, mobilenetv3_large_100.ra_in1k, vit_base_patch16_224.mae: from ImageNet-1k
#   vit_base_patch16_224.augreg2_in21k_ft_in1k, swin_base_patch4_window7_224.ms_in22k_ft_in1k,
#   beit_base_patch16_224.in22k_ft_in22k_in1k: from the larger ImageNet, finetuned on ImageNet-1k
#   vit_base_patch16_clip_224.laion2b_ft_in12k_in1k: OpenCLIP's on LAION-2B, not OpenAI's, finetuned on ImageNet-12k and -1k

# timm's "test_" models are its own miniatures for tests. 32 px are enough for digits, whose originals are 8x8; a
# patch of 4 or 8 px keeps a transformer's sequence at 16 to 64 tokens there.
_FAMILIES = (
    Family(
        "resnet",
        "Deep Residual Learning for Image Recognition",
        2015,
        "1512.03385",
        "apache-2.0",
        "supervised",
        {"tiny": Size("test_resnet", 32), "small": Size("resnet18", 64), "paper": Size("resnet50", 224)},
    ),
    Family(
        "efficientnet",
        "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
        2019,
        "1905.11946",
        "apache-2.0",
        "supervised",
        {
            "tiny": Size("test_efficientnet", 32),
            "small": Size("tf_efficientnet_lite0", 64),
            "paper": Size("efficientnet_b0", 224),
        },
    ),
    Family(
        "mobilenet",
        "Searching for MobileNetV3",
        2019,
        "1905.02244",
        "apache-2.0",
        "supervised",
        {
            "tiny": Size("mobilenetv3_small_050", 32),
            "small": Size("mobilenetv3_small_100", 64),
            "paper": Size("mobilenetv3_large_100", 224),
        },
    ),
    Family(
        "vit",
        "An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale",
        2020,
        "2010.11929",
        "apache-2.0",
        "supervised",
        {
            "tiny": Size("test_vit", 32, {"patch_size": 8}),
            "small": Size("vit_tiny_patch16_224", 64, {"patch_size": 8}),
            "paper": Size("vit_base_patch16_224", 224),
        },
    ),
    Family(
        "swin",
        "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
        2021,
        "2103.14030",
        "mit",
        "supervised",
        {
            "tiny": Size(
                "swin_tiny_patch4_window7_224",
                32,
                {"window_size": 4, "embed_dim": 48, "depths": (2, 2), "num_heads": (2, 4)},
            ),
            "small": Size("swin_tiny_patch4_window7_224", 64, {"window_size": 4, "patch_size": 2}),
            "paper": Size("swin_base_patch4_window7_224", 224),
        },
    ),
    Family(
        "beit",
        "BEiT: BERT Pre-Training of Image Transformers",
        2021,
        "2106.08254",
        "apache-2.0",
        "masked tokens",
        {
            "tiny": Size("beit_base_patch16_224", 32, {"patch_size": 8, "embed_dim": 96, "depth": 4, "num_heads": 3}),
            "small": Size(
                "beit_base_patch16_224",
                64,
                {"patch_size": 8, "embed_dim": 192, "depth": 12, "num_heads": 3},
            ),
            "paper": Size("beit_base_patch16_224", 224),
        },
    ),
    Family(
        "mae",
        "Masked Autoencoders Are Scalable Vision Learners",
        2021,
        "2111.06377",
        "cc-by-nc-4.0",
        "masked pixels",
        {
            "tiny": Size("test_vit", 32, {"patch_size": 4}),
            "small": Size("vit_tiny_patch16_224", 64, {"patch_size": 8}),
            "paper": Size("vit_base_patch16_224.mae", 224),
        },
    ),
    Family(
        "clip",
        "Learning Transferable Visual Models From Natural Language Supervision",
        2021,
        "2103.00020",
        "apache-2.0",
        "image and text",
        {
            "tiny": Size("test_vit", 32, {"patch_size": 8}),
            "small": Size("vit_tiny_patch16_224", 64, {"patch_size": 8}),
            "paper": Size("vit_base_patch16_clip_224", 224),
        },
    ),
)

ZOO: Mapping[str, Family] = {family.name: family for family in _FAMILIES}
ALL: Mapping[str, Family] = {**ZOO, **VIDEO}
"""Those of action recognition too."""
ANY = TIMM
"""What `model=` is called for the models that the study does not list."""
OWN = "own"
"""What `model=` is called for a LightningModule of the user's own."""
CLOSE = 5  # names that an error offers


class UnknownModelError(ValueError):
    """Timm has no model, or no weights, of a name; the message has the nearest names."""


def family_of(name: str) -> Family:
    """The family that `model=name` means.

    Raises:
        ValueError: if there is no such family.

    Example:
        >>> family_of("mae").year
        2021
    """
    if name not in ALL:
        raise ValueError(f"model={name} is not one of the study's families: {', '.join(ALL)}")
    return ALL[name]


def pretraining_of(name: str) -> str:
    """How `model=name` is pretrained: as its family, or with labels."""
    return "supervised" if name == ANY else family_of(name).pretraining


def published_config(timm_name: str) -> Any:
    """Timm's own configuration of a model: its input, its normalisation, its weights and their licence.

    Args:
        timm_name: a name of timm's, with or without the tag of some weights ("resnet50", "resnet50.a1_in1k").

    Raises:
        UnknownModelError: if timm has no such model, or it has no such weights.

    Example:
        >>> published_config("resnet50.a1_in1k").input_size
        (3, 224, 224)
    """
    architecture, _, tag = timm_name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownModelError(
            f"timm {timm.__version__} has no model {architecture!r}. {_close(architecture, timm.list_models())}"
        )
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UnknownModelError(f"timm {timm.__version__} has no weights {tag!r} for {architecture}. {_close(tag, tags)}")
    return timm.get_pretrained_cfg(timm_name)


def known_facts(family_name: str, timm_name: str) -> dict[str, Any]:
    """What is known of a model: `family`, `year`, `paper`, `arxiv`, `licence`, `published_top1`; else it is left out.

    Args:
        family_name: what `model=` said.
        timm_name: the model that is run. If it is not one of the family's, what is known is what timm says: the module that
            it is in, and the paper that `history.csv` has for its architecture, or timm for its weights; many have neither.

    Example:
        >>> known_facts("resnet", "resnet50")["year"], known_facts("timm", "test_vit2")
        (2015, {'family': 'vision_transformer', 'licence': 'apache-2.0'})
    """
    own = ALL.get(family_name)
    published = published_facts(timm_name)
    if own is not None and _architecture(timm_name) in {_architecture(size.timm_name) for size in own.sizes.values()}:
        facts = {"year": own.year, "paper": own.paper, "arxiv": own.arxiv, "licence": own.licence}
        return {"family": own.name, **published, **facts}
    config = published_config(timm_name)
    arxiv = _first(config.paper_ids).removeprefix("arXiv:")
    facts = {
        "family": _module(timm_name),
        "year": 2000 + int(arxiv[:2]) if arxiv[:4].isdigit() else None,
        "paper": _first(config.paper_name),
        "arxiv": arxiv,
        "licence": config.license,
    }
    if published:
        same = facts["arxiv"] == published["arxiv"]
        facts |= {**published, "paper": facts["paper"] if same else ""}
    if own is not None and facts["family"] == _module(own.size("paper").timm_name):
        facts["family"] = own.name
    return {name: value for name, value in facts.items() if value}


def _architecture(timm_name: str) -> str:
    """A timm name without the tag of its weights."""
    return timm_name.partition(".")[0]


def _module(timm_name: str) -> str:
    """The module of timm that a model is in: "resnet", "vision_transformer"."""
    return timm.model_entrypoint(_architecture(timm_name)).__module__.rpartition(".")[2]


def _first(texts: Any) -> str:
    """The first of some texts, or the only one; empty if there is none."""
    return str(texts if isinstance(texts, str) else next(iter(texts or ()), ""))


def _close(name: str, names: list[str]) -> str:
    """Offer the names that are most like one."""
    close = difflib.get_close_matches(name, names, CLOSE, cutoff=0.5) or [other for other in names if name in other][:CLOSE]
    return f"Did you mean {', '.join(close)}?" if close else f"timm.list_models('*{name[:4]}*') lists what there is."
