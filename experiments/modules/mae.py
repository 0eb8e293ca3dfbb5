"""MAE pretraining: hide three quarters of the patches, encode the rest, reconstruct what was hidden."""

from typing import Any

import pytorch_lightning as pl
import torch
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.modules.masked_vision_transformer_decoder_timm import MaskedVisionTransformerDecoderTIMM
from lightly.models.utils import get_at_index, patchify, set_at_index
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from typing_extensions import override

from experiments.losses import masked_reconstruction
from experiments.modules.recipe import Recipe

# He et al., arXiv 2111.06377: mask ratio, figure 5 and section 4.1; decoder of 8 blocks (table 1a), 512 wide
# (table 1b), with 16 heads in the authors' implementation.
MASK_RATIO = 0.75
DECODER_DEPTH = 8
DECODER_WIDTH = 512
DECODER_HEADS = 16


def random_patch_mask(
    batch: int,
    patches: int,
    ratio: float,
    *,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose which patches stay visible, uniformly and for each image on its own.

    Source: arXiv 2111.06377, section 3, "Masking": uniform sampling without replacement.

    Args:
        batch: images.
        patches: patches of an image.
        ratio: share of the patches to hide; what stays is rounded down, and is one patch at least.
        device: where the indices are drawn.
        generator: source of randomness on that device; None for torch's own.

    Returns:
        Indices of the visible (batch, kept) and of the hidden patches (batch, patches - kept).

    Example:
        >>> keep, hide = random_patch_mask(2, 16, 0.75)
        >>> keep.shape, hide.shape
        (torch.Size([2, 4]), torch.Size([2, 12]))
    """
    kept = max(1, int(patches * (1 - ratio)))
    order = torch.rand(batch, patches, device=device, generator=generator).argsort(dim=1)
    return order[:, :kept], order[:, kept:]


class MAEPretrain(pl.LightningModule):
    """Masked autoencoder over a timm vision transformer (He et al., arXiv 2111.06377).

    The encoder sees the visible patches only; a light decoder, thrown away afterwards, gets a learned mask
    token for each hidden one. Encoder and decoder blocks are lightly's, the loss is `masked_reconstruction`.
    Logs `train_loss`, `val_loss` and `test_loss`; there is no accuracy before finetuning.

    Args:
        backbone: a timm `VisionTransformer` made with `num_classes=0`, for square images.
        recipe: optimiser and schedule.
        mask_ratio: share of the patches to hide.
        decoder_width: features of a decoder token.
        decoder_depth: transformer blocks of the decoder.
        decoder_heads: attention heads of the decoder; they divide its width.
        normalise: whether each patch is normalised by its own pixels to make the target.
        initialise: whether the backbone starts as in the paper (Xavier weights, fixed sine-cosine positions);
            False keeps the weights it comes with, as when pretraining goes on.

    Raises:
        TypeError: if the backbone is no vision transformer.
        ValueError: if the mask ratio hides nothing or everything.

    Example:
        >>> import timm
        >>> vit = timm.create_model("test_vit", img_size=32, patch_size=8, num_classes=0)
        >>> mae = MAEPretrain(vit, Recipe(), decoder_width=32, decoder_depth=1, decoder_heads=2)
        >>> mae(torch.zeros(2, 3, 32, 32)).shape  # features for a linear probe
        torch.Size([2, 64])
    """

    def __init__(
        self,
        backbone: nn.Module,
        recipe: Recipe,
        *,
        mask_ratio: float = MASK_RATIO,
        decoder_width: int = DECODER_WIDTH,
        decoder_depth: int = DECODER_DEPTH,
        decoder_heads: int = DECODER_HEADS,
        normalise: bool = True,
        initialise: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, VisionTransformer):
            raise TypeError(
                f"MAE encodes a shortened sequence of patches, which {type(backbone).__name__} cannot. "
                "Use a timm VisionTransformer, such as vit_base_patch16_224."
            )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio is a share between 0 and 1, and was {mask_ratio}; the paper's is 0.75.")
        self.recipe = recipe
        self.mask_ratio = mask_ratio
        self.normalise = normalise
        self.patch_size = backbone.patch_embed.patch_size[0]
        self.patches = backbone.patch_embed.num_patches
        self.prefix = backbone.num_prefix_tokens
        self.encoder = MaskedVisionTransformerTIMM(
            backbone.to(memory_format=torch.contiguous_format),  # it fills the filters as rows, which channels-last are not
            weight_initialization="" if initialise else "skip",
            pos_embed_initialization="sincos" if initialise else "skip",
        )
        self.encoder.mask_token.requires_grad_(False)  # lightly's for other methods: MAE's encoder sees no mask
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=self.patches,
            embed_dim=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_heads,
            num_prefix_tokens=self.prefix,
        )
        pixels = self.patch_size**2 * backbone.patch_embed.proj.in_channels
        self.to_decoder = nn.Linear(backbone.embed_dim, decoder_width)
        self.to_pixels = nn.Linear(decoder_width, pixels)
        for layer in (self.to_decoder, self.to_pixels):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """The encoder's features of whole images, (batch, features)."""
        return self.encoder.vit(images)

    def encode_visible(self, images: Tensor, keep: Tensor) -> Tensor:
        """Encode some patches of each image.

        Args:
            images: (batch, channels, side, side).
            keep: indices of the patches to be seen, (batch, kept).

        Returns:
            Tokens, (batch, prefix tokens + kept, width): class and register tokens first.
        """
        tokens = self.encoder.encode(images, idx_keep=self._with_prefix(keep))
        return self.encoder.vit.fc_norm(tokens)  # timm's last norm if it pools by averaging, else nothing

    def reconstruct(self, images: Tensor, keep: Tensor, hide: Tensor) -> Tensor:
        """Predict the hidden patches of each image from the visible ones.

        Args:
            images: (batch, channels, side, side).
            keep: indices of the visible patches, (batch, kept).
            hide: indices of the hidden patches, (batch, hidden).

        Returns:
            Patches, (batch, hidden, pixels of a patch); normalised ones if the target is.
        """
        visible = self.to_decoder(self.encode_visible(images, keep))
        tokens = self.decoder.mask_token.expand(len(images), self.patches + self.prefix, -1).to(visible.dtype)
        tokens = set_at_index(tokens, self._with_prefix(keep), visible)
        return self.to_pixels(get_at_index(self.decoder(tokens), hide + self.prefix))

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self._loss(batch[0])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("val_loss", batch[0], batch_idx)

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate("test_loss", batch[0], batch_idx)

    @override
    def configure_optimizers(self) -> dict[str, Any]:
        return self.recipe.configure(self, self.trainer)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that timm's optimiser factory leaves undecayed: tokens and positions."""
        vit = {f"encoder.vit.{name}" for name in self.encoder.vit.no_weight_decay()}
        return vit | {"decoder.mask_token"}

    def backbone_state(self) -> dict[str, Tensor]:
        """The encoder's weights under timm's own names, to be loaded strictly."""
        return self.encoder.vit.state_dict()

    def _evaluate(self, name: str, images: Tensor, batch_idx: int) -> None:
        """Log the loss; a batch has the same masks every epoch, so that epochs compare."""
        loss = self._loss(images, torch.Generator(images.device).manual_seed(batch_idx))
        self.log(name, loss, prog_bar=True, batch_size=len(images), sync_dist=True)

    def _loss(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        keep, hide = random_patch_mask(len(images), self.patches, self.mask_ratio, device=images.device, generator=generator)
        target = get_at_index(patchify(images, self.patch_size), hide)
        return masked_reconstruction(self.reconstruct(images, keep, hide), target, normalise=self.normalise)

    def _with_prefix(self, patches: Tensor) -> Tensor:
        """Turn patch indices into token indices that also hold class and register tokens."""
        prefix = torch.arange(self.prefix, device=patches.device).expand(len(patches), -1)
        return torch.cat([prefix, patches + self.prefix], dim=1)
