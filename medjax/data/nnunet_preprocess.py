"""nnU-Net's preprocessing: crop to what is not zero, normalise, resample; on the host, in NumPy.

The shape of the result hangs on voxels and on the spacing, and no two cases need share one, so this is no `Transform`
and nothing is compiled. How volumes are resized stands in `nnunet_resize.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medjax import geometry
from medjax.data.nnunet_resize import resize, resize_labels, resize_linearly, separate
from medjax.errors import one_of
from medjax.geometry import Grid
from medjax.image import Image, LabelMap, ScalarImage
from medjax.subject import Subject
from medjax.transforms.spatial.crop_or_pad import check_one_grid
from medjax.transforms.spatial.resize import resized
from medjax.typing import Shape3

OUTSIDE = -1
"""The label of background outside of the non-zero region."""
EPSILON = 1e-8
CT = "CTNormalization"
SCHEMES = ("ZScoreNormalization", CT, "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization")
NUMBERS = ("mean", "std", "percentile_00_5", "percentile_99_5")
RULE = "resample_data_or_seg_to_shape"
KWARGS = {"data": {"order": 3}, "seg": {"order": 1}, "probabilities": {"order": 1}}


@dataclass(frozen=True)
class NNUNetPreprocess:
    """What `nnunet_preprocess` makes: called with a subject it gives the preprocessed one."""

    spacing: tuple[float, ...]
    normalizations: tuple[str, ...]
    use_mask: tuple[bool, ...]
    intensities: Mapping[int, Mapping[str, float]]
    transpose: Shape3

    def __call__(self, subject: Subject) -> Subject:
        """The preprocessed subject: float32 images, labels in int8 or, above 127, wider; all on one new grid."""
        subject = subject.load()
        images = {n: i for n, i in subject.images.items() if isinstance(i, ScalarImage)}
        maps = {n: i for n, i in subject.images.items() if i.is_label}
        self.check(images, maps)
        turned = {n: transposed(i, self.transpose) for n, i in subject.images.items()}
        voxels = {n: np.array(turned[n].numpy(), np.float32) for n in images}
        inside = nonzero(voxels)
        low, high = box(inside)
        part = (slice(None), *map(slice, low, high))
        inside = filled(inside)[part[1:]] if maps or any(self.use_mask) else inside[part[1:]]
        labels = {n: signed(turned[n].numpy()[part]) for n in maps}
        for values in labels.values():
            values[(values == 0) & ~inside[None]] = OUTSIDE
        # As in nnU-Net, a voxel with a label counts as inside wherever it lies.
        marked = np.any([(values >= 0).any(0) for values in labels.values()], axis=0) if labels else inside

        first = next(iter(turned.values()))
        affine = np.asarray(first.affine, np.float64)
        old = geometry.spacing(affine)
        new = self.target(old)
        shape = tuple(max(1, round(s / t * n)) for s, t, n in zip(old, new, np.subtract(high, low), strict=True))
        axis = separate(old, new)
        cropped = Grid(affine @ geometry.translation(np.asarray(low, np.float64)), np.subtract(high, low))
        grid = resized(cropped, np.asarray(shape), None)

        done: dict[str, Any] = {}
        for name in subject.images:
            if name in maps:
                data = np.stack([resize_labels(channel, shape, axis) for channel in labels[name]])
            else:
                channels = self.normalised(name, images, voxels[name][part], marked)
                data = np.stack([resize(channel, shape, axis) for channel in channels])
            kind = LabelMap if name in maps else ScalarImage
            done[name] = kind.of(data, grid.affine, metadata=turned[name].metadata)
        return subject.replace(**done)

    def restore(self, image: Image, like: Image | Subject) -> Image:
        """A prediction on the preprocessed grid, back on the grid of `like`, what was preprocessed.

        image: a ScalarImage of scores, (C, I, J, K), which is interpolated linearly, or a LabelMap, by the vote of its
        labels; along a strongly anisotropic axis the nearest. What was cut off is 0. Which box that was is read from
        the affines, so that nothing need be remembered. nnU-Net restores scores and then takes their argmax.
        Raises ValueError for a grid that is not what `like` becomes.
        """
        native = transposed(next(iter(like.images.values())) if isinstance(like, Subject) else like, self.transpose)
        low, high = region(image, native)
        old = geometry.spacing(np.asarray(native.affine, np.float64))
        axis = separate(self.target(old), old)
        size = tuple(int(n) for n in np.subtract(high, low))
        given = image.numpy()
        back = resize_labels if image.is_label else resize_linearly
        data = np.zeros((len(given), *native.spatial_shape), given.dtype if back is resize_labels else np.float32)
        for values, channel in zip(data, given, strict=True):
            values[tuple(map(slice, low, high))] = back(channel, size, axis)
        whole = type(image).of(data, native.affine, metadata=image.metadata)
        return transposed(whole, tuple(int(n) for n in np.argsort(self.transpose)))

    def target(self, old: np.ndarray) -> np.ndarray:
        """The new spacing for an old one: in a plan of two axes the first keeps its own."""
        return np.asarray((*old[: 3 - len(self.spacing)], *self.spacing), np.float64)

    def normalised(
        self, name: str, images: Mapping[str, Image], voxels: np.ndarray, inside: np.ndarray
    ) -> list[np.ndarray]:
        """The channels of an image, each by its scheme; channels are counted through the images in order."""
        before = [n for n in images][: list(images).index(name)]
        first = sum(images[n].shape[0] for n in before)
        return [
            normalise(values, self.normalizations[c], inside if self.use_mask[c] else None, self.intensities.get(c, {}))
            for c, values in enumerate(voxels, first)
        ]

    def check(self, images: Mapping[str, Image], maps: Mapping[str, Image]) -> None:
        """Raise a ValueError for a subject that these values are not for."""
        count = sum(image.shape[0] for image in images.values())
        if count != len(self.normalizations):
            raise ValueError(
                f"normalizations has {len(self.normalizations)} schemes, but the scalar images of the subject, "
                f"{', '.join(images) or 'none'}, have {count} channels: give one for each"
            )
        everything = {**images, **maps}
        check_one_grid(
            {n: Grid(np.asarray(i.affine, np.float64), np.asarray(i.spatial_shape)) for n, i in everything.items()},
            "nnunet_preprocess",
        )
        for name, image in everything.items():
            if not np.isfinite(image.numpy()).all():
                raise ValueError(f"{name} holds NaN or infinite voxels, which resampling would spread")


def nnunet_preprocess(
    spacing: Sequence[float] | float,
    normalizations: Sequence[str] | str = "ZScoreNormalization",
    *,
    use_mask: Sequence[bool] | bool = False,
    intensities: Mapping[Any, Mapping[str, float]] | None = None,
    transpose: Sequence[int] = (0, 1, 2),
) -> NNUNetPreprocess:
    """nnU-Net v2's preprocessing as a function of a subject, on the host; no `Transform` (see the module).

    In order: axes transposed; crop to the box of all voxels that are not 0 in any channel; background outside of that
    region, its holes filled, becomes label -1; each channel normalised by its scheme; resampled to round(n s / s')
    voxels over the same field of view, scalar images by a cubic B-spline clipped to the range before, labels by the
    vote of linearly interpolated indicators, ties to the nearest voxel. If one spacing, the old or else the new, is
    over 3 times another, its largest axis is resampled after the others, by the nearest slice.

    spacing: mm, of the axes of the result; two numbers for a 2-D plan, where the first axis keeps its own.
    normalizations: a scheme for each channel, counted through the scalar images in order; a name is that of one
    channel. 'ZScoreNormalization' is (x - mean) / std, std with n and at least 1e-8; 'CTNormalization' clips to the
    percentiles and takes the numbers of the data set; 'RGBTo01Normalization' divides by 255; the others are
    'RescaleTo01Normalization' and 'NoNormalization'.
    use_mask: for each channel or for all: a z-score of the voxels inside the non-zero region alone, others unchanged.
    intensities: {channel: {'mean', 'std', 'percentile_00_5', 'percentile_99_5'}}, for CT.
    transpose: which axis of the image each axis of the result is. nnU-Net counts axes as z, y, x: (2, 1, 0).

    The images must share a grid. Affines follow, so that a voxel keeps its place in the world and `restore` brings a
    prediction back. The spacing of the result is that of whole voxels over the same field, near the one asked for.
    -1 is taken for 0 by `presets.nnunet`.
    Raises ValueError for schemes that do not fit the channels, images on different grids, and voxels not finite.
    Source: nnunetv2 2.8 `DefaultPreprocessor`, batchgenerators 0.25.5, in float32 instead of float64.

    >>> pre = mj.nnunet_preprocess((1.0, 1.0, 1.0), use_mask=True)
    >>> case = pre(mj.Subject(t1=mj.ScalarImage("t1.nii.gz"), label=mj.LabelMap("label.nii.gz")))
    """
    schemes = (normalizations,) if isinstance(normalizations, str) else tuple(normalizations)
    for scheme in schemes:
        one_of("normalizations", scheme, SCHEMES)
    masks = (use_mask,) * len(schemes) if isinstance(use_mask, (bool, np.bool_)) else tuple(use_mask)
    if len(masks) != len(schemes):
        raise ValueError(f"use_mask must be one truth value or {len(schemes)}, one a channel, got {use_mask!r}")
    sizes = np.asarray((spacing,) * 3 if np.ndim(spacing) == 0 else spacing, np.float64)
    if sizes.shape not in ((2,), (3,)) or not np.all(np.isfinite(sizes) & (sizes > 0)):
        raise ValueError(f"spacing must be one, two or three positive numbers of mm, got {spacing!r}")
    if sorted(transpose) != [0, 1, 2]:
        raise ValueError(f"transpose must hold 0, 1 and 2 once each, got {transpose!r}")
    numbers = {int(c): dict(values) for c, values in (intensities or {}).items()}
    for channel, scheme in enumerate(schemes):
        missing = [n for n in NUMBERS if scheme == CT and n not in numbers.get(channel, {})]
        if missing:
            raise ValueError(f"intensities[{channel}] lacks {', '.join(missing)}, which {CT} needs")
    i, j, k = (int(n) for n in transpose)
    return NNUNetPreprocess(tuple(map(float, sizes)), schemes, tuple(map(bool, masks)), numbers, (i, j, k))


def nnunet_preprocess_from_plans(
    plans: Mapping[str, Any] | str | Path,
    fingerprint: Mapping[str, Any] | str | Path | None = None,
    configuration: str = "3d_fullres",
) -> NNUNetPreprocess:
    """`nnunet_preprocess` with the values of a configuration of an nnU-Net plans file.

    plans, fingerprint: nnUNetPlans.json and dataset_fingerprint.json, paths or what they hold. The numbers of
    intensities are in both, and those of the fingerprint count if it is given.
    Axes come out in nnU-Net's order, that of its patch size: z, y, x of the file, transposed as planned.
    Raises ValueError for a configuration that is not there and for a resampling that is not nnU-Net's default.
    """
    plans, fingerprint = parsed(plans), parsed({} if fingerprint is None else fingerprint)
    values = resolved(plans["configurations"], one_of("configuration", configuration, list(plans["configurations"])))
    for kind, expected in KWARGS.items():
        rule = values.get(f"resampling_fn_{kind}", RULE)
        given = values.get(f"resampling_fn_{kind}_kwargs", {})
        if rule != RULE or any(
            given.get(n, v) != v for n, v in {**expected, "order_z": 0, "force_separate_z": None}.items()
        ):
            raise ValueError(
                f"configuration {configuration!r} resamples {kind} by {rule}({dict(given)}); here it is {RULE} with "
                f"{expected}, order_z 0 and force_separate_z None"
            )
    key = "foreground_intensity_properties_per_channel"
    forward = plans.get("transpose_forward", (0, 1, 2))
    return nnunet_preprocess(
        values["spacing"],
        values["normalization_schemes"],
        use_mask=values["use_mask_for_norm"],
        intensities=fingerprint.get(key) or plans.get(key),
        transpose=[2 - axis for axis in forward],
    )


def parsed(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """What a JSON file holds, or what it is given as."""
    return source if isinstance(source, Mapping) else json.loads(Path(source).read_text())


def resolved(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits."""
    own = configurations[name]
    parent = own.get("inherits_from")
    return {**(resolved(configurations, parent) if parent else {}), **own}


# -- voxels


def transposed(image: Image, axes: Sequence[int]) -> Image:
    """The image with its axes in another order, and its affine so that every voxel stays in its place."""
    data = np.transpose(image.numpy(), (0, *(axis + 1 for axis in axes)))
    affine = np.asarray(image.affine, np.float64)[:, (*axes, 3)]
    return type(image).of(data, affine, metadata=image.metadata)


def signed(labels: np.ndarray) -> np.ndarray:
    """A copy of labels in the narrowest of int8, int16 and int32 that holds them and -1."""
    least, most = int(labels.min()), int(labels.max())
    return labels.astype(np.min_scalar_type(min(least, -most - 1, OUTSIDE)))


def nonzero(voxels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where any channel of any image is not 0, (I, J, K)."""
    return np.any([(values != 0).any(0) for values in voxels.values()], axis=0)


def filled(mask: np.ndarray) -> np.ndarray:
    """A mask with its holes, which no path of face neighbours leads out of, filled."""
    from scipy.ndimage import binary_fill_holes  # comes with JAX; a quarter of a second to import

    return binary_fill_holes(mask)


def box(mask: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The first index of a mask along each axis, and the one after the last; the whole grid if it is empty."""
    low, high = [], []
    for axis, size in enumerate(mask.shape):
        along = np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis)))
        low.append(int(along[0]) if len(along) else 0)
        high.append(int(along[-1]) + 1 if len(along) else size)
    return tuple(low), tuple(high)


