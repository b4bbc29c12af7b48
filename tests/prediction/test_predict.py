"""Predictions on the native grid, against float64 interpolation by SciPy of a network that is known voxel by voxel."""

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, compilations, oriented, small_subject
from scipy.ndimage import map_coordinates

import medjax as mj

CENTRES = tuple(np.linspace(0, 1, 5).tolist())


def network(batch):
    """Scores of five classes, (B, 5, I, J, K): those of a voxel are of its intensity alone."""
    return jnp.concatenate([-20 * (batch["t1"].data - c) ** 2 for c in CENTRES], 1)


def truth(ready, native, turn=None):
    """All scores in float64 on the native grid, (5, I, J, K), and which voxels any score shows.

    turn: a map of indices of the preprocessed grid, which the affines do not tell of.
    """
    values = np.asarray(ready.data[0], np.float64)
    matrix = np.linalg.inv(ready.affine) @ native.affine
    matrix = matrix if turn is None else turn @ matrix
    index = np.indices(native.spatial_shape).reshape(3, -1)
    at = (matrix[:3, :3] @ index + matrix[:3, 3:]).reshape(3, *native.spatial_shape)
    size = np.array(values.shape)[:, None, None, None]
    shown = ((at > -0.5) & (at < size - 0.5)).all(0)
    at = np.clip(at, 0, size - 1)
    return np.stack([map_coordinates(-20 * (values - c) ** 2, at, order=1) for c in CENTRES]), shown


def check(labels, scores, shown):
    two = np.sort(scores, 0)[-2:]
    clear = shown & (two[1] - two[0] > 1e-5)
    assert clear.sum() > 0.9 * shown.sum()
    assert not labels.numpy()[0][~shown].any()
    np.testing.assert_array_equal(labels.numpy()[0][clear], scores.argmax(0)[clear])
    assert len(np.unique(scores.argmax(0)[clear])) == 5


def flipped(shape, axis):
    """The map of indices that reverses an axis."""
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, shape[axis] - 1
    return matrix


PIPELINES = {
    "nothing": mj.Compose([]),
    "resampled and permuted": mj.Compose([mj.ToCanonical(), mj.Resample((1.3, 1.7, 1.1)), mj.ZNormalization()]),
    "coarser, cropped and padded": mj.Compose([mj.Crop((2, 1, 0, 3, 1, 1)), mj.Resample(2.1), mj.Pad(2)]),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_labels_are_those_of_float64_interpolation(name):
    subject = small_subject(oriented("PIR", (1.0, 2.0, 1.5), (20, -30, 11)))
    pipeline = PIPELINES[name]
    plain = mj.Compose([m for m in pipeline.members if not isinstance(m, mj.ZNormalization)])
    ready = plain(subject).t1
    found = mj.predict(network, subject, plain, patch_size=10, overlap=0.4, batch_size=3)
    assert isinstance(found, mj.LabelMap) and found.dtype == np.uint8
    assert found.spatial_shape == subject.t1.spatial_shape
    np.testing.assert_array_equal(found.affine, subject.t1.affine)
    check(found, *truth(ready, subject.t1))


def test_what_was_moved_in_the_world_is_moved_back(subject):
    pipeline = mj.Compose([mj.Flip(axes=(0, 2)), mj.Resample((1.3, 1.7, 1.1))])
    ready = pipeline(subject).t1
    turn = flipped(ready.spatial_shape, 0) @ flipped(ready.spatial_shape, 2)
    found = mj.predict(network, subject, pipeline, patch_size=10)
    check(found, *truth(ready, subject.t1, turn))
