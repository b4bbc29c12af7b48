"""The pipelines that benchmarks share, for medjax and for TorchIO alike."""

from typing import Any


def augmentations(library: Any, shape: tuple[int, ...] = (160, 192, 160)) -> list[Any]:
    """What the guide's 'Compose Transforms' draws."""
    return [
        library.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
        library.RandomElasticDeformation(max_displacement=min(7.5, min(shape) / 14), p=0.5),
        library.RandomBiasField(p=0.5),
        library.RandomNoise(std=(0, 0.05), p=0.5),
        library.RandomFlip(axes=("LR",), flip_probability=0.5),
    ]


def guide(library: Any, shape: tuple[int, ...] = (160, 192, 160)) -> Any:
    """The 'Compose Transforms' pipeline of TorchIO's guide."""
    first = [library.Resample(1.0), library.CropOrPad(shape), library.ZNormalization(masking_method="label")]
    return library.Compose([*first, *augmentations(library, shape)])


def cut(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What the guide's pipeline leaves of a volume of this shape: 160 x 192 x 160 of the MNI152 T1."""
    return tuple((n + 8) * 5 // 6 // 16 * 16 for n in shape)


def patch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The patch that nnU-Net's list makes of a volume of this shape."""
    return tuple(min(128, n * 5 // 8) for n in shape)
