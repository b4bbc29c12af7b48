"""MixUp against its formula in float64."""

import jax
import numpy as np
import pytest
from conftest import small_subject
from scipy import stats

import medjax as mj

KEY = jax.random.key(2)


def batch_of(size=4):
    return mj.OneHot(4).batch(mj.stack([small_subject(shape=(9, 10, 8), seed=i) for i in range(size)]))


def test_it_is_the_mean_of_two_by_lambda():
    batch, t = batch_of(), mj.MixUp(1.0, p=0.7)
    drawn = jax.device_get(t.sample(KEY, batch))
    got = t.batch(batch, KEY)
    for name, image in batch.images.items():
        x = image.numpy().astype(float)
        own = np.where(drawn["on"], drawn["own"].astype(float), 1).reshape(-1, 1, 1, 1, 1)
        np.testing.assert_allclose(got[name].numpy(), own * x + (1 - own) * x[drawn["partner"]], atol=1e-6)
        assert got[name].dtype == np.float32


def test_soft_labels_sum_to_1():
    np.testing.assert_allclose(mj.MixUp(0.4).batch(batch_of(), KEY).label.numpy().sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_lambda_follows_beta(alpha):
    batch = batch_of(2)
    own = jax.vmap(lambda key: mj.MixUp(alpha).sample(key, batch)["own"])(jax.random.split(KEY, 2000))
    for column in np.asarray(own, float).T:
        assert stats.kstest(column, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.asarray(own).T)[0, 1]) < 0.1


def test_floating_labels_are_mixed_and_whole_ones_of_one_channel_refused():
    batch = mj.stack([small_subject(shape=(9, 10, 8), seed=i) for i in range(3)])
    with pytest.raises(ValueError, match=r"'label' \(uint8, one channel\) is no label: put OneHot"):
        mj.MixUp().batch(batch, KEY)
    probability = batch.label.replace(data=np.asarray(batch.label.data, np.float32) / 3)
    got = mj.MixUp(1.0).batch(batch.replace(label=probability), KEY).label.numpy()
    assert got.min() >= 0 and got.max() <= 1 and len(np.unique(got)) > 4


@pytest.mark.parametrize("alpha", [0, -1, np.nan])
def test_alpha_must_be_positive(alpha):
    with pytest.raises(ValueError, match="alpha"):
        mj.MixUp(alpha)
