"""BEiT's visual tokenizer: a small VQ-VAE, trained first, whose codes are what the encoder learns to predict."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from experiments.modules.recipe import Recipe

CODES = 8192  # Bao et al., arXiv 2106.08254, section 2.1.2
# The quantiser: commitment 0.25 (van den Oord et al., arXiv 1711.00937, section 3.2; BEiT v2's implementation has 1);
# unit codes of 32 features (arXiv 2208.06366, section 2.2), whose moving means keep 0.99 a step (its authors'
# implementation); random restarts (Dhariwal et al., arXiv 2005.00341), here below a fifth of a fair share of the
# cells, with that fifth as the new code's weight, this project's choice.
COMMITMENT = 0.25
MEMORY = 0.99
CODE_WIDTH = 32
RESTART_BELOW = 0.2


class VisualTokenizer(pl.LightningModule):
    """Small VQ-VAE whose codes, one a patch, are BEiT's visual tokens (van den Oord et al., arXiv 1711.00937).

    Strided convolutions bring the image to one cell a patch, each cell is replaced by the nearest code, and
    convolutions paint the image back; the gradient passes the choice straight through. Codes have unit length
    and follow the cells given to them as a moving mean; one that falls out of use restarts at a random cell.
    BEiT's own tokens come from DALL-E's discrete VAE (arXiv 2106.08254, section 2.1), its second version's from
    such a quantiser (arXiv 2208.06366, section 2.2). The quantiser is taken here because restarts keep its whole
    codebook in use in a run of seconds too (see `test_the_tokenizer_learns_to_paint_and_uses_its_codes`).

    vector-quantize-pytorch 1.32 has such a quantiser too. On digits it painted as well, within the spread of seeds, and as
    fast. It is not taken: it brings five packages, has to know when it is built whether there are several processes,
    calls a code unused below a number of cells where this takes a share of them, whatever the batch, and holds a row for
    each cell and code twice (scores and choice, in float32) where this holds the scores.

    Logs `train_loss`, `val_loss` (squared error of the picture painted from its codes), and how much of the
    codebook the validation images use: `val_codes_used`, a share, and `val_perplexity`, 1 to `codes`.

    Args:
        recipe: optimiser and schedule.
        patch_size: side of a patch in pixels, a power of two.
        in_chans: channels of the images.
        codes: size of the codebook.
        width: channels of the convolutions.
        code_width: features of a code.
        memory: share of a code's moving mean that one step keeps; shorter runs need less.

    Raises:
        ValueError: if the patch size is no power of two.

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
        """The code of each patch, (batch, patches), rows first; no gradient flows."""
        with torch.no_grad():
            return self._nearest(self._cells(images)).flatten(1)

    @override
    def forward(self, images: Tensor) -> Tensor:
        """The images painted back from their codes, in the shape they came."""
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
        """One unit vector a patch, (batch, rows, columns, code_width)."""
        return functional.normalize(self.encoder(images), dim=1).permute(0, 2, 3, 1)

    def _nearest(self, cells: Tensor) -> Tensor:
        """The index of the code most like each cell, (batch, rows, columns)."""
        return (cells @ self.codebook.T.to(cells.dtype)).argmax(dim=-1)

    def _paint(self, codes: Tensor) -> Tensor:
        """Images from the codes of their cells, (batch, rows, columns, code_width)."""
        return self.decoder(codes.permute(0, 3, 1, 2))

    @torch.no_grad()
    def _follow(self, cells: Tensor, nearest: Tensor) -> None:
        """Move each code towards the mean of its cells, those of all devices, and restart those out of use.

        Args:
            cells: unit vectors, (cells, code_width).
            nearest: the code each was given, (cells,).
        """
        members = torch.bincount(nearest, minlength=self.codes).to(cells.dtype)
        sums = torch.zeros_like(self.cell_sums).index_add_(0, nearest, cells)
        members, sums = (self.trainer.strategy.reduce(one, reduce_op="sum") for one in (members, sums))
        self.members.lerp_(members, 1 - self.memory)
        self.cell_sums.lerp_(sums, 1 - self.memory)
        least = RESTART_BELOW * members.sum() / self.codes  # of a share that all codes would have alike
        dead = (self.members < least).unsqueeze(1)
        # As different cells as there are. In data-parallel training the first process's draw reaches all, as buffers do.
        places = torch.randperm(max(len(cells), self.codes), device=cells.device)[: self.codes] % len(cells)
        self.members.copy_(torch.where(dead.squeeze(1), least, self.members))
        self.cell_sums.copy_(torch.where(dead, cells[places] * least, self.cell_sums))
        self.codebook.copy_(functional.normalize(self.cell_sums, dim=-1))

    def _log_error(self, name: str, images: Tensor) -> None:
        error = functional.mse_loss(self(images), images)
        self.log(name, error, prog_bar=True, batch_size=len(images), sync_dist=True)
