"""Channels that are moved against the others: SciPy in float64, `Affine`, and what is drawn."""

import jax
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.channel_misalignment import ChannelMisalignmentTransform
from batchgeneratorsv2.transforms.spatial.spatial import create_affine_matrix_3d
from conftest import OBLIQUE, blobs, small_subject
from scipy.ndimage import affine_transform

import medjax as mj
from transforms.intensity.drawing import between, draws, follow, frequency

SHAPE = (15, 17, 13)


def test_a_shift_is_scipys():
    """2.6 voxels along the second axis of spacing 2 mm."""
    x = np.stack([blobs(SHAPE), blobs(SHAPE, 1)])
    image = mj.ScalarImage(x, np.diag([1.0, 2.0, 1.5, 1.0]))
    got = mj.ChannelMisalignment(translation=(0, 5.2, 0), channel_indices=(1,), default_pad_value="edge")(image).numpy()
    want = affine_transform(x[1].astype(float), np.eye(3), (0, -2.6, 0), order=1, mode="nearest")
    np.testing.assert_array_equal(got[0], x[0])
    np.testing.assert_allclose(got[1], want, atol=1e-5)


def test_it_is_nnu_nets():
    """Theirs reads at R S (x + shift), ours at R^-1 (x / scales - translation)."""
    x, squeezed, angle, shift = blobs((16, 18, 14)), np.array((1.1, 0.95, 1.2)), 0.2, np.array((1, -2, 3))
    params = dict(affine=create_affine_matrix_3d([angle, 0, 0], squeezed), elastic_offsets=None)
    params["center_location_in_pixels"] = np.array(x.shape) / 2 + shift
    theirs = ChannelMisalignmentTransform([0], rad_or_deg="deg")
    want, known = (theirs._apply_to_image(torch.tensor(v[None]), **params).numpy() for v in (x, np.ones_like(x)))
    degrees = (-np.rad2deg(angle), 0, 0)
    got = mj.ChannelMisalignment(1 / squeezed, degrees, -squeezed * shift, default_pad_value=0.0)(x[None])
    inside = known > 1 - 1e-6  # at the rim theirs fades to 0
    assert inside.mean() > 0.4
    np.testing.assert_allclose(got[inside], want[inside], atol=1e-5)


def test_an_image_is_moved_as_by_affine_and_the_others_and_labels_stay():
    subject = small_subject(shape=SHAPE)
    subject = subject.replace(dwi=mj.ScalarImage(blobs(SHAPE, 2)[None], OBLIQUE))
    moves = dict(scales=(1.1, 0.9, 1), degrees=(3, -7, 5), translation=(1, 2, -1), image_interpolation="cubic")
    got = mj.ChannelMisalignment(**moves, include=["dwi"])(subject)
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())
    np.testing.assert_array_equal(got.label.numpy(), subject.label.numpy())
    np.testing.assert_allclose(got.dwi.numpy(), mj.Affine(**moves)(subject.dwi).numpy(), atol=2e-5)
    np.testing.assert_array_equal(got.dwi.affine, OBLIQUE)


def test_images_move_apart():
    image = mj.ScalarImage(blobs(SHAPE)[None], OBLIQUE)
    got = mj.RandomChannelMisalignment()(mj.Subject(a=image, b=image), jax.random.key(0))
    assert np.abs(got.a.numpy() - got.b.numpy()).max() > 0.01


def test_what_is_drawn():
    follow(draws(mj.RandomChannelMisalignment(scales=0.2))["scales"], between(0.8, 1.2))
    drawn = draws(mj.RandomChannelMisalignment(degrees=5, translation=(-1, 3), p_degrees=0.3))
    follow(drawn["translation"], between(-1, 3))
    turned = (drawn["degrees"] != 0).any(-1)
    frequency(turned, 0.3)
    assert np.abs(drawn["degrees"]).max() <= 5


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"channel_indices=\(2,\) of 1 channels"):
        mj.ChannelMisalignment(channel_indices=(2,))(small_subject(shape=SHAPE))
    with pytest.raises(ValueError, match="channel_indices"):
        mj.ChannelMisalignment(channel_indices=(1, 1))
