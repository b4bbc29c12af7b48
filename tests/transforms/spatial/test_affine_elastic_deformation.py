"""AffineElasticDeformation: both maps in the asked order, read once, and a way back."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject
from scipy.ndimage import gaussian_filter, map_coordinates

import medjax as mj

SHAPE = (23, 31, 18)
AFFINE = {"scales": (1.1, 0.9, 1.05), "degrees": (5, -10, 20), "translation": (2, -1, 3)}
POINTS = np.random.default_rng(0).uniform(-2, 2, (6, 5, 7, 3))
ELASTIC = {"control_points": POINTS}


def smooth_subject():
    subject = small_subject()
    data = gaussian_filter(np.random.default_rng(1).normal(size=SHAPE), 3)
    data = ((data - data.min()) / np.ptp(data)).astype(np.float32)
    return subject.replace(t1=subject.t1.replace(data=data[None]))


def world_of(t):
    """World mm (3, I, J, K) that a spatial transform reads at each voxel: its warp of an image of positions."""
    index = np.indices(SHAPE).reshape(3, -1)
    world = (OBLIQUE[:3, :3] @ index).reshape(3, *SHAPE).astype(np.float32)
    return t(mj.ScalarImage(world, OBLIQUE)).numpy().astype(float)


def index_of(read):
    """Positions as indices of the image, and where these lie in it, off its border."""
    index = np.tensordot(np.linalg.inv(OBLIQUE[:3, :3]), read, 1)
    return index, np.all([(c > 0.01) & (c < n - 1.01) for c, n in zip(index, SHAPE)], 0)


@pytest.mark.parametrize("affine_first", [True, False])
def test_it_is_one_map_after_the_other_in_the_asked_order(affine_first):
    """What one map reads, read through the other, by SciPy; linear interpolation of positions is exact but for bends."""
    fill = {"default_pad_value": -1e4}
    affine, elastic = world_of(mj.Affine(**AFFINE, **fill)), world_of(mj.ElasticDeformation(POINTS, **fill))
    first, second = (affine, elastic) if affine_first else (elastic, affine)
    at, clear = index_of(second)  # in the outer half voxel the edge is repeated, positions too
    want = np.stack([map_coordinates(channel, at, order=1) for channel in first])
    got = world_of(mj.AffineElasticDeformation(affine_first, {**AFFINE, **fill}, ELASTIC))
    clear &= (map_coordinates(index_of(first)[1].astype(float), at, order=1) > 1 - 1e-9) & index_of(got)[1]
    assert clear.mean() > 0.25
    assert np.abs(got - want)[:, clear].max() < (2e-3 if affine_first else 0.15)  # mm
    other = world_of(mj.AffineElasticDeformation(not affine_first, {**AFFINE, **fill}, ELASTIC))
    assert np.abs(got - other)[:, clear].max() > 0.4


@pytest.mark.parametrize("affine_first", [True, False])
def test_it_is_the_pair_in_a_pipeline_and_read_once(affine_first):
    t = mj.AffineElasticDeformation(affine_first, AFFINE, ELASTIC)
    pair = [mj.Affine(**AFFINE), mj.ElasticDeformation(POINTS)]
    t2 = mj.Compose(pair if affine_first else pair[::-1])
    assert repr(mj.Compose([t])).count("one gather") == 1
    assert repr(t).startswith("AffineElasticDeformation(affine_first=") and "Affine(scales=(1.1, 0.9, 1.05)" in repr(t)
    got, want = t(small_subject()), t2(small_subject())
    np.testing.assert_allclose(got.t1.numpy(), want.t1.numpy(), atol=1e-6)
    np.testing.assert_array_equal(got.label.numpy(), want.label.numpy())


def test_settings_of_the_affine_one_hold_for_both():
    affine = {**AFFINE, "image_interpolation": "nearest", "default_pad_value": -7, "default_pad_label": 9}
    elastic = {**ELASTIC, "image_interpolation": "cubic", "default_pad_value": 5}
    got = mj.AffineElasticDeformation(True, affine, elastic)(small_subject())
    values = np.unique(got.t1.numpy())
    assert values[0] == -7 and set(values[1:]) <= set(np.unique(small_subject().t1.numpy()))
    np.testing.assert_array_equal(got.label.numpy() == 9, got.t1.numpy() == -7)


def test_the_random_one_draws_what_its_parts_draw_from_their_ranges():
    t = mj.RandomAffineElasticDeformation(
        affine_kwargs={"scales": (0.8, 0.9), "degrees": (5, 6)},
        elastic_kwargs={"num_control_points": (5, 6, 7), "max_displacement": (1, 2, 3)},
    )
    subject = smooth_subject()
    params = t.sample(jax.random.key(0), subject)
    affine, elastic = (entry["draw"] for entry in params["members"])
    assert np.all((affine["scales"] >= 0.8) & (affine["scales"] <= 0.9) & (affine["degrees"] >= 5))
    points = np.asarray(elastic["control_points"])
    assert points.shape == (5, 6, 7, 3) and np.all(np.abs(points).max((0, 1, 2)) <= (1, 2, 3))
    twin = mj.AffineElasticDeformation(True, {n: affine[n] for n in ("scales", "degrees")}, {"control_points": points})
    np.testing.assert_allclose(t.apply(subject, params).t1.numpy(), twin(subject).t1.numpy(), atol=1e-4)


@pytest.mark.parametrize("affine_first", [True, False])
def test_it_can_be_taken_back_which_torchio_cannot(affine_first):
    subject = smooth_subject()
    t = mj.AffineElasticDeformation(affine_first, AFFINE, ELASTIC)
    params = t.sample(None, subject)
    back = t.invert(t(subject), params, like=subject)
    ones = mj.Subject(t1=mj.ScalarImage(np.ones((1, *SHAPE), np.float32), OBLIQUE))
    filled = mj.AffineElasticDeformation(affine_first, {**AFFINE, "default_pad_value": 0}, ELASTIC)
    kept = t.invert(filled(ones), params, like=ones).t1.numpy() > 0.999
    assert kept.mean() > 0.4
    assert np.abs(back.t1.numpy() - subject.t1.numpy())[kept].max() < 0.06
    assert np.abs(t(subject).t1.numpy() - subject.t1.numpy())[kept].max() > 0.3
    np.testing.assert_array_equal(back.t1.affine, OBLIQUE)


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(TypeError, match="affine_params must be a dictionary of arguments of Affine"):
        mj.AffineElasticDeformation(True, 3, ELASTIC)
    with pytest.raises(TypeError, match="elastic_params"):
        mj.AffineElasticDeformation(True, AFFINE)
    with pytest.raises(TypeError, match="elastic_kwargs"):
        mj.RandomAffineElasticDeformation(elastic_kwargs=[7])
