"""The augmentations that nnU-Net trains with."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.transforms.choice import OneOf
from medjax.transforms.compose import Compose
from medjax.transforms.intensity.blur import RandomBlur
from medjax.transforms.intensity.brightness import RandomBrightness
from medjax.transforms.intensity.brightness_gradient import RandomBrightnessGradient
from medjax.transforms.intensity.coarse_dropout import RandomCoarseDropout
from medjax.transforms.intensity.contrast import RandomContrast
from medjax.transforms.intensity.gamma import RandomGamma
from medjax.transforms.intensity.local_gamma import RandomLocalGamma
from medjax.transforms.intensity.low_resolution import RandomLowResolution
from medjax.transforms.intensity.median import RandomMedian
from medjax.transforms.intensity.noise import RandomNoise
from medjax.transforms.intensity.sharpen import RandomSharpen
from medjax.transforms.label.remap_labels import RemapLabels
from medjax.transforms.spatial.crop import RandomCrop, sizes
from medjax.transforms.spatial.crop_or_pad import CropOrPad
from medjax.transforms.spatial.flip import RandomFlip
from medjax.transforms.spatial.resize import Resize
from medjax.transforms.spatial.voxel_affine import RandomVoxelAffine
from medjax.transforms.transform import Transform, probability
from medjax.typing import Shape3

ANISOTROPIC = 3
"""From which ratio of the longest to the first axis on a patch is augmented in its plane alone."""
ELONGATED = 1.5
"""From which ratio of its axes on a patch of one slice is hardly turned."""
GAMMA = ((0.7, 1.0), (1.0, 1.5))


def nnunet(
    patch_size: Any,
    *,
    label: str = "label",
    p_foreground: float = 0.33,
    classes: Sequence[int] | None = None,
    deep_supervision: Sequence[Any] = (),
) -> Compose:
    """nnU-Net v2's default training augmentation of preprocessed volumes, the patch drawn and read by one gather.

    Rotation 0.2 (each angle U(-30, 30) degrees; only in the plane of the last two axes, +-180, for a patch whose
    longest axis is over 3 times the first, +-15 for an elongated single slice), scale 0.2 (one factor U(0.7, 1.4), > 1
    makes objects smaller), both in voxel units; patch; noise 0.1, blur 0.2, brightness 0.15, contrast 0.15, low
    resolution 0.25, inverted gamma 0.1, gamma 0.3, each channel by its own draw; mirror 0.5 an axis; label -1 to 0.

    patch_size: voxels, one number or three; a smaller volume is padded with 0.  label: name of the label map.
    p_foreground: probability, for each element, that the patch is centred on a voxel of a label that is not 0.
    classes: labels of which one is drawn first, each equally likely; None draws among all voxels that are not 0. A map
    that holds -1 or a label to ignore needs them.
    deep_supervision: scales, numbers or triples, of which each but 1 adds a label map f"{label}_{i}", i its place, by
    nearest (ties up).

    Differs from nnU-Net: voxels beyond its initial patch come from the volume instead of zeros. It centres the last
    third of a batch, here each element by a coin; it draws a class among those present, here a class that is absent
    leaves the place uniform. The box is kept inside the volume's grid once that is turned about its middle. The vote of
    labels is in float32. Outside is label 0 at once, not -1, so nothing is set to 0 outside of a mask of
    normalisation. No cascade and no regions. The images of a subject share the coins, but draw their own numbers.
    Source: nnunetv2 `nnUNetTrainer`, batchgeneratorsv2 0.3.6.
    """
    size, plane = planar(patch_size)
    angle: Any = 30.0
    if plane:
        angle = (15.0 if size[0] == 1 and max(size[1:]) > ELONGATED * min(size[1:]) else 180.0, 0.0, 0.0)
    axes = (1, 2) if plane else (0, 1, 2)
    each: dict[str, Any] = {"per_channel": True}
    steps: list[Transform] = [
        CropOrPad(size, only_pad=True),
        RandomVoxelAffine(degrees=angle, p=0.2),
        RandomVoxelAffine(scales=(0.7, 1.4), axes=axes, p=0.2),
        *patch(size, label, p_foreground, classes),
        RandomNoise(std=(0.0, 0.1), p=0.1),
        RandomBlur((0.5, 1.0), units="voxels", kernel="nnunet", p_per_channel=0.5, p=0.2, **each),
        RandomBrightness(((0.75, 1.0), (1.0, 1.25)), p=0.15, **each),
        RandomContrast(((0.75, 1.0), (1.0, 1.25)), p=0.15, **each),
        RandomLowResolution((0.5, 1.0), axes, p_per_channel=0.5, p=0.25, **each),
        RandomGamma(gamma=GAMMA, rescale=True, invert_image=True, retain_stats=True, p=0.1),
        RandomGamma(gamma=GAMMA, rescale=True, retain_stats=True, p=0.3),
        RandomFlip((0, 1, 2), 0.5),
    ]
    return Compose([*steps, *targets(size, label, deep_supervision)])


def nnunet_da5(
    patch_size: Any,
    *,
    label: str = "label",
    p_foreground: float = 0.33,
    classes: Sequence[int] | None = None,
    deep_supervision: Sequence[Any] = (),
) -> Compose:
    """nnU-Net v2's stronger augmentation DA5; arguments as in `nnunet`.

    Rotation 0.4 (each axis kept by a fair coin), scale 0.2 (U(0.7, 1.43) an axis); patch; median 2-8 or blur 0.3-1.5;
    noise; additive brightness N(0, 0.5); contrast with or without its range kept; low resolution U(0.25, 1); gamma
    twice, both inverted as in the source; mirror; blank boxes; brightness gradient; local gamma; sharpening.

    Differs from nnU-Net as `nnunet` does, and: there are no turns by 90 degrees and no transposition (0.5 each there).
    Source: nnunetv2 `nnUNetTrainerDA5`.
    """
    size, plane = planar(patch_size)
    angle: Any = (180.0, 0.0, 0.0) if plane else 30.0
    axes = (1, 2) if plane else (0, 1, 2)
    some: dict[str, Any] = {"per_channel": True, "p_per_channel": 0.5}
    box = [(max(1, n // 10), max(1, n // 3)) for n in size]
    contrast = ((0.5, 1.0), (1.0, 2.0))
    steps: list[Transform] = [
        CropOrPad(size, only_pad=True),
        RandomVoxelAffine(degrees=angle, p_per_axis=0.5, p=0.4),
        RandomVoxelAffine(scales=(0.7, 1.43), axes=axes, isotropic=False, p=0.2),
        *patch(size, label, p_foreground, classes),
        OneOf(
            [
                RandomMedian((2, 8), p=0.2, **some),
                RandomBlur((0.3, 1.5), units="voxels", kernel="nnunet", p=0.2, **some),
            ]
        ),
        RandomNoise(std=(0.0, 0.1), p=0.1),
        RandomBrightness(1.0, shift_std=0.5, p=0.1, **some),
        OneOf([RandomContrast(contrast, kept, p=0.2, **some) for kept in (True, False)]),
        RandomLowResolution((0.25, 1.0), axes, p=0.15, **some),
        RandomGamma(gamma=GAMMA, rescale=True, invert_image=True, retain_stats=True, p=0.1),
        RandomGamma(gamma=GAMMA, rescale=True, invert_image=True, retain_stats=True, p=0.1),
        RandomFlip((0, 1, 2), 0.5),
        RandomCoarseDropout(box, (1, 5), p=0.4),
        RandomBrightnessGradient(p=0.3, **some),
        RandomLocalGamma(p=0.3, **some),
        RandomSharpen((0.1, 1.0), p=0.2, **some),
    ]
    return Compose([*steps, *targets(size, label, deep_supervision)])


def planar(patch_size: Any) -> tuple[Shape3, bool]:
    """The shape of a patch, and whether it is augmented in the plane of its last two axes alone."""
    size = sizes("patch_size", patch_size)
    return size, max(size) > ANISOTROPIC * size[0]


def patch(size: Shape3, label: str, p_foreground: float, classes: Sequence[int] | None) -> list[Transform]:
    """The crops to a patch, of which one is drawn; the last step gives a shape that all of them have."""
    p = probability("p_foreground", p_foreground)
    if classes is not None and not len(classes):
        raise ValueError("classes is empty: name at least one label, or None for all that are not 0")
    groups = [None] if classes is None else [(int(c),) for c in classes]
    crops = [RandomCrop(size, label_name=label, labels=group) for group in groups]
    weights = [*(p / len(crops) for _ in crops), 1 - p]
    return [OneOf([*crops, RandomCrop(size)], weights=weights), CropOrPad(size)]


def targets(size: Shape3, label: str, scales: Sequence[Any]) -> list[Transform]:
    """Label -1 becomes 0, then the label maps of deep supervision."""
    steps: list[Transform] = [RemapLabels({-1: 0}, include=(label,))]
    for index, scale in enumerate(scales):
        factors = np.broadcast_to(np.asarray(scale, np.float64), 3)
        if not np.all((factors > 0) & (factors <= 1)):
            raise ValueError(f"deep_supervision must hold scales in (0, 1], got {scale!r}")
        shape = tuple(max(1, round(n * f)) for n, f in zip(size, factors, strict=True))
        if shape != size:
            name = f"{label}_{index}"
            steps += [RemapLabels({-1: 0}, include=(label,), keep={label: name}), Resize(shape, include=(name,))]
    return steps
