"""MAE, BEiT and CLIP through a real Trainer: the loss falls, weights come back as timm's, nothing hidden is seen."""

import json
import os
import pickle
import random

import pytest
import pytorch_lightning as pl
import timm
import torch
from torch.utils.data import DataLoader, TensorDataset

from experiments.data.base import DataMissingError
from experiments.data.digits import Digits
from experiments.data.emoji import FONT, NAMES, REMEDY, EmojiData, EmojiSet
from experiments.modules.beit import BEiTPretrain, blockwise_mask
from experiments.modules.clip import CLIPPretrain
from experiments.modules.mae import MAEPretrain, random_patch_mask
from experiments.modules.recipe import Recipe
from experiments.modules.visual_tokenizer import VisualTokenizer
from tests import forked
from tests.integration.tiny import ended, free_port, ranks_env
from tests.integration.tokenizer_ranks import IMAGES

BEIT_SIZE = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "init_values": 0.1}
DECODER = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
TEXT = {"joint_width": 32, "text_width": 32, "text_depth": 1, "text_heads": 2, "context": 16}
needs_emoji = pytest.mark.skipif(not (FONT.is_file() and NAMES.is_file()), reason=f"no emoji font. {REMEDY}")


# Lightning's advice on loaders: more workers, a log interval below the few steps of a test, a missing val loader.
pytestmark = pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning")


@pytest.fixture(autouse=True)
def _seeded():
    pl.seed_everything(0, verbose=False)


def vit(**options):
    return timm.create_model("test_vit", **{"img_size": 32, "patch_size": 8, "num_classes": 0} | options)


def beit(**options):
    return timm.create_model("beitv2_base_patch16_224", **{"img_size": 32, "num_classes": 0} | BEIT_SIZE | options)


def tokenizer_for(backbone, **options):
    small = {"codes": 32, "width": 16, "code_width": 8, "memory": 0.9} | options
    return VisualTokenizer.for_backbone(backbone, Recipe(lr=5e-3, weight_decay=0.0), **small)


def pictures(count=32, channels=3, size=32):
    """Smooth random pictures, so that a patch says something about its neighbours."""
    coarse = torch.randn(count, channels, 4, 4)
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def digits():
    """Real digits at 32 px, (images, labels) of the validation and test parts: 488 pictures."""
    data = Digits(image_size=32, batch_size=32)
    data.setup()
    parts = (data.val_set, data.test_set)
    return torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])


def trainer(epochs, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "accelerator": "cpu"}
    return pl.Trainer(max_epochs=epochs, **quiet | options)


def loader(*columns, batch_size=16):
    return DataLoader(TensorDataset(*columns), batch_size=batch_size)


def fit(module, batches, epochs=12):
    """Validate, train, validate: the metrics before and after, and those of the last training step."""
    run = trainer(epochs)
    before = run.validate(module, batches, verbose=False)[0]
    run.fit(module, batches)
    trained = {name: value.item() for name, value in run.callback_metrics.items()}
    return before, run.validate(module, batches, verbose=False)[0], trained


def assert_loads_strictly(state, fresh):
    fresh.load_state_dict(state, strict=True)
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(value, state[name])


# MAE


@pytest.mark.parametrize("channels", [1, 3])
def test_mae_learns_and_gives_timm_its_weights_back(channels):
    images = pictures(channels=channels)
    mae = MAEPretrain(vit(in_chans=channels), Recipe(lr=3e-3), **DECODER)
    before, after, trained = fit(mae, loader(images, torch.zeros(len(images))))
    assert after["val_loss"] < 0.9 * before["val_loss"]
    assert trained["train_loss"] < before["val_loss"]
    fresh = vit(in_chans=channels)
    assert_loads_strictly(mae.backbone_state(), fresh)
    torch.testing.assert_close(fresh.eval()(images), mae.eval()(images))
    assert trainer(1).test(mae, loader(images, torch.zeros(len(images))), verbose=False)[0]["test_loss"] > 0


def test_maes_encoder_never_sees_a_hidden_patch():
    mae = MAEPretrain(vit(), Recipe(), **DECODER).eval()
    images = pictures(4).requires_grad_()
    keep, hide = random_patch_mask(4, 16, 0.75)
    mae.encode_visible(images, keep).square().sum().backward()
    seen = images.grad.abs().sum(dim=1).unfold(1, 8, 8).unfold(2, 8, 8).sum(dim=(3, 4)).flatten(1)
    assert (seen.gather(1, hide) == 0).all()
    assert (seen.gather(1, keep) > 0).all()