def normalise(x: np.ndarray, scheme: str, mask: np.ndarray | None, numbers: Mapping[str, float]) -> np.ndarray:
    """A channel (I, J, K) by a scheme, float32; `mask` is for z-scores alone."""
    if scheme == CT:
        clipped = np.clip(x, np.float32(numbers["percentile_00_5"]), np.float32(numbers["percentile_99_5"]))
        return (clipped - np.float32(numbers["mean"])) / np.float32(max(numbers["std"], EPSILON))
    if scheme == "RescaleTo01Normalization":
        shifted = x - x.min()
        return shifted / np.maximum(shifted.max(), np.float32(EPSILON))
    if scheme == "RGBTo01Normalization":
        if x.min() < 0 or x.max() > 255:
            raise ValueError(f"RGBTo01Normalization is for voxels from 0 to 255, got {x.min():g} to {x.max():g}")
        return x / np.float32(255)
    if scheme == "NoNormalization":
        return x
    chosen = x if mask is None else x[mask]
    if not chosen.size:
        return x
    mean, std = chosen.mean(dtype=np.float64), chosen.std(dtype=np.float64)
    scaled = (x - np.float32(mean)) / np.float32(max(std, EPSILON))
    return scaled if mask is None else np.where(mask, scaled, x)


# -- resampling


def region(image: Image, native: Image) -> tuple[np.ndarray, np.ndarray]:
    """The box [low, high) of the native grid that an image covers from face to face.

    Raises ValueError if it covers none, or is turned against the grid.
    """
    step = geometry.inverse(np.asarray(native.affine, np.float64)) @ np.asarray(image.affine, np.float64)
    size = np.asarray(image.spatial_shape)
    ends = [geometry.transform_point(step, corner) + 0.5 for corner in (np.full(3, -0.5), size - 0.5)]
    low, high = (np.round(end).astype(int) for end in ends)
    turned = np.abs(step[:3, :3] - np.diag(np.diag(step[:3, :3]))).max() > 1e-3
    off = max(np.abs(end - np.round(end)).max() for end in ends) > 0.05
    if turned or off or np.any(low < 0) or np.any(high > native.spatial_shape) or np.any(high <= low):
        raise ValueError(
            f"an image of shape {image.spatial_shape} that covers voxels {ends[0].round(3).tolist()} to "
            f"{ends[1].round(3).tolist()} of a grid of shape {native.spatial_shape} is not what preprocessing makes "
            "of that grid: give the prediction the affine of the preprocessed image"
        )
    return low, high
