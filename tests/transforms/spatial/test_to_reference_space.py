"""ToReferenceSpace: the field of view of the reference, the voxels of the image."""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs

import medjax as mj

FINE = (24, 30, 18)


def reference():
    return mj.ScalarImage(blobs(FINE)[None], OBLIQUE)


def faces(affine, shape):
    """World positions of the corners of a field of view, (8, 3)."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * np.array(shape) - 0.5
    return corners @ affine[:3, :3].T + affine[:3, 3]


@pytest.mark.parametrize("shape", [(6, 5, 9), (12, 30, 18), (1, 1, 1), (7, 11, 5), (48, 60, 36)])
def test_the_field_of_view_is_that_of_the_reference_and_voxels_are_untouched(shape):
    tensor = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    for got in (
        mj.ToReferenceSpace(reference())(mj.ScalarImage(tensor, np.diag([3.0, 1, 2, 1]))),
        mj.ToReferenceSpace.from_tensor(tensor, reference()),
    ):
        np.testing.assert_array_equal(got.numpy(), tensor)
        np.testing.assert_allclose(faces(got.affine, shape), faces(OBLIQUE, FINE), atol=1e-9)


def test_an_image_shrunk_by_a_network_is_over_what_it_was_made_of():
    """Blocks of voxels averaged, as a convolution with stride does: each lies at the mean of its voxels."""
    whole = reference()
    means = whole.numpy().reshape(1, 12, 2, 10, 3, 9, 2).mean((2, 4, 6))
    got = mj.ToReferenceSpace.from_tensor(means, whole)
    np.testing.assert_allclose(got.affine @ [4, 7, 2, 1], OBLIQUE @ [8.5, 22, 4.5, 1], atol=1e-9)


def test_a_reference_can_be_a_path_or_a_shape_with_an_affine(tmp_path):
    path = tmp_path / "reference.nii.gz"
    reference().save(path)
    image = mj.ScalarImage(np.ones((1, 6, 5, 9), np.float32))
    want = mj.ToReferenceSpace(reference())(image).affine
    for given, error in ((path, 1e-4), (str(path), 1e-4), ((FINE, OBLIQUE), 1e-12)):
        np.testing.assert_allclose(mj.ToReferenceSpace(given)(image).affine, want, atol=error)


def test_labels_keep_their_dtype_and_the_way_back_is_the_old_affine():
    old = np.diag([3.0, 1, 2, 1])
    subject = mj.Subject(label=mj.LabelMap(np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5), old))
    t = mj.ToReferenceSpace(reference())
    got = t(subject)
    assert got.label.dtype == np.uint8
    back = t.invert(got, t.sample(None, subject), like=subject)
    np.testing.assert_array_equal(back.label.affine, old)
    np.testing.assert_array_equal(back.label.numpy(), subject.label.numpy())


def test_a_network_on_a_subject_and_back_in_its_world_shows_the_same_place():
    """Nearest from the coarse grid in the reference's space gives every voxel the mean of its block."""
    whole = reference()
    means = whole.numpy().reshape(1, 12, 2, 10, 3, 9, 2).mean((2, 4, 6))
    got = mj.Resample((FINE, OBLIQUE), "nearest")(mj.ToReferenceSpace.from_tensor(means, whole))
    np.testing.assert_array_equal(got.numpy(), means.repeat(2, 1).repeat(3, 2).repeat(2, 3))


@pytest.mark.parametrize("given", [2.0, "no_such_file.nii", (1, 2, 3), None])
def test_what_is_no_reference_is_refused(given):
    with pytest.raises((TypeError, ValueError), match="reference"):
        mj.ToReferenceSpace(given)