def test_maes_encoder_works_on_a_quarter_of_the_tokens_and_its_decoder_on_all():
    mae = MAEPretrain(vit(), Recipe(), **DECODER)
    lengths = {}
    for name, block in {"encoder": mae.encoder.vit.blocks[0], "decoder": mae.decoder.blocks[0]}.items():
        block.register_forward_hook(lambda _m, args, _o, name=name: lengths.update({name: args[0].shape[1]}))
    mae._loss(pictures(2))
    assert lengths == {"encoder": 1 + 16 // 4, "decoder": 1 + 16}


@pytest.mark.parametrize("ratio", [0.4, 0.75, 0.99])
def test_a_random_mask_parts_the_patches(ratio):
    keep, hide = random_patch_mask(5, 16, ratio)
    assert keep.shape[1] == max(1, int(16 * (1 - ratio)))
    assert (torch.cat([keep, hide], dim=1).sort(dim=1).values == torch.arange(16)).all()


def test_mae_with_register_tokens_keeps_every_prefix_token():
    mae = MAEPretrain(vit(reg_tokens=2), Recipe(), **DECODER)
    assert mae.encode_visible(pictures(2), torch.tensor([[3], [5]])).shape[1] == 3 + 1
    assert_loads_strictly(mae.backbone_state(), vit(reg_tokens=2))


def test_mae_can_go_on_from_given_weights():
    given = vit()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    state = MAEPretrain(given, Recipe(), initialise=False, **DECODER).backbone_state()
    assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_mae_says_what_it_cannot_take():
    with pytest.raises(TypeError, match="Use a timm VisionTransformer"):
        MAEPretrain(beit(), Recipe())
    with pytest.raises(ValueError, match=r"the paper's is 0\.75"):
        MAEPretrain(vit(), Recipe(), mask_ratio=1.0)


# BEiT


def test_the_tokenizer_learns_to_paint_and_uses_its_codes(digits):
    tokenizer = tokenizer_for(beit(in_chans=1))
    before, after, trained = fit(tokenizer, loader(*digits), epochs=4)
    assert after["val_loss"] < 0.5 * before["val_loss"]
    assert trained["train_loss"] < before["val_loss"]
    assert after["val_codes_used"] > 0.9
    assert 16 < after["val_perplexity"] <= 32


@pytest.mark.ddp
def test_the_codes_follow_the_cells_of_all_devices(tmp_path):
    """With a memory of nothing, a code's members are the cells that were given to it in the last step."""
    files = [tmp_path / f"{rank}.json" for rank in range(2)]
    module, env = "tests.integration.tokenizer_ranks", ranks_env(2, free_port())
    ranks = [
        forked.start(module, str(file), env=os.environ | own, imports="experiments.run")
        for file, own in zip(files, env, strict=True)
    ]
    said = ended(ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)
    first, second = (json.loads(file.read_text())["members"] for file in files)
    assert first == second
    cells = 2 * IMAGES * 16
    assert cells <= sum(first) < 1.2 * cells  # a code that was restarted has a fifth of a fair share


@pytest.mark.parametrize(("size", "patch"), [(32, 8), (64, 16), (32, 4)])
def test_one_token_for_each_patch_of_the_encoder(size, patch):
    backbone = beit(img_size=size, patch_size=patch)
    tokens = tokenizer_for(backbone).tokens(pictures(2, size=size))
    assert tokens.shape == (2, backbone.patch_embed.num_patches)
    assert tokens.dtype == torch.long
    assert 0 <= tokens.min() <= tokens.max() < 32


def test_beit_learns_and_gives_timm_its_weights_back_and_leaves_the_tokenizer_alone(digits):
    backbone, images = beit(in_chans=1), digits[0]
    tokenizer = tokenizer_for(backbone)
    fit(tokenizer, loader(*digits), epochs=2)
    frozen = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    module = BEiTPretrain(backbone, Recipe(lr=5e-3), tokenizer=tokenizer)
    before, after, trained = fit(module, loader(*digits), epochs=6)
    assert after["val_loss"] < before["val_loss"] - 0.5
    assert trained["train_loss"] < before["val_loss"]
    assert after["val_token_acc"] > after["val_majority"]
    for name, value in tokenizer.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    fresh = beit(in_chans=1)
    assert_loads_strictly(module.backbone_state(), fresh)
    torch.testing.assert_close(fresh.eval()(images), module.eval()(images))


def test_beits_encoder_sees_the_mask_token_in_place_of_a_hidden_patch():
    backbone = beit()
    module = BEiTPretrain(backbone, Recipe(), tokenizer=tokenizer_for(backbone)).eval()
    images = pictures(3).requires_grad_()
    mask = module.masks(3, random.Random(0))
    module.encode_masked(images, mask).square().sum().backward()
    seen = images.grad.abs().sum(dim=1).unfold(1, 8, 8).unfold(2, 8, 8).sum(dim=(3, 4)).flatten(1)
    assert (seen[mask] == 0).all()
    assert (seen[~mask] > 0).all()
    assert module.mask_token.grad.abs().sum() > 0


def test_the_mask_is_gone_after_masked_encoding():
    backbone = beit().eval()
    module = BEiTPretrain(backbone, Recipe(), tokenizer=tokenizer_for(backbone)).eval()
    images = pictures(2)
    before = module(images)
    module.encode_masked(images, torch.ones(2, 16, dtype=torch.bool))
    torch.testing.assert_close(module(images), before)


def test_the_tokenizer_stays_frozen_and_in_eval_mode():
    backbone = beit()
    module = BEiTPretrain(backbone, Recipe(), tokenizer=tokenizer_for(backbone)).train()
    assert not module.tokenizer.training
    assert not any(parameter.requires_grad for parameter in module.tokenizer.parameters())


@pytest.mark.parametrize(("side", "hidden"), [(14, 78), (14, 75), (4, 6), (8, 26), (2, 1)])
def test_a_block_mask_hides_exactly_so_many(side, hidden):
    for seed in range(20):
        mask = blockwise_mask(side, side, hidden, random.Random(seed))
        assert mask.shape == (side * side,)
        assert mask.sum() == hidden


def test_a_block_mask_is_made_of_blocks():
    rng, generator = random.Random(0), torch.Generator().manual_seed(0)
    neighbours = {"blocks": 0.0, "single": 0.0}
    for _ in range(50):
        for name, flat in {
            "blocks": blockwise_mask(14, 14, 78, rng),
            "single": torch.rand(196, generator=generator).argsort() < 78,
        }.items():
            grid = flat.view(14, 14)
            neighbours[name] += (grid[:, 1:] & grid[:, :-1]).sum().item() / 78 / 50
    assert neighbours["blocks"] > 1.5 * neighbours["single"]


def test_beit_says_what_it_cannot_take():
    backbone = beit()
    with pytest.raises(TypeError, match="Use one such as beit_base_patch16_224"):
        BEiTPretrain(vit(), Recipe(), tokenizer=tokenizer_for(backbone))
    with pytest.raises(ValueError, match=r"VisualTokenizer\.for_backbone"):
        BEiTPretrain(beit(patch_size=16), Recipe(), tokenizer=tokenizer_for(backbone))
    with pytest.raises(ValueError, match=r"the paper's is 0\.4"):
        BEiTPretrain(backbone, Recipe(), tokenizer=tokenizer_for(backbone), mask_ratio=0.0)
    with pytest.raises(ValueError, match="no power of two"):
        VisualTokenizer(Recipe(), patch_size=14)


# CLIP


COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "black": (0, 0, 0)}
COLOURS |= {"white": (1, 1, 1), "yellow": (1, 1, 0), "magenta": (1, 0, 1), "cyan": (0, 1, 1)}


