"""BEiT pretraining: a tokenizer learns visual tokens, then the encoder predicts those of hidden patches."""

import math
import random
from typing import Any

import pytorch_lightning as pl
import torch
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from experiments.losses import masked_token_accuracy, masked_token_cross_entropy
from experiments.modules.recipe import Recipe

# Bao et al., arXiv 2106.08254: 40 % masked in blocks of at least 16 of 196 patches, aspect ratio 0.3 to 1/0.3
# (section 2.3, algorithm 1; section 2.5 and the authors' implementation mask 75 at most, 38 %); 8192 visual tokens
# (section 2.1.2).
MASK_RATIO = 0.4
MIN_BLOCK_SHARE = 16 / 196
MIN_ASPECT = 0.3
CODES = 8192
# The quantiser: commitment 0.25 (van den Oord et al., arXiv 1711.00937, section 3.2; BEiT v2's implementation has 1);
# unit codes of 32 features (arXiv 2208.06366, section 2.2), whose moving means keep 0.99 a step (its authors'
# implementation); random restarts (Dhariwal et al., arXiv 2005.00341), here below a fifth of a fair share of the
# cells, this project's choice.
COMMITMENT = 0.25
MEMORY = 0.99
CODE_WIDTH = 32
RESTART_BELOW = 0.2
INIT_STD = 0.02  # of mask token and head, as in the authors' implementation
BLOCK_ATTEMPTS = 10  # draws of a block before single patches fill the rest, as in the authors' implementation


def blockwise_mask(height: int, width: int, hidden: int, rng: random.Random) -> Tensor:
    """Hide rectangles of patches until exactly `hidden` are hidden.

    Source: arXiv 2106.08254, algorithm 1. That stops once the share is passed; here blocks are drawn to fit
    what is left, and single patches fill the rest, so that every image of a batch hides the same number.

    Args:
        height: Rows of the patch grid.
        width: Columns of the patch grid.
        hidden: Patches to hide.
        rng: Source of randomness.

    Returns:
        True where a patch is hidden, (height * width,), rows first.

    Example:
        >>> blockwise_mask(14, 14, 78, random.Random(0)).sum()
        tensor(78)
    """
    mask = torch.zeros(height, width, dtype=torch.bool)
    smallest = max(1, round(MIN_BLOCK_SHARE * height * width))
    left, attempts = hidden, 0
    while left >= smallest and attempts < BLOCK_ATTEMPTS:
        area = rng.uniform(smallest, left)
        aspect = math.exp(rng.uniform(math.log(MIN_ASPECT), -math.log(MIN_ASPECT)))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        attempts += 1
        if not (0 < rows <= height and 0 < columns <= width):
            continue
        top, start = rng.randint(0, height - rows), rng.randint(0, width - columns)
        block = mask[top : top + rows, start : start + columns]
        new = block.numel() - int(block.sum())
        if 0 < new <= left:
            block.fill_(True)
            left, attempts = left - new, 0
    flat = mask.flatten()
    if left:
        flat[rng.sample((~flat).nonzero().flatten().tolist(), left)] = True
    return flat


