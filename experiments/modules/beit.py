"""BEiT pretraining: the encoder predicts the visual tokens of hidden patches, which a frozen tokenizer gives."""

import random
from typing import Any

import pytorch_lightning as pl
import torch
from lightly.models.utils import random_block_mask_image
from timm.models.beit import Beit
from torch import Tensor, nn
from typing_extensions import override

from experiments.losses import masked_token_accuracy, masked_token_cross_entropy
from experiments.modules.recipe import Recipe
from experiments.modules.visual_tokenizer import VisualTokenizer

# Bao et al., arXiv 2106.08254: 40 % masked in blocks of at least 16 of 196 patches, aspect ratio 0.3 to 1/0.3
# (section 2.3, algorithm 1; section 2.5 and the authors' implementation mask 75 at most, 38 %).
MASK_RATIO = 0.4
MIN_BLOCK_SHARE = 16 / 196
MIN_ASPECT = 0.3
INIT_STD = 0.02  # of mask token and head, as in the authors' implementation


def blockwise_mask(height: int, width: int, hidden: int, rng: random.Random) -> Tensor:
    """Hide rectangles of patches until exactly `hidden` are hidden.

    Source: arXiv 2106.08254, algorithm 1, in lightly's form, which is that of the authors' implementation and gives up after
    ten draws that do not fit. Single patches fill the rest, so that every image of a batch hides the same number.

    Args:
        height: rows of the patch grid.
        width: columns of the patch grid.
        hidden: patches to hide.
        rng: source of randomness.

    Returns:
        True where a patch is hidden, (height * width,), rows first.

    Example:
        >>> blockwise_mask(14, 14, 78, random.Random(0)).sum()
        tensor(78)
    """
    smallest = min(hidden, max(1, round(MIN_BLOCK_SHARE * height * width)))
    before = random.getstate()
    random.setstate(rng.getstate())  # lightly draws from Python's own
    mask = random_block_mask_image((height, width), hidden, smallest, min_block_aspect_ratio=MIN_ASPECT)
    rng.setstate(random.getstate())
    random.setstate(before)
    flat = mask.flatten()
    if left := hidden - int(flat.sum()):
        flat[rng.sample((~flat).nonzero().flatten().tolist(), left)] = True
    return flat


