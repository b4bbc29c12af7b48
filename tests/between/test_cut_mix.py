"""CutMix against slices of NumPy."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject
from scipy import stats

import medjax as mj

KEY = jax.random.key(2)


def batch_of(size=4, shape=(9, 10, 8)):
    return mj.stack([small_subject(shape=shape, seed=i) for i in range(size)])


def test_the_box_is_the_partners_and_the_rest_its_own():
    batch, t = batch_of(), mj.CutMix(p=0.7)
    drawn = jax.device_get(t.sample(KEY, batch))
    got = t.batch(batch, KEY)
    assert drawn["on"].any() and not drawn["on"].all()
    for name, image in batch.images.items():
        want = image.numpy().copy()
        for i, (low, high) in enumerate(zip(drawn["low"], drawn["high"])):
            if drawn["on"][i]:
                box = (slice(None), *map(slice, low, high))
                want[i][box] = image.numpy()[drawn["partner"][i]][box]
        np.testing.assert_array_equal(got[name].numpy(), want)
        assert got[name].dtype == image.dtype
    for i in range(4):
        known = set(np.unique(batch.label.numpy()[[i, drawn["partner"][i]]]))
        assert set(np.unique(got.label.numpy()[i])) <= known


@pytest.mark.parametrize("shape", [(64, 48, 80), (64, 80, 1)])
def test_its_share_is_drawn_from_beta_and_its_place_is_uniform(shape):
    """Of a grid so large that rounding to voxels is little."""
    image = mj.ScalarImage.of(jax.ShapeDtypeStruct((2, 1, *shape), np.float32), np.stack([np.eye(4)] * 2))

    def drawn(key):
        zeros = image.replace(data=jax.numpy.zeros((2, 1, *shape), np.float32))
        return mj.CutMix(2.0).sample(key, mj.Subject(t1=zeros))

    found = jax.device_get(jax.jit(jax.vmap(drawn))(jax.random.split(KEY, 1000)))
    size, thick = found["high"] - found["low"], np.array(shape) > 1
    share = np.prod(size / np.array(shape), -1)
    for column in share.T:
        assert stats.kstest(1 - column, stats.beta(2, 2).cdf).statistic < 0.06
    place = ((found["low"] + np.random.default_rng(0).random(size.shape)) / (np.array(shape) - size + 1))[..., thick]
    for column in place.reshape(1000, -1).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    assert (found["low"] >= 0).all() and (found["high"] <= shape).all()


def test_a_batch_of_one_shape_whose_real_parts_differ_shares_the_smaller():
    subjects = [small_subject(OBLIQUE, shape, 0) for shape in ((9, 10, 8), (5, 12, 3))]
    batch = mj.stack(subjects, shape=(12, 12, 12))
    found = jax.vmap(lambda key: mj.CutMix().sample(key, batch))(jax.random.split(KEY, 200))
    apart = np.asarray(found["partner"])[:, 0] == 1
    assert 50 < apart.sum() < 150
    np.testing.assert_array_equal(np.asarray(found["high"])[apart].max((0, 1)), (5, 10, 3))
    np.testing.assert_array_equal(np.asarray(found["high"])[~apart].max(0), ((9, 10, 8), (5, 12, 3)))


def test_images_on_different_grids_are_refused():
    batch = batch_of()
    other = batch.t1.replace(affine=batch.t1.affine + 3 * np.eye(4, k=3))
    with pytest.raises(ValueError, match="CutMix needs images on one grid"):
        mj.CutMix().batch(batch.replace(t2=other), KEY)