class VisualTokenizer(pl.LightningModule):
    """Small VQ-VAE whose codes, one a patch, are BEiT's visual tokens (van den Oord et al., arXiv 1711.00937).

    Strided convolutions bring the image to one cell a patch, each cell is replaced by the nearest code, and
    convolutions paint the image back; the gradient passes the choice straight through. Codes have unit length
    and follow the cells given to them as a moving mean; one that falls out of use restarts at a random cell.
    BEiT's own tokens come from DALL-E's discrete VAE (arXiv 2106.08254, section 2.1), its second version's from
    such a quantiser (arXiv 2208.06366, section 2.2). The quantiser is taken here because restarts keep its whole
    codebook in use in a run of seconds too (see `test_the_tokenizer_learns_to_paint_and_uses_its_codes`).

    Logs `train_loss`, `val_loss` (squared error of the picture painted from its codes), and how much of the
    codebook the validation images use: `val_codes_used`, a share, and `val_perplexity`, 1 to `codes`.

    Args:
        recipe: Optimiser and schedule.
        patch_size: Side of a patch in pixels, a power of two.
        in_chans: Channels of the images.
        codes: Size of the codebook.
        width: Channels of the convolutions.
        code_width: Features of a code.
        memory: Share of a code's moving mean that one step keeps; shorter runs need less.

    Raises:
        ValueError: If the patch size is no power of two.

    Example:
        >>> tokenizer = VisualTokenizer(Recipe(), patch_size=8, codes=64, width=16)
        >>> tokenizer.tokens(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        patch_size: int,
        in_chans: int = 3,
        codes: int = CODES,
        width: int = 128,
        code_width: int = CODE_WIDTH,
        memory: float = MEMORY,
    ) -> None:
        super().__init__()
        halvings = round(math.log2(patch_size))
        if halvings < 1 or 2**halvings != patch_size:
            raise ValueError(
                f"The tokenizer halves images until a cell is a patch; {patch_size} is no power of two. "
                "Use an encoder with patches of 4, 8, 16 or 32 pixels."
            )
        self.recipe = recipe
        self.patch_size = patch_size
        self.codes = codes
        self.memory = memory
        down: list[nn.Module] = [nn.Conv2d(in_chans, width, 4, stride=2, padding=1), nn.ReLU()]
        up: list[nn.Module] = [nn.Conv2d(code_width, width, 1), nn.ReLU()]
        for _ in range(halvings - 1):
            down += [nn.Conv2d(width, width, 4, stride=2, padding=1), nn.ReLU()]
            up += [nn.ConvTranspose2d(width, width, 4, stride=2, padding=1), nn.ReLU()]
        # Centred cells spread over the sphere from the first step; without, all may stay at one and the same code.
        centre = nn.BatchNorm2d(code_width, affine=False)
        self.encoder = nn.Sequential(*down, nn.Conv2d(width, code_width, 1), centre)
        self.decoder = nn.Sequential(*up, nn.ConvTranspose2d(width, in_chans, 4, stride=2, padding=1))
        # Buffers and not parameters, so that data-parallel training keeps the first process's codes in all of them.
        self.register_buffer("codebook", functional.normalize(torch.randn(codes, code_width), dim=-1))
        self.register_buffer("members", torch.zeros(codes))
        self.register_buffer("cell_sums", torch.zeros(codes, code_width))
        self.register_buffer("counts", torch.zeros(codes), persistent=False)

    @classmethod
    def for_backbone(cls, backbone: nn.Module, recipe: Recipe, **options: Any) -> "VisualTokenizer":
        """Build the tokenizer whose cells are the patches of a timm encoder."""
        embed = backbone.patch_embed
        return cls(recipe, patch_size=embed.patch_size[0], in_chans=embed.proj.in_channels, **options)

    def tokens(self, images: Tensor) -> Tensor:
        """Return the code of each patch, (batch, patches), rows first; no gradient flows."""
        with torch.no_grad():
            return self._nearest(self._cells(images)).flatten(1)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Return the images painted back from their codes, in the shape they came."""
        return self._paint(self.codebook[self._nearest(self._cells(images))])

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images = batch[0]
        cells = self._cells(images)
        nearest = self._nearest(cells)
        chosen = self.codebook[nearest]
        painted = self._paint(cells + (chosen - cells).detach())  # the gradient passes the choice
        commitment = (cells - chosen).square().sum(dim=-1).mean()
        loss = functional.mse_loss(painted, images) + COMMITMENT * commitment
        self._follow(cells.detach().flatten(0, 2).float(), nearest.flatten())
        self.log("train_loss", loss, prog_bar=True)
        return loss

    @override
    def on_validation_epoch_start(self) -> None:
        self.counts.zero_()

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.counts += torch.bincount(self.tokens(batch[0]).flatten(), minlength=self.codes)
        self._log_error("val_loss", batch[0])

    @override
    def on_validation_epoch_end(self) -> None:
        counts = self.trainer.strategy.reduce(self.counts.clone(), reduce_op="sum")
        share = counts / counts.sum()
        self.log("val_codes_used", (share > 0).float().mean())
        self.log("val_perplexity", torch.special.entr(share).sum().exp())

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._log_error("test_loss", batch[0])

    @override
    def configure_optimizers(self) -> dict[str, Any]:
        return self.recipe.configure(self, self.trainer)

    def _cells(self, images: Tensor) -> Tensor:
        """Return one unit vector a patch, (batch, rows, columns, code_width)."""
        return functional.normalize(self.encoder(images), dim=1).permute(0, 2, 3, 1)

    def _nearest(self, cells: Tensor) -> Tensor:
        """Return the index of the code most like each cell, (batch, rows, columns)."""
        return (cells @ self.codebook.T.to(cells.dtype)).argmax(dim=-1)

    def _paint(self, codes: Tensor) -> Tensor:
        """Return images from the codes of their cells, (batch, rows, columns, code_width)."""
        return self.decoder(codes.permute(0, 3, 1, 2))

    @torch.no_grad()
    def _follow(self, cells: Tensor, nearest: Tensor) -> None:
        """Move each code towards the mean of its cells, and restart those out of use.

        Args:
            cells: Unit vectors, (cells, code_width).
            nearest: The code each was given, (cells,).
        """
        members = torch.bincount(nearest, minlength=self.codes).to(cells.dtype)
        sums = torch.zeros_like(self.cell_sums).index_add_(0, nearest, cells)
        self.members.lerp_(members, 1 - self.memory)
        self.cell_sums.lerp_(sums, 1 - self.memory)
        fair = len(cells) / self.codes  # what a code would be given if all were used alike
        dead = (self.members < RESTART_BELOW * fair).unsqueeze(1)
        drawn = cells[torch.randint(len(cells), (self.codes,), device=cells.device)]
        self.members.masked_fill_(dead.squeeze(1), fair)
        self.cell_sums.copy_(torch.where(dead, drawn * fair, self.cell_sums))
        self.codebook.copy_(functional.normalize(self.cell_sums, dim=-1))

    def _log_error(self, name: str, images: Tensor) -> None:
        error = functional.mse_loss(self(images), images)
        self.log(name, error, prog_bar=True, batch_size=len(images), sync_dist=True)


