"""The families of action recognition, all of them torchvision's, and what stands for each at each scale."""

from collections.abc import Mapping

from experiments.tasks.family import Family, Size

# "narrow" divides all channels; the depth and what is done in time are the published. Licences: torchvision's own, since it
# names no other for its weights of Kinetics-400; of Swin3D the authors' repository's. Both from memory.
TRAN = "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
_CONVOLUTIONAL = {
    "r3d": ("r3d_18", TRAN, 2017, "1711.11248", 112),
    "mc3": ("mc3_18", TRAN, 2017, "1711.11248", 112),
    "r2plus1d": ("r2plus1d_18", TRAN, 2017, "1711.11248", 112),
    "s3d": (
        "s3d",
        "Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video Classification",
        2017,
        "1712.04851",
        224,
    ),
}


def _convolutional(name: str) -> Family:
    architecture, paper, year, arxiv, side = _CONVOLUTIONAL[name]
    sizes = {
        "tiny": Size(architecture, 32, {"narrow": 8}),
        "small": Size(architecture, 64, {"narrow": 2}),
        "paper": Size(architecture, side),
    }
    return Family(name, paper, year, arxiv, "bsd-3-clause", "supervised", sizes, frozenset({"action"}))


_TRANSFORMERS = (
    Family(
        "mvit",
        "Multiscale Vision Transformers",
        2021,
        "2104.11227",
        "bsd-3-clause",
        "supervised",
        {
            "tiny": Size("mvit_v1_b", 32, {"width": 32, "depths": (1, 2, 1)}),
            "small": Size("mvit_v1_b", 64, {"width": 64, "depths": (1, 2, 6, 1)}),
            "paper": Size("mvit_v1_b", 224),
        },
        frozenset({"action"}),
    ),
    Family(
        "swin3d",
        "Video Swin Transformer",
        2021,
        "2106.13230",
        "apache-2.0",
        "supervised",
        {
            "tiny": Size("swin3d_t", 32, {"embed_dim": 32, "depths": (2, 2), "num_heads": (2, 4), "window_size": (4, 4, 4)}),
            "small": Size(
                "swin3d_t", 64, {"embed_dim": 48, "depths": (2, 2, 4), "num_heads": (2, 4, 8), "window_size": (8, 4, 4)}
            ),
            "paper": Size("swin3d_t", 224),
        },
        frozenset({"action"}),
    ),
)

VIDEO: Mapping[str, Family] = {
    **{name: _convolutional(name) for name in _CONVOLUTIONAL},
    **{family.name: family for family in _TRANSFORMERS},
}
