"""Images of random contrast from label maps, as SynthSeg trains on."""

from collections.abc import Mapping, Sequence
from typing import Any

from medjax.transforms.choice import OneOf
from medjax.transforms.compose import Compose
from medjax.transforms.intensity.anisotropy import RandomAnisotropy
from medjax.transforms.intensity.blur import RandomBlur
from medjax.transforms.intensity.bspline_bias_field import RandomBSplineBiasField
from medjax.transforms.intensity.clamp import Clamp
from medjax.transforms.intensity.gamma import RandomGamma
from medjax.transforms.intensity.labels_to_image import RandomLabelsToImage
from medjax.transforms.intensity.low_resolution import RandomLowResolution
from medjax.transforms.intensity.rescale_intensity import RescaleIntensity
from medjax.transforms.label.remap_labels import RemapLabels
from medjax.transforms.spatial.affine import RandomAffine
from medjax.transforms.spatial.crop import RandomCrop, sizes
from medjax.transforms.spatial.crop_or_pad import CropOrPad
from medjax.transforms.spatial.elastic_deformation import RandomElasticDeformation
from medjax.transforms.spatial.flip import Flip
from medjax.transforms.transform import Transform


def synthseg(
    labels: Sequence[int],
    *,
    patch_size: Any = 160,
    target_labels: Mapping[int, int] | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    label: str = "label",
    image: str = "image",
) -> Compose:
    """A synthetic image from a label map, and that label map, deformed together; the geometry is one label gather.

    Affine (scale U(0.8, 1.2), rotation +-15 degrees, shear +-0.012, each an axis), elastic deformation, patch at a
    uniform place, mirror left to right 0.5; intensity mean[label] + std[label] N(0, 1) with means U(0, 250) and
    deviations U(0, 30); bias field 0.95; clip to 0..300, map to 0..1, power exp(N(0, 0.5)); resolution 0.95: along one
    axis 1 to 8 times coarser (0.9) or in all 1 to 4 times (0.1); slight blur.

    labels: the labels that get an intensity; a voxel of any other is 0.  patch_size: voxels, one number or three; a
    smaller map is padded with 0.  target_labels: {label: label that is put out}.  flip_pairs: pairs of left and right
    labels that change places when the map is mirrored.  label: name of the label map.  image: name of the new image.

    Differs from SynthSeg: the elastic deformation is a cubic B-spline of 7 control points an axis, each moved by up to
    4 mm, instead of an integrated velocity field; left and right do not share a class and background is drawn as any
    other label; resolution is in voxels, its factor (along one axis) or its inverse (in all) uniform.
    Source: SynthSeg `labels_to_image_model`.
    """
    size = sizes("patch_size", patch_size)
    swap = {old: new for a, b in flip_pairs for old, new in ((a, b), (b, a))}
    mirror: list[Transform] = [Flip("LR"), *([RemapLabels(swap, include=(label,))] if swap else [])]
    steps: list[Transform] = [
        CropOrPad(size, only_pad=True),
        RandomAffine(0.2, 15.0, shears=0.012, default_pad_value=0.0),
        RandomElasticDeformation(7, 4.0, 0, default_pad_value=0.0),
        RandomCrop(size),
        Compose(mirror, p=0.5),
        RandomLabelsToImage(label, labels, image, default_mean=(0.0, 250.0), default_std=(0.0, 30.0)),
    ]
    only: dict[str, Any] = {"include": (image,)}
    steps += [
        RandomBSplineBiasField(4, (0.0, 0.7), "linear", p=0.95, **only),
        Clamp(0.0, 300.0, **only),
        RescaleIntensity((0.0, 1.0), **only),
        RandomGamma(log_std=0.5, **only),
        OneOf(
            [
                RandomAnisotropy(downsampling=(1.0, 8.0), slice_profile="gaussian", **only),
                RandomLowResolution((0.25, 1.0), **only),
            ],
            p=0.95,
            weights=(0.9, 0.1),
        ),
        RandomBlur((0.485, 0.515), units="voxels", isotropic=True, **only),
    ]
    if target_labels:
        steps.append(RemapLabels(dict(target_labels), include=(label,)))
    return Compose(steps)