def coloured(repeats):
    """Noisy pictures of one colour each, `repeats` of every colour in turn, and the index of the colour."""
    labels = torch.arange(len(COLOURS)).repeat(repeats)
    plain = 4 * torch.tensor(list(COLOURS.values()))[labels].float() - 2
    return plain[:, :, None, None] + 0.5 * torch.randn(len(labels), 3, 32, 32), labels


def test_clip_learns_to_name_colours_without_a_classifier():
    images, labels = coloured(8)
    module = CLIPPretrain(
        vit(), Recipe(lr=2e-3), class_names=tuple(COLOURS), prompts=("a photo of a {} thing.", "all {}"), **TEXT
    )
    before, after, trained = fit(module, loader(images, labels), epochs=25)
    assert after["val_loss"] < 0.7 * before["val_loss"]
    assert trained["train_loss"] < before["val_loss"]
    assert after["val_acc"] > 0.6 > before["val_acc"]
    assert "val_image_to_text_r1" not in after  # prompts repeat, so that no image has a caption of its own
    top1 = (module.zero_shot(images).argmax(dim=1) == labels).float().mean().item()
    assert top1 == pytest.approx(after["val_acc"], abs=0.02)
    tested = trainer(1).test(module, loader(images, labels), verbose=False)[0]
    assert tested["test_acc"] == pytest.approx(after["val_acc"])
    assert_loads_strictly(module.backbone_state(), vit())


