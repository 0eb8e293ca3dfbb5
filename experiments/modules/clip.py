"""CLIP pretraining: an image and a text tower learn which caption belongs to which picture."""

import math
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from open_clip.loss import ClipLoss
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from experiments.losses import retrieval_recall
from experiments.modules.recipe import Recipe

# Radford et al., arXiv 2103.00020: first temperature 0.07, logits scaled by 100 at most (section 2.5); text tower
# of 12 layers, 512 wide, 8 heads (section 2.4); 512 joint features for ViT-B (table 20); 77 tokens in the
# authors' implementation; the prompt is section 3.1.4's.
FIRST_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0
TEXT_WIDTH = 512
TEXT_DEPTH = 12
TEXT_HEADS = 8
JOINT_WIDTH = 512
CONTEXT = 77
PROMPTS = ("a photo of a {}.",)
RECALLS = (1, 10)


def pair_loss(images: Tensor, texts: Tensor, scale: Tensor, rank: int = 0, world_size: int = 1) -> Tensor:
    """Symmetric cross entropy over the similarities of all pairs of a batch (arXiv 2103.00020, figure 3), by open_clip.

    With several devices each compares its own pairs with those of all, so that no device holds the whole matrix; the mean
    over the devices is the loss of the whole batch, and so are its gradients.

    Args:
        images: unit vectors, (pairs, features).
        texts: unit vectors; row i belongs to image i.
        scale: what the similarities are multiplied by, the inverse of the temperature.
        rank: the process's own, of `world_size`.
        world_size: processes that have as many pairs each.

    Returns:
        The loss in nats; log(pairs) for towers that know nothing.
    """
    loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world_size)
    return loss(images.contiguous(), texts.contiguous(), scale)


