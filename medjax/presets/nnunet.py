"""The augmentation that nnU-Net trains with."""

from collections.abc import Sequence
from typing import Any

from medjax.presets.nnunet_task import GAMMA, padded, patch, planar, targets, task_of
from medjax.transforms.compose import Compose
from medjax.transforms.intensity.blur import RandomBlur
from medjax.transforms.intensity.brightness import RandomBrightness
from medjax.transforms.intensity.contrast import RandomContrast
from medjax.transforms.intensity.gamma import RandomGamma
from medjax.transforms.intensity.low_resolution import RandomLowResolution
from medjax.transforms.intensity.noise import RandomNoise
from medjax.transforms.spatial.flip import RandomFlip
from medjax.transforms.spatial.voxel_affine import RandomVoxelAffine
from medjax.transforms.transform import Transform

ELONGATED = 1.5
"""From which ratio of its axes on a patch of one slice is hardly turned."""


def nnunet(
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
    """nnU-Net v2's default training augmentation of preprocessed volumes, the patch drawn and read by one gather.

    Rotation 0.2 (each angle U(-30, 30) degrees; only in the plane of the last two axes, +-180, for a patch whose
    longest axis is over 3 times the first, +-15 for an elongated single slice), scale 0.2 (one factor U(0.7, 1.4), > 1
    makes objects smaller), both in voxel units; patch; noise 0.1, blur 0.2, brightness 0.15, contrast 0.15, low
    resolution 0.25, inverted gamma 0.1, gamma 0.3, each channel by its own draw; mirror 0.5 an axis; mask; label -1 to
    0; cascade; deep supervision; regions.

    patch_size: voxels, one number or three; a smaller volume is padded with 0.  label: name of the label map.
    p_foreground: probability, for each element, that the patch is centred on a voxel of a label that is not 0.
    classes: labels of which one is drawn first, each equally likely; None draws among the regions, or among all voxels
    that are not 0. A map that holds -1 needs them.
    regions: groups of labels, as ((1, 2, 3), (2, 3), 3): the label maps put out are uint8 with a channel for each.
    ignore_label: never drawn as foreground; other patches are then centred on any other label; with regions it is the
    last channel. Needs classes or regions.
    previous: name of a label map, the previous stage's prediction. It is put out one-hot, uint8, a channel for each of
    `cascade_labels` (all of classes and regions if None); before, with 0.4 each label is dilated, eroded, opened or
    closed by a ball of radius U(1, 8) voxels, and with 0.2 each label loses a component under 15 % of the patch.
    nonzero_mask: images are 0 where the label is -1, as after normalisation inside a mask, or beyond the volume; then
    label maps are of a signed type. Needs classes or regions.
    last_elements: nnU-Net's rule in place of the coin: in a batch the last elements, a share of p_foreground, are
    centred on foreground (see `LastElements`).
    deep_supervision: scales, numbers or triples, of which each but 1 adds a label map f"{label}_{i}", i its place, by
    nearest (ties up).

    Differs from nnU-Net: voxels beyond its initial patch come from the volume instead of zeros. It draws a class among
    those present, here a class that is absent leaves the place uniform. The box is kept inside the volume's grid once
    that is turned about its middle. The vote of labels is in float32. An opening or closing by a ball of even width
    does not move the label by a voxel. The images of a subject share the coins, but draw their own numbers.
    Raises ValueError for arguments that need another one, and ImportError for a cascade without the `morphology` extra.
    Source: nnunetv2 `nnUNetTrainer`, batchgeneratorsv2 0.3.6.
    """
    task = task_of(label, p_foreground, classes, regions, ignore_label, previous, cascade_labels, nonzero_mask,
                   last_elements, deep_supervision)  # fmt: skip
    size, plane = planar(patch_size)
    angle: Any = 30.0
    if plane:
        angle = (15.0 if size[0] == 1 and max(size[1:]) > ELONGATED * min(size[1:]) else 180.0, 0.0, 0.0)
    axes = (1, 2) if plane else (0, 1, 2)
    each: dict[str, Any] = {"per_channel": True}
    outside: dict[str, Any] = {"default_pad_label": task.outside}
    steps: list[Transform] = [
        padded(size, task),
        RandomVoxelAffine(degrees=angle, p=0.2, **outside),
        RandomVoxelAffine(scales=(0.7, 1.4), axes=axes, p=0.2, **outside),
        *patch(size, task),
        RandomNoise(std=(0.0, 0.1), p=0.1),
        RandomBlur((0.5, 1.0), units="voxels", kernel="nnunet", p_per_channel=0.5, p=0.2, **each),
        RandomBrightness(((0.75, 1.0), (1.0, 1.25)), p=0.15, **each),
        RandomContrast(((0.75, 1.0), (1.0, 1.25)), p=0.15, **each),
        RandomLowResolution((0.5, 1.0), axes, p_per_channel=0.5, p=0.25, **each),
        RandomGamma(gamma=GAMMA, rescale=True, invert_image=True, retain_stats=True, p=0.1),
        RandomGamma(gamma=GAMMA, rescale=True, retain_stats=True, p=0.3),
        RandomFlip((0, 1, 2), 0.5),
    ]
    return Compose([*steps, *targets(size, task)])