class BEiTPretrain(pl.LightningModule):
    """Masked image modelling over a timm BEiT encoder (Bao et al., arXiv 2106.08254).

    Blocks of patches are replaced by a learned token where the patch embedding ends; a linear layer predicts
    the codes that the frozen tokenizer gives them in the whole image. Logs `train_loss`, and for "val" and
    "test" the loss (nats a hidden patch) and `val_token_acc`, the share of hidden patches whose code is predicted:
    to be read beside `val_majority`, which is how often the batch's most frequent code would be right.

    Args:
        backbone: A timm `Beit` made with `num_classes=0`.
        recipe: Optimiser and schedule.
        tokenizer: A trained `VisualTokenizer` of the same patch size; frozen here.
        mask_ratio: Share of the patches to hide.

    Raises:
        TypeError: If the backbone is no BEiT.
        ValueError: If the patches of encoder and tokenizer differ, or the mask hides nothing or everything.

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
        """Return the encoder's features of whole images, (batch, features)."""
        return self.backbone(images)

    def encode_masked(self, images: Tensor, mask: Tensor) -> Tensor:
        """Encode images whose hidden patches are replaced by the mask token.

        Args:
            images: (batch, channels, side, side).
            mask: True where a patch is hidden, (batch, patches).

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
        """Return the encoder's weights under timm's own names, to be loaded strictly."""
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
        """Return logits (batch, hidden, codes) and true codes (batch, hidden) of the hidden patches."""
        mask = self.masks(len(images), rng)
        order = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
        hidden = order[:, : self.hidden]
        tokens = self.encode_masked(images, mask)
        chosen = tokens.gather(1, hidden.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        return self.to_codes(chosen), self.tokenizer.tokens(images).gather(1, hidden)
