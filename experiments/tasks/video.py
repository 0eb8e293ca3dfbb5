"""Video models: torchvision's, at their published size or smaller."""

from collections.abc import Sequence

from omegaconf import DictConfig
from torch import nn
from torchvision.models import get_model
from torchvision.models.video import MViT, SwinTransformer3d
from torchvision.models.video.mvit import MSBlockConfig

from experiments.models import size_of
from experiments.settings import options_of

COLOURS = 3


def build_video(cfg: DictConfig, *, num_classes: int) -> nn.Module:
    """Build the video model that the config asks for, with random weights.

    Args:
        cfg: the composed config; `model.clip` says how many frames a clip has.
        num_classes: outputs of the classifier.

    Returns:
        A model of clips (batch, 3, frames, side, side) that gives logits (batch, num_classes).
    """
    size, frames = size_of(cfg), options_of(cfg, "clip")["frames"]
    options = {key: list(value) if isinstance(value, tuple) else value for key, value in size.options.items()}
    if not options:
        return get_model(size.timm_name, weights=None, num_classes=num_classes)
    if "narrow" in options:
        divisor = options["narrow"]
        model = get_model(size.timm_name, weights=None, num_classes=divisor * num_classes)
        if size.timm_name == "s3d":
            model.avgpool = nn.AdaptiveAvgPool3d(1)  # its own wants 7 x 7 places
        return narrowed(model, divisor)
    if size.timm_name == "mvit_v1_b":
        blocks = _pyramid(options["width"], options["depths"])
        as_published = {
            "residual_pool": False,
            "residual_with_cls_embed": True,
            "rel_pos_embed": False,
            "proj_after_attn": False,
        }
        return MViT((size.image_size,) * 2, frames, blocks, dropout=0.1, num_classes=num_classes, **as_published)
    return SwinTransformer3d(patch_size=[2, 4, 4], stochastic_depth_prob=0.0, num_classes=num_classes, **options)


def narrowed(model: nn.Module, divisor: int) -> nn.Module:
    """Divide all channels of a convolutional video model, in place; colours stay.

    Example:
        >>> narrow = narrowed(get_model("r3d_18", weights=None, num_classes=40), 8)
        >>> narrow.layer4[0].conv1[0].weight.shape, narrow.fc.out_features
        (torch.Size([64, 32, 3, 3, 3]), 5)
    """

    def kept(channels: int) -> int:
        return channels if channels == COLOURS else channels // divisor

    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            module.out_channels, module.in_channels = kept(module.out_channels), kept(module.in_channels)
            module.weight = nn.Parameter(module.weight[: module.out_channels, : module.in_channels].clone())
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = kept(module.out_features), kept(module.in_features)
            module.weight = nn.Parameter(module.weight[: module.out_features, : module.in_features].clone())
        elif isinstance(module, nn.BatchNorm3d):
            module.num_features = kept(module.num_features)
            module.weight = nn.Parameter(module.weight[: module.num_features].clone())
            for name in ("running_mean", "running_var"):
                setattr(module, name, getattr(module, name)[: module.num_features].clone())
        if getattr(module, "bias", None) is not None:
            module.bias = nn.Parameter(module.bias[: len(module.weight)].clone())
    return model


def _pyramid(width: int, depths: Sequence[int]) -> list[MSBlockConfig]:
    """MViT's blocks: each stage has half the side and twice the width and the heads of the one before it."""
    blocks = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            first = block == 0 and stage > 0
            channels = width * 2**stage
            blocks.append(
                MSBlockConfig(
                    num_heads=2**stage,
                    input_channels=channels // 2 if first else channels,
                    output_channels=channels,
                    kernel_q=[3, 3, 3] if first else [],
                    kernel_kv=[3, 3, 3],
                    stride_q=[1, 2, 2] if first else [],
                    stride_kv=[1, max(1, 4 // 2**stage), max(1, 4 // 2**stage)],
                )
            )
    return blocks
