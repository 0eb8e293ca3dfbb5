"""Every option of every config group composes and builds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from experiments.boards import each_board
from experiments.command_line import CONF
from experiments.history import history, published_trainings
from experiments.job import Job
from experiments.models import build_model, count_gflops, model_info, size_of
from experiments.modules.recipe import Recipe
from experiments.phases.pretrain import self_supervised
from experiments.settings import options_of, recipe_of
from experiments.zoo import ALL, SCALES, ZOO
from lightning_watt import WattCallback
from tests.integration.study import composed, options

pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")
GROUPS = ("task", "model", "phase", "scale", "data", "device", "watt", "study")
REQUIRED = {
    "data=image_folder": ["data.root=somewhere"],
    "data=image_text": ["data.root=somewhere"],
    "data=webdataset": ["data.root=somewhere"],
    "data=mask_folder": ["data.root=somewhere"],
    "data=video_folder": ["data.root=somewhere"],
    "data=own": ["data._target_=package.Data"],
    "model=own": ["model._target_=package.Net", "data._target_=package.Data"],
    "model=timm": ["model.timm_name=resnet18"],
}
"""What an option leaves to its user."""
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm", "ray")


@pytest.mark.parametrize(("group", "option"), [(group, option) for group in GROUPS for option in options(group)])
def test_option_composes(group: str, option: str) -> None:
    cfg = composed(f"{group}={option}", *REQUIRED.get(f"{group}={option}", []))
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # every reference leads somewhere
    assert cfg.trainer._target_ == "pytorch_lightning.Trainer"
    assert set(cfg.model) >= {"family", "timm_name", "image_size", "options", "recipe"}


def test_groups_hold_the_contract() -> None:
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} == {*GROUPS, "hydra"}
    assert options("model") == sorted([*ALL, "own", "timm"])
    assert options("scale") == sorted(SCALES)
    assert set(options("phase")) == {"pretrain", "finetune", "inference", "lifecycle", "project"}
    assert set(options("data")) >= {"digits", "fashion_mnist", "cifar10", "emoji", "image_folder"}
    assert set(options("device")) >= {"auto", "cpu", "gpu"}


def test_advice_takes_its_candidates_in_turn_and_each_early_and_late_alike() -> None:
    sweeper = composed("study=advice", "rounds=4", hydra=True).hydra.sweeper
    given = [*(f"{key}={value}" for key, value in sweeper.params.items()), "num_workers=0,1,2", "compile=false,true"]
    made = get_class(sweeper._target_)
    (jobs,) = made.split_arguments(OverridesParser.create().parse_overrides(given), sweeper.max_batch_size)
    rounds = [jobs[start : start + 6] for start in range(0, 24, 6)]
    assert [{job[0] for job in jobs} for jobs in rounds] == [{f"phase.round={number}"} for number in range(4)]
    orders = [[tuple(job[1:]) for job in jobs] for jobs in rounds]
    assert [sorted(order) for order in orders] == [sorted(orders[0])] * 4
    assert {sum(order.index(one) for order in orders) for one in orders[0]} == {4 * 5 // 2}
    assert len({tuple(order) for order in orders}) == 4
    in_parts = made.split_arguments(OverridesParser.create().parse_overrides(given), 7)
    assert [len(part) for part in in_parts] == [7, 7, 7, 3]
    assert [job for part in in_parts for job in part] == jobs


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", sorted(ZOO))
def test_model_builds_at_every_scale(name: str, scale: str) -> None:
    cfg = composed(f"model={name}", f"scale={scale}")
    size = size_of(cfg)
    with torch.device("meta"):  # shapes without the time to fill them
        model = build_model(cfg, in_chans=3, num_classes=7).eval()
        assert model(torch.empty(2, 3, size.image_size, size.image_size)).shape == (2, 7)
    assert count_gflops(model, 3, size.image_size) > 0
    for phase in cfg.model.recipe:
        recipe = recipe_of(cfg, phase)
        assert isinstance(recipe, Recipe)
        assert recipe.warmup_epochs < recipe.epochs


# The rate at its peak and at the cosine's end, as papers and authors' code have it for the batch they train with.
PUBLISHED_RATES = {
    ("resnet", "pretrain"): (0.1, None),
    ("efficientnet", "pretrain"): (0.256, None),
    ("mobilenet", "pretrain"): (0.1, None),
    ("vit", "pretrain"): (3e-3, 0),
    ("vit", "finetune"): (0.03, 0),
    ("swin", "pretrain"): (1e-3, 1e-5),
    ("swin", "finetune"): (4e-5, 4e-7),
    ("beit", "tokenizer"): (1e-4, 1.25e-6),
    ("beit", "pretrain"): (1.5e-3, 1e-5),
    ("beit", "finetune"): (4e-3, 1e-6),
    ("mae", "pretrain"): (2.4e-3, 0),
    ("mae", "finetune"): (2e-3, 1e-6),
    ("clip", "pretrain"): (5e-4, 0),
}


@pytest.mark.parametrize(("name", "phase"), PUBLISHED_RATES)
def test_a_papers_rate_is_reached_at_its_batch(name: str, phase: str) -> None:
    peak, end = PUBLISHED_RATES[name, phase]
    recipe = recipe_of(composed(f"model={name}", "scale=paper"), phase)
    assert recipe.peak_lr(recipe.batch_size) == pytest.approx(peak)
    if end is not None:
        assert recipe.schedule == "cosine"
        assert recipe.peak_lr(recipe.batch_size) * recipe.lr_factor(100, 100, 1) == pytest.approx(end)


@pytest.mark.parametrize("scale", ["tiny", "small"])
@pytest.mark.parametrize("name", ["mae", "beit", "clip"])
def test_self_supervised_module_builds(name: str, scale: str, tmp_path: Path) -> None:
    cfg = composed(f"model={name}", f"scale={scale}")
    job = Job(cfg, tmp_path)
    data = job.data(recipe_of(cfg, "pretrain"), "pretrain")
    backbone = build_model(cfg, in_chans=data.in_chans, num_classes=0)
    tokenizer = None
    if name == "beit":
        from experiments.modules.visual_tokenizer import VisualTokenizer

        tokenizer = VisualTokenizer.for_backbone(backbone, recipe_of(cfg, "tokenizer"), **options_of(cfg, "tokenizer"))
    module = self_supervised(job, backbone, recipe_of(cfg, "pretrain"), data, tokenizer)
    again = build_model(cfg, in_chans=data.in_chans, num_classes=0)
    again.load_state_dict(module.backbone_state(), strict=True)


def test_years_sweeps_over_all_whose_numbers_are_published() -> None:
    swept = composed("study=years", hydra=True).hydra.sweeper.params["model.timm_name"]
    parsed = OverridesParser.create().parse_override(f"model.timm_name={swept}")
    assert list(parsed.sweep_string_iterator()) == list(history())


def test_years_projects_the_trainings_whose_schedule_is_published() -> None:
    sweep = "study=years_training"
    swept = composed(sweep, hydra=True).hydra.sweeper.params["model.timm_name"]
    assert swept == published_trainings()
    cfg = composed(sweep, "model=timm", "model.timm_name=vgg16.tv_in1k")
    assert (recipe_of(cfg, "pretrain").epochs, cfg.phase.images) == (74, 1281167)


@pytest.mark.parametrize("option", ["tiny", "scratch"])
def test_a_study_sweeps_over_families(option: str) -> None:
    swept = composed(f"study={option}", hydra=True).hydra.sweeper.params.model.split(",")
    assert swept == list(ZOO) if option == "tiny" else set(swept) < set(ZOO)


def test_boards_and_models_come_in_turn_and_each_early_and_late_alike() -> None:
    sweeper = composed("study=boards", "rounds=2", "device=cpu", hydra=True).hydra.sweeper
    assert dict(sweeper.params) == {
        "seed": "range(2)",
        "model": "resnet,mobilenet,vit,swin",
        "device.boards": each_board("cpu"),
    }
    given = [*(f"{key}={value}" for key, value in sweeper.params.items()), "model=swin,mae", "device.boards=0,1,2"]
    (jobs,) = get_class(sweeper._target_).split_arguments(OverridesParser.create().parse_overrides(given), None)
    assert [job[0] for job in jobs] == ["seed=0"] * 6 + ["seed=1"] * 6
    first, second = ([job[1:] for job in jobs if job[0] == seed] for seed in ("seed=0", "seed=1"))
    assert first == second[::-1]
    assert sorted(first) == [[f"model={name}", f"device.boards={board}"] for name in ("mae", "swin") for board in range(3)]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launcher_builds(launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if launcher == "ray" and find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("needs Ray and its launcher: pip install hydra-ray-launcher")
    cfg = composed(f"hydra/launcher={launcher}", hydra=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)  # the directories are named after the options chosen
    context = HydraContext(config_loader=None, callbacks=None)
    made = Plugins.instance().instantiate_launcher(config=cfg, hydra_context=context, task_function=lambda _: None)
    assert isinstance(made, Launcher)


@pytest.mark.parametrize("option", options("phase"))
def test_phase_builds(option: str) -> None:
    assert callable(instantiate(composed(f"phase={option}").phase))


@pytest.mark.parametrize("option", options("watt"))
def test_watt_builds(option: str) -> None:
    cfg = composed(f"watt={option}")
    if option == "none":
        assert cfg.watt is None
        return
    callback = instantiate(cfg.watt, _convert_="all")
    assert isinstance(callback, WattCallback)
    assert callback.sam_unit == "J"
    assert callback.batches == (option == "batches")


@pytest.mark.parametrize("option", options("device"))
def test_device_builds(option: str, tmp_path: Path) -> None:
    job = Job(composed(f"device={option}", "watt=none"), tmp_path)
    if option == "gpu" and not torch.cuda.is_available():
        with pytest.raises(pl.utilities.exceptions.MisconfigurationException, match="gpu"):
            job.trainer()
        return
    assert job.trainer().num_devices == 1


def test_an_unknown_scale_names_the_known_ones() -> None:
    cfg = composed()
    cfg.scale.name = "huge"
    with pytest.raises(ValueError, match="tiny, small, paper"):
        size_of(cfg)


def test_model_info_is_what_the_record_needs(tmp_path: Path) -> None:
    cfg = composed("model=vit")
    data = Job(cfg, tmp_path).data()
    info = model_info(cfg, build_model(cfg, in_chans=1, num_classes=10), data, "pretrain")
    assert info["family"] == "vit"
    assert info["timm_name"] == "test_vit"
    assert info["params"] == 256_458
    # 16 patches and a class token through 6 blocks of width 64: 0.00903 GFLOP of multiply-adds counted as two.
    assert info["gflops_per_sample"] == pytest.approx(0.0090, rel=0.02)


def test_another_timm_model_takes_the_familys_place() -> None:
    cfg = composed("model=vit", "model.timm_name=test_vit2", "model.image_size=64", "+model.options.patch_size=16")
    model = build_model(cfg, in_chans=1, num_classes=3)
    assert model.patch_embed.patch_size == (16, 16)
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 3)