def test_clip_finds_the_caption_of_each_picture():
    pictures_with_captions = EmojiSet(*coloured(1), [f"all {colour}" for colour in COLOURS])
    data = DataLoader(pictures_with_captions, batch_size=8, collate_fn=lambda batch: batch)
    module = CLIPPretrain(vit(), Recipe(lr=2e-3), **TEXT)
    before, after, trained = fit(module, data, epochs=80)
    assert after["val_loss"] < 0.5 * before["val_loss"]
    assert trained["train_loss"] < before["val_loss"]
    assert after["val_image_to_text_r1"] > 0.6
    assert after["val_image_to_text_r10"] == 1.0  # of eight pictures
    assert after["val_acc"] == after["val_image_to_text_r1"]
    assert after["val_text_to_image_r1"] > 0.6


def test_clips_scale_never_passes_one_hundred():
    images, labels = pictures(16), torch.arange(16) % 2
    module = CLIPPretrain(vit(), Recipe(lr=1e-3), class_names=["cat", "dog"], **TEXT)
    assert module.log_scale.exp().item() == pytest.approx(1 / 0.07)
    module.log_scale.data.fill_(6.0)
    trainer(1).fit(module, loader(images, labels))
    assert module.log_scale.exp().item() == pytest.approx(100.0, rel=1e-3)


def test_clips_classes_can_be_named_anew():
    module = CLIPPretrain(vit(), Recipe(), class_names=["cat", "dog"], **TEXT).eval()
    embeddings = module.class_embeddings(["cat", "dog", "horse"])
    torch.testing.assert_close(embeddings[:2], module.class_embeddings())
    assert module.zero_shot(pictures(2), embeddings).shape == (2, 3)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_a_caption_that_is_too_long_still_ends():
    module = CLIPPretrain(vit(), Recipe(), **TEXT)
    tokens = module.tokenizer(["word " * 100], module.context)
    assert tokens.shape == (1, 16)
    assert tokens[0, -1] == module.tokenizer.eot_token_id


def test_clip_says_what_it_lacks():
    with pytest.raises(ValueError, match="where the name of the class goes"):
        CLIPPretrain(vit(), Recipe(), prompts=("a photo",), **TEXT)
    module = CLIPPretrain(vit(), Recipe(), **TEXT)
    with pytest.raises(ValueError, match="Pass class_names"):
        module.class_embeddings()
    with pytest.raises(ValueError, match="such as data=emoji"):
        trainer(1).fit(module, loader(pictures(16), torch.zeros(16, dtype=torch.long)))


# All three


def modules():
    backbone = beit()
    yield MAEPretrain(vit(), Recipe(), **DECODER)
    yield tokenizer_for(backbone)
    yield BEiTPretrain(backbone, Recipe(), tokenizer=tokenizer_for(backbone))
    yield CLIPPretrain(vit(), Recipe(), class_names=["cat", "dog"], **TEXT)


