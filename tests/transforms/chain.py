"""Chains of spatial transforms in float64, from their definitions alone: NumPy, nibabel and SimpleITK, no medjax.

A grid is (affine, shape). A step gives the next grid and the map of its move, points (3, N) of the output's world to
the input's. One image: its grid is the reference of every step.
"""

from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from nibabel import orientations
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

LPS = np.diag([-1.0, -1, 1])


class Stage(NamedTuple):
    """The grid after a step, and the move of the step, or None."""

    affine: np.ndarray
    shape: tuple
    move: object = None


def shifted(affine, first):
    """The affine whose voxel 0 is voxel `first` of another."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ first
    return moved


def apply(matrix, points):
    return matrix[:3, :3] @ points + matrix[:3, 3:]


def centred(affine, shape, target):
    """A window of `target` voxels about the centre; an odd voxel is cut or added at the low end."""
    first = [(n - m + 1) // 2 if m < n else -((m - n + 1) // 2) for n, m in zip(shape, target)]
    return Stage(shifted(affine, first), tuple(target))


def crop(t, draw, affine, shape):
    low, high = t.cropping[0::2], t.cropping[1::2]
    return Stage(shifted(affine, low), tuple(n - a - b for n, a, b in zip(shape, low, high)))


def pad(t, draw, affine, shape):
    low, high = np.array(t.padding[0::2]), t.padding[1::2]
    return Stage(shifted(affine, -low), tuple(int(n + a + b) for n, a, b in zip(shape, low, high)))


def crop_or_pad(t, draw, affine, shape):
    return centred(affine, shape, t.target_shape)


def ensure_shape_multiple(t, draw, affine, shape):
    return centred(affine, shape, [-(-n // m) * m for n, m in zip(shape, t.target_multiple)])


def resize(t, draw, affine, shape):
    target = tuple(n if m == -1 else m for n, m in zip(shape, t.target_shape))
    ratio = np.array(shape) / target
    new = affine.copy()
    new[:3, :3] = affine[:3, :3] * ratio
    new[:3, 3] += affine[:3, :3] @ (ratio / 2 - 0.5)
    return Stage(new, target)


def resample(t, draw, affine, shape):
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    ratio = np.array([float(str(v)) for v in np.asarray(t.target)]) / spacing
    target = tuple(1 if n == 1 else int(np.floor(n / r + 1e-5)) for n, r in zip(shape, ratio))
    new = shifted(affine, (np.array(shape) - 1) / 2 - (np.array(target) - 1) / 2 * ratio)
    new[:3, :3] = affine[:3, :3] * ratio
    return Stage(new, target)


def transpose(t, draw, affine, shape):
    return Stage(affine[:, [2, 1, 0, 3]], shape[::-1])


def to_orientation(t, draw, affine, shape):
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(t.orientation))
    )
    new = affine @ orientations.inv_ornt_aff(turn, shape)
    return Stage(new, orientations.apply_orientation(np.zeros(shape, bool), turn).shape)


def flip(t, draw, affine, shape):
    matrix = np.eye(4)
    for axis, flipped in zip(t.axes, np.asarray(draw["flip"])):
        if flipped:
            matrix[axis, axis], matrix[axis, 3] = -1, shape[axis] - 1
    matrix = affine @ matrix @ np.linalg.inv(affine)
    return Stage(affine, shape, lambda points: apply(matrix, points))


def own_axes(affine, shape):
    """The frame a slice or a line is moved in, and along which of its axes it is thin; the world's for a volume."""
    if 1 not in shape:
        return np.eye(3), np.zeros(3, bool)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    order = sorted(range(3), key=lambda axis: shape[axis] == 1)
    q, r = np.linalg.qr(directions[:, order])
    frame = np.empty((3, 3))
    frame[:, order] = q * np.sign(np.diag(r))
    voxels, signs = orientations.io_orientation(affine).T
    world = {int(w): (voxel, sign) for voxel, (w, sign) in enumerate(zip(voxels, signs))}
    own = np.stack([frame[:, world[w][0]] * world[w][1] for w in range(3)], 1)
    return own, np.array([shape[world[w][0]] == 1 for w in range(3)])


