"""The stronger augmentation of nnU-Net's trainer DA5."""

from collections.abc import Sequence
from typing import Any

from medjax.presets.nnunet_task import GAMMA, padded, patch, planar, targets, task_of
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
from medjax.transforms.spatial.flip import RandomFlip
from medjax.transforms.spatial.permute_axes import RandomPermuteAxes
from medjax.transforms.spatial.rotate90 import RandomRotate90
from medjax.transforms.spatial.voxel_affine import RandomVoxelAffine
from medjax.transforms.transform import Transform
from medjax.typing import Shape3


def nnunet_da5(
    patch_size: Any,
    *,
    label: str = "label",
    p_foreground: float = 0.33,
    classes: Sequence[int] | None = None,
    regions: Sequence[Any] | None = None,
    ignore_label: int | None = None,
    previous: str | None = None,
    cascade_labels: Sequence[int] | None = None,
    nonzero_mask: bool = False,
    last_elements: bool = False,
    deep_supervision: Sequence[Any] = (),
) -> Compose:
    """nnU-Net v2's stronger augmentation DA5; arguments as in `nnunet`, from which it differs in the same ways.

    Rotation 0.4 (each axis kept by a fair coin), scale 0.2 (U(0.7, 1.43) an axis); patch; 0.5 a turn by 0, 90, 180 or
    270 degrees and 0.5 a permutation, both of the axes of the commonest size; median 2-7 or blur 0.3-1.5; noise;
    additive brightness N(0, 0.5); contrast with or without its range kept; low resolution U(0.25, 1); gamma twice, both
    inverted as in the source; mirror; 1-4 blank boxes of n // 10 to n // 3 - 1 voxels, each channel its own by a fair
    coin; brightness gradient; local gamma; sharpening; labels as in `nnunet`.

    Source: nnunetv2 `nnUNetTrainerDA5`, batchgeneratorsv2 0.3.6.
    """
    task = task_of(label, p_foreground, classes, regions, ignore_label, previous, cascade_labels, nonzero_mask,
                   last_elements, deep_supervision)  # fmt: skip
    size, plane = planar(patch_size)
    angle: Any = (180.0, 0.0, 0.0) if plane else 30.0
    axes = (1, 2) if plane else (0, 1, 2)
    some: dict[str, Any] = {"per_channel": True, "p_per_channel": 0.5}
    outside: dict[str, Any] = {"default_pad_label": task.outside}
    # The source's upper ends are exclusive: of the sizes of boxes and medians, and of the number of boxes.
    box = [(max(1, n // 10), max(1, n // 10, n // 3 - 1)) for n in size]
    contrast = ((0.5, 1.0), (1.0, 2.0))
    steps: list[Transform] = [
        padded(size, task),
        RandomVoxelAffine(degrees=angle, p_per_axis=0.5, p=0.4, **outside),
        RandomVoxelAffine(scales=(0.7, 1.43), axes=axes, isotropic=False, p=0.2, **outside),
        *patch(size, task),
        *turns(size),
        OneOf(
            [
                RandomMedian((2, 7), p=0.2, **some),
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
        RandomCoarseDropout(box, (1, 4), p=0.4, **some),
        RandomBrightnessGradient(p=0.3, **some),
        RandomLocalGamma(p=0.3, **some),
        RandomSharpen((0.1, 1.0), p=0.2, **some),
    ]
    return Compose([*steps, *targets(size, task)])


def turns(size: Shape3) -> list[Transform]:
    """The quarter turn and the permutation of the axes of the commonest size; none if all sizes differ."""
    most = max(size.count(n) for n in size)
    axes = tuple(axis for axis, n in enumerate(size) if size.count(n) == most)
    return [RandomRotate90(axes, p=0.5), RandomPermuteAxes(axes, p=0.5)] if most > 1 else []
