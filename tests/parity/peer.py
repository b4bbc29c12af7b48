"""TorchIO 1.2.1 as the reference, its warnings kept to itself, and where its numbers bind."""

import warnings

import numpy as np
from scipy.ndimage import binary_erosion

import medjax as mj

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torchio as tio

EDGE = 1e-3
"""Voxels: coordinates closer than this to an edge, or to a tie of nearest, are left out."""


def run(transform, subject):
    """What a transform of TorchIO makes of a subject of medjax, as a subject of medjax."""
    kinds = {mj.ScalarImage: tio.ScalarImage, mj.LabelMap: tio.LabelMap}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = {n: kinds[type(i)](tensor=i.numpy(), affine=np.asarray(i.affine)) for n, i in subject.images.items()}
        result = transform(tio.Subject(images))
    back = {tio.ScalarImage: mj.ScalarImage, tio.LabelMap: mj.LabelMap}
    images = {n: back[type(i)](i.numpy(), i.affine) for n, i in result.get_images_dict(intensity_only=False).items()}
    return mj.Subject(images)


def read_at(transform, image):
    """The voxel (3, I, J, K) of `image` that TorchIO reads at each voxel of its output: its warp of an index ramp.

    Clamped in the outer half voxel, 0 (the ramp's minimum) outside.
    """
    ramp = np.stack(np.indices(image.spatial_shape)).astype(np.float32)
    return run(transform, mj.Subject(image=mj.ScalarImage(ramp, image.affine)))["image"].numpy()


def interior(index, shape):
    """Where an index lies between the centres of the first and the last voxel, by EDGE: not in the outer half voxel."""
    return np.all([(c > EDGE) & (c < n - 1 - EDGE) for c, n in zip(index, shape)], axis=0)


def exterior(index):
    """Where the ramp says that a voxel and all its neighbours lie outside."""
    return binary_erosion((index == 0).all(0), np.ones((3, 3, 3)), border_value=1)


def untied(index):
    """Where no coordinate lies halfway between two voxels."""
    return (np.abs(index - np.floor(index) - 0.5) > EDGE).all(0)


def agree(got, want, where=True, tolerance=1e-3):
    """Voxels agree to `tolerance` times the range of intensities, at the voxels `where`, of which there are some."""
    got, want = got.numpy(), want.numpy()
    assert got.shape == want.shape
    where = np.broadcast_to(where, want.shape)
    assert where.mean() > 0.05
    assert np.abs(got.astype(float) - want)[where].max() <= tolerance * np.ptp(want)


def equal(got, want, where=True):
    """Voxels are equal at the voxels `where`, of which there are some, and not all the same."""
    got, want = got.numpy(), want.numpy()
    assert got.shape == want.shape
    where = np.broadcast_to(where, want.shape)
    assert where.mean() > 0.05
    assert len(np.unique(want[where])) > 1
    np.testing.assert_array_equal(got[where], want[where])


def same_space(got, want):
    """Shapes are equal, affines to 1e-4 mm."""
    assert got.spatial_shape == want.spatial_shape
    assert np.asarray(got.affine).dtype == np.float64
    np.testing.assert_allclose(got.affine, want.affine, rtol=0, atol=1e-4)


def strided(subject, step=4):
    """Every `step`-th voxel of a subject along each axis, with the affine to match; images in float32."""
    images = {}
    for name, image in subject.images.items():
        data = image.numpy()[:, ::step, ::step, ::step]
        data = data.astype(np.float32) if isinstance(image, mj.ScalarImage) else data
        images[name] = type(image)(np.ascontiguousarray(data), np.asarray(image.affine) @ np.diag([step] * 3 + [1]))
    return mj.Subject(images)