def affine_move(t, draw, affine, shape):
    """p_out = c + S R H (p_in - c) + S t, or c + R H S (p_in - c) + t; a slice in its plane alone, along its own axes."""
    scales, degrees, shift, shears = (
        np.asarray(draw[name], float) for name in ("scales", "degrees", "translation", "shears")
    )
    own, flat = own_axes(affine, shape)
    scales, shift = np.where(flat, 1, scales), np.where(flat, 0, shift)
    degrees = np.array([0 if flat[np.arange(3) != w].any() else degrees[w] for w in range(3)])
    skew = np.eye(3)
    skew[~np.eye(3, dtype=bool)] = shears
    skew[(flat[:, None] | flat[None]) & ~np.eye(3, dtype=bool)] = 0
    turned = Rotation.from_euler("yxz", degrees[[1, 0, 2]], degrees=True).as_matrix() @ skew
    linear = np.diag(scales) @ turned if t.order == "world" else turned @ np.diag(scales)
    offset = own @ (np.diag(scales) @ shift if t.order == "world" else shift)
    linear = own @ linear @ own.T
    centre = apply(affine, (np.array(shape)[:, None] - 1) / 2)
    back = np.linalg.inv(linear)
    return Stage(affine, shape, lambda points: back @ (points - centre - offset[:, None]) + centre)


def elastic_move(t, draw, affine, shape):
    """ITK's B-spline transform; SciPy evaluates its coefficients."""
    control = np.asarray(draw["control_points"], float)
    image = sitk.Image([int(n) for n in shape], sitk.sitkUInt8)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((LPS @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    transform = sitk.BSplineTransformInitializer(image, [n - 3 for n in control.shape[:3]])
    transform.SetParameters(control.ravel(order="F").tolist())
    grids = transform.GetCoefficientImages()
    first = grids[0]
    step = np.array(first.GetDirection()).reshape(3, 3) * first.GetSpacing()
    origin = np.array(first.GetOrigin())[:, None]
    values = [sitk.GetArrayFromImage(grid).T for grid in grids]

    def move(points):
        at = np.linalg.inv(step) @ (LPS @ points - origin)
        return points + LPS @ [map_coordinates(v, at, order=3, prefilter=False, mode="grid-constant") for v in values]

    return Stage(affine, shape, move)


STEPS = {
    "Crop": crop, "Pad": pad, "CropOrPad": crop_or_pad, "EnsureShapeMultiple": ensure_shape_multiple, "Resize": resize,
    "Resample": resample, "Transpose": transpose, "ToOrientation": to_orientation, "Flip": flip, "RandomFlip": flip,
    "Affine": affine_move, "RandomAffine": affine_move, "ElasticDeformation": elastic_move,
    "RandomElasticDeformation": elastic_move,
}  # fmt: skip


def step(t, draw, affine, shape):
    """One step of a chain."""
    return STEPS[type(t).__name__](t, draw, affine, tuple(shape))


def stages(chain, draws, affine, shape):
    """The grid at the start and after every step."""
    found = [Stage(np.asarray(affine, float), tuple(shape))]
    for t, draw in zip(chain, draws):
        found.append(step(t, draw, found[-1].affine, found[-1].shape))
    return found


def world(affine, shape):
    """World positions (3, N) of the voxels of a grid."""
    return apply(affine, np.indices(shape).reshape(3, -1).astype(float))


def within(index, shape, margin):
    """Where indices (3, N) lie between the outermost voxel centres, or in the only slice."""
    return np.all(
        [(np.abs(c) < 0.5 - margin) if n == 1 else (c > margin) & (c < n - 1 - margin) for c, n in zip(index, shape)], 0
    )


def origin_of(found, points, margin=0.02):
    """Where in the first world points of the last come from, and which lay in the image at every stage: (3, N), (N,)."""
    clear = np.ones(points.shape[1], bool)
    for stage in reversed(found):
        clear &= within(apply(np.linalg.inv(stage.affine), points), stage.shape, margin)
        if stage.move is not None:
            points = stage.move(points)
    return points, clear