class CLIPPretrain(pl.LightningModule):
    """Contrastive language-image pretraining of a timm image tower (Radford et al., arXiv 2103.00020).

    The text tower and its byte-pair tokenizer (vocabulary included) are open_clip's. A batch is (images, labels,
    captions), captions being strings; or (images, labels), when each image is captioned by a prompt around the
    name of its class, drawn anew each time. With `class_names`, `val_acc` is zero-shot top-1 from the prompts; with
    captions, `val_image_to_text_r1` and `_r10` are retrieval's R@1 and R@10: the share of held-out images whose own
    caption is among the 1 or 10 nearest of all held-out captions (`val_text_to_image_r1` and `_r10` the other way round),
    and `val_acc` is `val_image_to_text_r1` if there are no class names. `test_` likewise.

    Args:
        backbone: a timm model made with `num_classes=0`.
        recipe: optimiser and schedule.
        class_names: one name a class, for prompts; None if batches bring captions and nothing is classified.
        prompts: templates with `{}` for the name; zero-shot averages over them.
        joint_width: features that both towers project to.
        text_width: features of a text token.
        text_depth: transformer blocks of the text tower.
        text_heads: attention heads of the text tower; they divide its width.
        context: longest caption in tokens, start and end included; what is beyond is cut off.

    Raises:
        ValueError: if a prompt has no place for the name.

    Example:
        >>> import timm
        >>> vit = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=0)
        >>> small = dict(joint_width=32, text_width=32, text_depth=1, text_heads=2, context=16)
        >>> clip = CLIPPretrain(vit, Recipe(), class_names=["cat", "dog"], **small)
        >>> clip.zero_shot(torch.zeros(3, 3, 32, 32)).shape
        torch.Size([3, 2])
    """

    compares_pairs = True  # so that a batch cannot be taken in steps

    def __init__(
        self,
        backbone: nn.Module,
        recipe: Recipe,
        *,
        class_names: Sequence[str] | None = None,
        prompts: Sequence[str] = PROMPTS,
        joint_width: int = JOINT_WIDTH,
        text_width: int = TEXT_WIDTH,
        text_depth: int = TEXT_DEPTH,
        text_heads: int = TEXT_HEADS,
        context: int = CONTEXT,
    ) -> None:
        super().__init__()
        if not prompts or not all("{}" in prompt for prompt in prompts):
            raise ValueError(
                f"Each prompt needs {{}} where the name of the class goes; got {list(prompts)}. "
                'Write it as "a photo of a {}.".'
            )
        self.recipe = recipe
        self.prompts = tuple(prompts)
        self.context = context
        self.tokenizer = SimpleTokenizer(context_length=context)
        self.backbone = backbone
        self.image_projection = nn.Linear(backbone.num_features, joint_width, bias=False)
        nn.init.normal_(self.image_projection.weight, std=backbone.num_features**-0.5)
        self.text = TextTransformer(
            context_length=context,
            vocab_size=self.tokenizer.vocab_size,
            width=text_width,
            heads=text_heads,
            layers=text_depth,
            output_dim=joint_width,
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / FIRST_TEMPERATURE)))
        tokens = None if class_names is None else self._prompt_tokens(class_names)
        self.register_buffer("class_tokens", tokens, persistent=False)
        self._classes: Tensor | None = None
        self._pairs: list[tuple[Tensor, Tensor]] = []

    @override
    def forward(self, images: Tensor) -> Tensor:
        """The image tower's features before projection, (batch, features)."""
        return self.backbone(images)

    def encode_image(self, images: Tensor) -> Tensor:
        """Project images, (batch, channels, side, side), to unit vectors, (batch, joint_width)."""
        return functional.normalize(self.image_projection(self.backbone(images)), dim=-1)

    def encode_text(self, text: Sequence[str] | Tensor) -> Tensor:
        """Project captions, strings or tokens (batch, context), to unit vectors, (batch, joint_width)."""
        tokens = text if isinstance(text, Tensor) else self.tokenizer(list(text), self.context).to(self.device)
        return functional.normalize(self.text(tokens), dim=-1)

    def class_embeddings(self, class_names: Sequence[str] | None = None) -> Tensor:
        """One unit vector a class, (classes, joint_width): the mean of its prompts (section 3.1.4).

        Args:
            class_names: names that take the place of those given at construction.

        Raises:
            ValueError: if no names were ever given.
        """
        tokens = self.class_tokens if class_names is None else self._prompt_tokens(class_names).to(self.device)
        if tokens is None:
            raise ValueError(
                "Zero-shot classification needs the names of the classes, and none were given. "
                "Pass class_names here or when the module is made."
            )
        features = self.encode_text(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        return functional.normalize(features.mean(dim=1), dim=-1)

    def zero_shot(self, images: Tensor, class_embeddings: Tensor | None = None) -> Tensor:
        """Scores of the classes, (batch, classes), from prompts alone."""
        classes = self.class_embeddings() if class_embeddings is None else class_embeddings
        return self.log_scale.exp() * self.encode_image(images) @ classes.T

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, texts = self.encode_image(batch[0]), self.encode_text(self._captions(batch))
        loss = pair_loss(images, texts, self.log_scale.exp(), self.global_rank, self.trainer.world_size)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            self.log_scale.clamp_(max=math.log(LARGEST_SCALE))

    @override
    def on_validation_epoch_start(self) -> None:
        self._classes, self._pairs = None, []

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", batch)

    @override
    def on_validation_epoch_end(self) -> None:
        self._log_recall("val")

    @override
    def on_test_epoch_start(self) -> None:
        self._classes, self._pairs = None, []

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", batch)

    @override
    def on_test_epoch_end(self) -> None:
        self._log_recall("test")

    @override
    def configure_optimizers(self) -> dict[str, Any]:
        return self.recipe.configure(self, self.trainer)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that timm's optimiser factory leaves undecayed: tokens, positions, temperature."""
        image = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else set()
        text = self.text.no_weight_decay()
        return {f"backbone.{name}" for name in image} | {f"text.{name}" for name in text} | {"log_scale"}

    def backbone_state(self) -> dict[str, Tensor]:
        """The image tower's weights under timm's own names, to be loaded strictly."""
        return self.backbone.state_dict()

    def _prompt_tokens(self, class_names: Sequence[str]) -> Tensor:
        """The tokens of each prompt around each name, (classes, prompts, context)."""
        texts = [prompt.format(name) for name in class_names for prompt in self.prompts]
        return self.tokenizer(texts, self.context).view(len(class_names), len(self.prompts), self.context)

    def _captions(self, batch: Any) -> Sequence[str] | Tensor:
        """A batch's own captions, or the tokens of a drawn prompt around each image's class."""
        if len(batch) > 2:
            return batch[2]
        if self.class_tokens is None:
            raise ValueError(
                "The batch is (images, labels) and brings no captions, and no class names were given to make them "
                "from. Pass class_names, or data with captions such as data=emoji."
            )
        drawn = torch.randint(len(self.prompts), batch[1].shape, device=batch[1].device)
        return self.class_tokens[batch[1], drawn]

    def _evaluate(self, stage: str, batch: Any) -> None:
        images, texts = self.encode_image(batch[0]), self.encode_text(self._captions(batch))
        values = {f"{stage}_loss": pair_loss(images, texts, self.log_scale.exp())}
        if self.class_tokens is not None:
            self._classes = self.class_embeddings() if self._classes is None else self._classes
            hits = (images @ self._classes.T).argmax(dim=1) == batch[1]
            values[f"{stage}_acc"] = hits.float().mean()
        self.log_dict(values, prog_bar=True, batch_size=len(images), sync_dist=True)
        if len(batch) > 2:
            self._pairs.append((images, texts))

    def _log_recall(self, stage: str) -> None:
        """Log retrieval among all the captions that the stage has seen, on all devices."""
        if not self._pairs:
            return
        images, texts = (torch.cat(features) for features in zip(*self._pairs, strict=True))
        if self.trainer.world_size > 1:
            images, texts = (self.all_gather(x).flatten(0, 1) for x in (images, texts))
        for k in RECALLS:
            nearest = min(k, len(images))
            self.log(f"{stage}_image_to_text_r{k}", retrieval_recall(images, texts, nearest), prog_bar=True)
            self.log(f"{stage}_text_to_image_r{k}", retrieval_recall(texts, images, nearest))
        if self.class_tokens is None:
            self.log(f"{stage}_acc", retrieval_recall(images, texts, 1))
        self._pairs = []