class BEiTPretrain(pl.LightningModule):
    """Masked image modelling over a timm BEiT encoder (Bao et al., arXiv 2106.08254).

    Blocks of patches are replaced by a learned token where the patch embedding ends; a linear layer predicts
    the codes that the frozen tokenizer gives them in the whole image. Logs `train_loss`, and for "val" and
    "test" the loss (nats a hidden patch) and `val_token_acc`, the share of hidden patches whose code is predicted:
    compare it with `val_majority`, which is how often the batch's most frequent code would be right.

    Args:
        backbone: a timm `Beit` made with `num_classes=0`.
        recipe: optimiser and schedule.
        tokenizer: a trained `VisualTokenizer` of the same patch size; frozen here.
        mask_ratio: share of the patches to hide.

    Raises:
        TypeError: if the backbone is no BEiT.
        ValueError: if the patches of encoder and tokenizer differ, or the mask hides nothing or everything.

    Example:
        >>> import timm
        >>> size = dict(img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3)
        >>> encoder = timm.create_model("beit_base_patch16_224", num_classes=0, **size)
        >>> tokenizer = VisualTokenizer.for_backbone(encoder, Recipe(), codes=64, width=16)
        >>> BEiTPretrain(encoder, Recipe(), tokenizer=tokenizer)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 48])
    """

    def __init__(
        self,
        backbone: nn.Module,
        recipe: Recipe,
        *,
        tokenizer: VisualTokenizer,
        mask_ratio: float = MASK_RATIO,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, Beit):
            raise TypeError(
                f"BEiT's masking needs timm's Beit encoder and got {type(backbone).__name__}. "
                "Use one such as beit_base_patch16_224."
            )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio is a share between 0 and 1, and was {mask_ratio}; the paper's is 0.4.")
        if backbone.patch_embed.patch_size[0] != tokenizer.patch_size:
            raise ValueError(
                f"The encoder's patches are {backbone.patch_embed.patch_size[0]} pixels wide, the "
                f"tokenizer's {tokenizer.patch_size}. Make the tokenizer with VisualTokenizer.for_backbone."
            )
        self.recipe = recipe
        self.backbone = backbone
        self.tokenizer = tokenizer.requires_grad_(False).eval()
        self.grid = backbone.patch_embed.grid_size
        self.hidden = max(1, round(mask_ratio * backbone.patch_embed.num_patches))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, backbone.embed_dim))
        self.to_codes = nn.Linear(backbone.embed_dim, tokenizer.codes)
        for weights in (self.mask_token, self.to_codes.weight):
            nn.init.trunc_normal_(weights, std=INIT_STD)
        nn.init.zeros_(self.to_codes.bias)

    @override
    def train(self, mode: bool = True) -> "BEiTPretrain":
        super().train(mode)
        self.tokenizer.eval()  # frozen
        return self

    @override
    def forward(self, images: Tensor) -> Tensor:
        """The encoder's features of whole images, (batch, features)."""
        return self.backbone(images)

    def encode_masked(self, images: Tensor, mask: Tensor) -> Tensor:
        """Encode images whose hidden patches are replaced by the mask token.

        Args:
            images: (batch, channels, side, side).
            mask: true where a patch is hidden, (batch, patches).

        Returns:
            Tokens of the patches, (batch, patches, features), without the class token.
        """

        def hide(_module: nn.Module, _images: tuple[Tensor], patches: Tensor) -> Tensor:
            return torch.where(mask.unsqueeze(-1), self.mask_token.to(patches.dtype), patches)

        hook = self.backbone.patch_embed.register_forward_hook(hide)
        try:
            tokens = self.backbone.forward_features(images)
        finally:
            hook.remove()
        # With average pooling timm's last norm comes after the pool: without it here, it would not be trained.
        return self.backbone.fc_norm(tokens[:, self.backbone.num_prefix_tokens :])

    def masks(self, batch: int, rng: random.Random) -> Tensor:
        """Draw one mask for each image, (batch, patches), on the module's device."""
        return torch.stack([blockwise_mask(*self.grid, self.hidden, rng) for _ in range(batch)]).to(self.device)

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        rng = random.Random(int(torch.randint(2**31, ()).item()))
        logits, codes = self._predict(batch[0], rng)
        loss = masked_token_cross_entropy(logits, codes)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val", batch[0], batch_idx)

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test", batch[0], batch_idx)

    @override
    def configure_optimizers(self) -> dict[str, Any]:
        return self.recipe.configure(self, self.trainer)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that timm's optimiser factory leaves undecayed: tokens and positions."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()} | {"mask_token"}

    def backbone_state(self) -> dict[str, Tensor]:
        """The encoder's weights under timm's own names, to be loaded strictly."""
        return self.backbone.state_dict()

    def _evaluate(self, stage: str, images: Tensor, batch_idx: int) -> None:
        """Log loss and accuracies; a batch has the same masks every epoch, so that epochs compare."""
        logits, codes = self._predict(images, random.Random(batch_idx))
        values = {
            f"{stage}_loss": masked_token_cross_entropy(logits, codes),
            f"{stage}_token_acc": masked_token_accuracy(logits, codes),
            f"{stage}_majority": codes.flatten().bincount().max() / codes.numel(),
        }
        self.log_dict(values, prog_bar=True, batch_size=len(codes), sync_dist=True)

    def _predict(self, images: Tensor, rng: random.Random) -> tuple[Tensor, Tensor]:
        """Logits (batch, hidden, codes) and true codes (batch, hidden) of the hidden patches."""
        mask = self.masks(len(images), rng)
        order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        hidden = order[:, : self.hidden]
        tokens = self.encode_masked(images, mask)
        chosen = tokens.gather(1, hidden.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        return self.to_codes(chosen), self.tokenizer.tokens(images).gather(1, hidden)
