"""Images of random contrast from label maps, as SynthSeg trains on."""

from collections.abc import Mapping, Sequence
from typing import Any

from medjax.arguments import label_value, label_values, many, maybe, pairs, sizes, text
from medjax.transforms.compose import Compose
from medjax.transforms.intensity.acquisition import RandomAcquisition
from medjax.transforms.intensity.bspline_bias_field import RandomBSplineBiasField
from medjax.transforms.intensity.clamp import Clamp
from medjax.transforms.intensity.gamma import RandomGamma
from medjax.transforms.intensity.labels_to_image import RandomLabelsToImage
from medjax.transforms.intensity.rescale_intensity import RescaleIntensity
from medjax.transforms.label.remap_labels import RemapLabels
from medjax.transforms.label.remove_labels import RemoveLabels
from medjax.transforms.spatial.affine import RandomAffine
from medjax.transforms.spatial.crop import RandomCrop
from medjax.transforms.spatial.crop_or_pad import CropOrPad
from medjax.transforms.spatial.diffeomorphic_deformation import RandomDiffeomorphicDeformation
from medjax.transforms.spatial.flip import Flip
from medjax.transforms.transform import Transform

VOXELS_PER_NODE = 25  # of the velocity field
VOXELS_PER_BIAS_NODE = 40


def two_labels(name: str, value: Any) -> tuple[int, ...]:
    """A label and the one that it changes places with."""
    found = label_values(name, value)
    if len(found) != 2:
        raise ValueError(f"{name} must hold pairs of labels, got {found}")
    return found


def synthseg(
    labels: Sequence[int],
    *,
    patch_size: Any = 160,
    map_size: Any = None,
    target_labels: Mapping[int, int] | None = None,
    flip_pairs: Sequence[tuple[int, int]] = (),
    remove: Sequence[int] = (),
    label: str = "label",
    image: str = "image",
) -> Compose:
    """A synthetic image from a label map, and that label map, deformed together; the geometry is one label gather.

    Labels removed 0.3; affine (scale U(0.8, 1.2), rotation +-15 degrees, shear +-0.012, each an axis); flow of a
    velocity field, a node every 25 voxels, deviation U(0, 4); patch at a uniform place; mirror left to right 0.5;
    intensity mean[class] + std[class] N(0, 1) with means U(0, 250) and deviations U(0, 30), background all 0 (0.05) or
    dark, U(0, 15) and U(0, 5) (0.25); bias field 0.95, a node every 40 voxels, deviation U(0, 0.7); clip to 0..300, map
    to 0..1, power exp(N(0, 0.5)); resolution 0.95: along one axis up to 8 mm (0.9), or along all up to 4 mm (0.1).

    labels: the labels that get an intensity; a voxel of any other is 0.  patch_size: voxels, one number or three; a
    smaller map is padded with 0.  map_size: of the label maps, voxels, from which the nodes of the velocity field are
    counted; None is patch_size.  target_labels: {label: label that is put out}.  flip_pairs: pairs of left and right
    labels, which share a class and change places when the map is mirrored.  remove: labels that are made background
    with probability 0.3, as SynthSeg does with 24, the cerebrospinal fluid, in maps of the cerebrum.
    label: name of the label map.  image: name of the new image.

    Differs from SynthSeg: the velocity field is integrated as a flow of the image (to first order the same), on 12
    points a node instead of half as many as voxels; the affine is of the world, in mm, instead of in voxels; samples
    of a coarse resolution lie about the middle instead of from the first voxel on; blur mirrors at the edges
    instead of fading into 0; one image instead of several channels.
    Source: SynthSeg `labels_to_image_model`, `build_model_inputs`.
    """
    size = sizes("patch_size", patch_size)
    labels, remove = label_values("labels", labels), maybe(many(label_value))("remove", remove)
    label, image = text("label", label), text("image", image)
    target_labels = maybe(pairs(label_value, label_value))("target_labels", target_labels)
    flip_pairs = many(two_labels)("flip_pairs", flip_pairs)
    nodes = tuple(-(-n // VOXELS_PER_NODE) for n in (size if map_size is None else sizes("map_size", map_size)))
    bias_nodes = tuple(-(-n // VOXELS_PER_BIAS_NODE) for n in size)
    left = {b: a for a, b in flip_pairs}
    swap = {old: new for a, b in flip_pairs for old, new in ((a, b), (b, a))}
    mirror: list[Transform] = [Flip("LR"), *([RemapLabels(swap, include=(label,))] if swap else [])]
    steps: list[Transform] = [RemoveLabels(remove, p=0.3, include=(label,))] if remove else []
    steps += [
        CropOrPad(size, only_pad=True),
        RandomAffine(0.2, 15.0, shears=0.012, default_pad_value=0.0),
        RandomDiffeomorphicDeformation(nodes, (0.0, 4.0), default_pad_value=0.0),
        RandomCrop(size),
        Compose(mirror, p=0.5),
        RandomLabelsToImage(
            label, labels, image, default_mean=(0.0, 250.0), default_std=(0.0, 30.0),
            classes=[left.get(value, value) for value in labels], p_black=0.05, p_dark=0.25,
        ),
    ]  # fmt: skip
    only: dict[str, Any] = {"include": (image,)}
    steps += [
        RandomBSplineBiasField(bias_nodes, (0.0, 0.7), "linear", p=0.95, **only),
        Clamp(0.0, 300.0, **only),
        RescaleIntensity((0.0, 1.0), **only),
        RandomGamma(log_std=0.5, **only),
        RandomAcquisition(**only),
    ]
    if target_labels:
        steps.append(RemapLabels(dict(target_labels), include=(label,)))
    return Compose(steps)