class WithoutGradient(pl.Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.names = [name for name, p in pl_module.named_parameters() if p.requires_grad and p.grad is None]


def test_every_weight_that_is_trained_gets_a_gradient():  # data-parallel training stops at one that does not
    token_pooled = beit(global_pool="token")
    others = (
        MAEPretrain(vit(global_pool="avg"), Recipe(), **DECODER),
        BEiTPretrain(token_pooled, Recipe(), tokenizer=tokenizer_for(token_pooled)),
    )
    for module in (*modules(), *others):
        watcher = WithoutGradient()
        run = trainer(1, limit_train_batches=1, callbacks=[watcher])
        run.fit(module, loader(pictures(16), torch.zeros(16, dtype=torch.long)))
        assert watcher.names == []


def test_every_module_can_be_sent_to_another_process():
    for module in modules():
        copy = pickle.loads(pickle.dumps(module))
        assert copy.state_dict().keys() == module.state_dict().keys()


def test_positions_and_tokens_are_not_decayed_and_the_frozen_are_not_optimised():
    for module in modules():
        run = trainer(1, limit_train_batches=1, limit_val_batches=0)
        run.fit(module, loader(pictures(16), torch.zeros(16, dtype=torch.long)))
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        groups = run.optimizers[0].param_groups
        optimised = {names[id(parameter)] for group in groups for parameter in group["params"]}
        decayed = {names[id(p)] for group in groups for p in group["params"] if group["weight_decay"] > 0}
        assert optimised == {name for name, p in module.named_parameters() if p.requires_grad}
        spared = ("cls_token", "pos_embed", "mask_token", "log_scale", "positional_embedding", "bias")
        assert not [name for name in decayed if name.endswith(spared)]


# Emoji


@pytest.fixture(scope="module")
def emoji():
    """All emoji at 32 px on white, in [0, 1], with captions."""
    data = EmojiData(image_size=32, batch_size=32, extra="captions", mean=[0.0], std=[1.0])
    data.setup()
    return data


def captions_of(data):
    return [part.extra for part in (data.train_set, data.val_set, data.test_set)]


@needs_emoji
def test_emoji_are_split_the_same_way_each_time_and_no_picture_is_on_two_sides(emoji):
    again = EmojiData(image_size=8, batch_size=32, extra="captions")
    again.setup()
    assert captions_of(again) == captions_of(emoji)
    captions = [caption for part in captions_of(emoji) for caption in part]
    assert len(captions) == len(set(captions)) > 3000
    assert len(emoji.test_set) == pytest.approx(0.1 * len(captions), rel=0.05)


@needs_emoji
@pytest.mark.parametrize(("classes", "count"), [("group", 9), ("subgroup", 99)])
def test_emoji_have_classes_with_names_for_prompts(classes, count):
    data = EmojiData(image_size=16, batch_size=32, classes=classes, skin_tones=False)
    assert data.num_classes == len(data.class_names) == count  # known before anything is drawn
    assert not any("-" in name for name in data.class_names)


@needs_emoji
def test_emojis_alpha_is_a_mask():
    data = EmojiData(image_size=32, batch_size=64, mean=[0.0], std=[1.0], skin_tones=False)
    _, pictures, labels = data.read(32)
    assert pictures.shape[1:] == (4, 32, 32)
    assert labels.max() < data.num_classes
    assert 0.3 < pictures[:, 3].mean() < 0.8
    data.setup()
    rows = (pictures[:, 3] == 0).sum((1, 2)) > 0  # what is transparent shows the background
    assert rows.float().mean() > 0.9
    assert all((image == 1.0).all(0).any() for image in data.test_set.images[:50])


@needs_emoji
def test_emoji_fit_their_names_and_come_in_batches(emoji):
    for name, channel in {"red circle": 0, "green circle": 1, "blue circle": 2}.items():
        part = next(part for part in (emoji.train_set, emoji.val_set, emoji.test_set) if name in part.extra)
        assert part.images[part.extra.index(name)][:, 16, 16].argmax() == channel
    images, labels, captions = next(iter(emoji.train_dataloader()))
    assert (len(images), len(labels), len(captions)) == (32, 32, 32)


@needs_emoji
def test_a_font_without_one_of_the_pictures_is_refused(tmp_path):
    names = tmp_path / "emoji-test.txt"
    names.write_text("# group: Made up\n1F600 1F601 1F602 ; fully-qualified # 😀 E1.0 three faces at once\n")
    data = EmojiData(image_size=16, batch_size=8, names_path=names)
    with pytest.raises(ValueError, match="not as one picture"):
        data.setup()


def test_missing_emoji_say_how_to_get_them_and_what_needs_nothing(tmp_path):
    data = EmojiData(image_size=16, batch_size=8, names_path=tmp_path / "emoji-test.txt")
    with pytest.raises(DataMissingError, match=r"apt-get install fonts-noto-color-emoji.*data=digits needs nothing"):
        data.setup()


def test_emoji_options_that_do_not_exist_are_refused():
    for wrong in ({"classes": "colour"}, {"extra": "sound"}):
        with pytest.raises(ValueError, match=r"emoji are classed|a batch can hold"):
            EmojiData(image_size=16, batch_size=8, **wrong)
