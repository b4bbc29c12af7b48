"""Spike against its definition with a full 3-D transform in float64."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs
from scipy import stats

import medjax as mj

SHAPE = (13, 16, 11)
POINTS = [(0.3, 0.62, 0.71), (0.13, 0.45, 0.84), (0, 0, 0), (0.999, 0.5, 0.46)]
AXES = (1, 2, 3)
IMAGES = {"positive": blobs(SHAPE)[None], "signed": np.stack([blobs(SHAPE) - 0.4, blobs(SHAPE, 1) - 0.7])}


def textbook(x, points, intensity, magnitude=False, cumulative=False):
    spectrum = np.fft.fftshift(np.fft.fftn(x.astype(float), axes=AXES), AXES)
    peak = np.abs(spectrum).max(AXES)
    for point in points:
        peak = np.abs(spectrum).max(AXES) if cumulative else peak
        i, j, k = (int(p * n) for p, n in zip(point, x.shape[1:], strict=True))
        spectrum[:, i, j, k] += intensity * peak
    y = np.fft.ifftn(np.fft.ifftshift(spectrum, AXES), axes=AXES)
    return np.abs(y) if magnitude else y.real


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("count, intensity", [(1, 1.7), (2, -0.6), (4, 0.3)])
@pytest.mark.parametrize("magnitude", [False, True])
def test_w30_it_is_the_definition_with_the_peak_taken_once(name, count, intensity, magnitude):
    x = IMAGES[name]
    got = mj.Spike(POINTS[:count], intensity, magnitude=magnitude)(mj.ScalarImage(x, OBLIQUE)).numpy()
    want = textbook(x, POINTS[:count], intensity, magnitude)
    assert np.abs(got - want).max() < 1e-5 * np.ptp(want)


@pytest.mark.parametrize("name", IMAGES)
def test_w30_the_inverse_takes_all_spikes_away(name):
    image = mj.ScalarImage(IMAGES[name])
    t = mj.Spike(POINTS, 2.0)
    params = t.sample(None, mj.Subject(image=image))
    back = t.invert(t.apply(image, params), params, like=image)
    np.testing.assert_allclose(back.numpy(), image.numpy(), atol=2e-5)


# Frequency 0, where the peak is; one point twice; a point and its mirror image.
NESTED = [(6.5 / 13, 8.5 / 16, 5.5 / 11), (0.3, 0.62, 0.71), (0.3, 0.62, 0.71), (9.5 / 13, 7.5 / 16, 3.5 / 11)]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("points, intensity", [(POINTS, 1.7), (NESTED, -0.9), (NESTED, 0.4), (NESTED[:1], 2.0)])
@pytest.mark.parametrize("magnitude", [False, True])
def test_a_cumulative_one_finds_the_peak_anew_for_each_spike(name, points, intensity, magnitude):
    x = IMAGES[name]
    got = mj.Spike(points, intensity, magnitude=magnitude, cumulative=True)(mj.ScalarImage(x, OBLIQUE)).numpy()
    want = textbook(x, points, intensity, magnitude, cumulative=True)
    assert np.abs(got - want).max() < 2e-5 * np.ptp(want)


def test_a_cumulative_one_has_no_inverse_but_gradients():
    image, t = mj.ScalarImage(IMAGES["signed"]), mj.Spike(NESTED, 0.4, cumulative=True)
    params = t.sample(None, mj.Subject(image=image))
    moved = t(image)
    np.testing.assert_array_equal(t.invert(moved, params, like=image).numpy(), moved.numpy())
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, direction, weights = (jax.numpy.asarray(rng.normal(size=image.shape)) for _ in range(3))
        t = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, float), t)
        drawn = params["draw"]["image"]

        @jax.jit
        def loss(a, x):
            mine = {"on": params["on"], "draw": {"image": {**drawn, "intensity": a}}}
            return (t.apply(image.replace(data=x), mine).data * weights).sum()

        numeric = (loss(0.4 + 1e-6, x + 1e-6 * direction) - loss(0.4 - 1e-6, x - 1e-6 * direction)) / 2e-6
        da, dx = jax.jit(jax.grad(loss, (0, 1)))(0.4, x)
        assert abs(numeric - (da + (dx * direction).sum())) < 1e-5 * abs(numeric)


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("points, intensity", [([], 1.0), (POINTS, 0.0)])
def test_no_spikes_change_nothing(points, intensity, cumulative):
    x = IMAGES["signed"]
    np.testing.assert_array_equal(mj.Spike(points, intensity, cumulative=cumulative)(x), x)


@pytest.mark.parametrize("cumulative", [False, True])
def test_padding_has_no_part_in_it(cumulative):
    image = mj.ScalarImage(IMAGES["signed"], OBLIQUE)
    t = mj.Spike(POINTS, 0.7, cumulative=cumulative)
    got = t.batch(mj.stack([mj.Subject(t1=image)], shape=(16, 17, 16))).t1.data[0][:, :13, :16, :11]
    np.testing.assert_allclose(got, t(image).numpy(), atol=1e-5)


SUBJECT = mj.Subject(t1=mj.ScalarImage(np.zeros((2, 5, 6, 7), np.float32), OBLIQUE))


@jax.jit
def draws(t, keys):
    return jax.vmap(lambda key: t.sample(key, SUBJECT))(keys)["draw"]["t1"]


def test_what_is_drawn():
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = {n: np.asarray(v) for n, v in draws(mj.RandomSpike((1, 4), 2), keys).items()}
    assert drawn["positions"].shape == (2000, 4, 3)
    assert stats.kstest(drawn["intensity"], stats.uniform(-2, 4).cdf).pvalue > 1e-3
    for axis in range(3):
        assert stats.kstest(drawn["positions"][..., axis].ravel(), stats.uniform(0, 1).cdf).pvalue > 1e-3
    counts = [np.sum(drawn["num_spikes"] == n) for n in range(1, 5)]
    assert sum(counts) == 2000 and stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("per_channel, cumulative", [(False, False), (True, False), (True, True)])
def test_the_random_one_adds_as_many_spikes_as_it_draws(per_channel, cumulative):
    x, key = IMAGES["signed"], jax.random.key(4)
    t = mj.RandomSpike((0, 3), (0.1, 0.2), per_channel=per_channel, cumulative=cumulative)
    drawn = t.sample(key, mj.Subject(image=mj.ScalarImage(x)))["draw"]["image"]
    for c, got in enumerate(np.asarray(t(x, key))):
        mine = {n: np.asarray(v[c] if per_channel else v) for n, v in drawn.items()}
        points = mine["positions"][: mine["num_spikes"]]
        want = textbook(x[c : c + 1], points, mine["intensity"], cumulative=cumulative)[0]
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_random_inverse_takes_them_away():
    image, key = mj.ScalarImage(IMAGES["signed"]), jax.random.key(2)
    t = mj.RandomSpike((1, 3), per_channel=True)
    params = t.sample(key, mj.Subject(image=image))
    np.testing.assert_allclose(t.invert(t(image, key), params, like=image).numpy(), image.numpy(), atol=2e-5)


@pytest.mark.parametrize("positions", [(0.1, 0.2, 0.3), [(0.1, 0.2)], [(0, 0, 1)], [(0, -0.1, 0)], [(0, np.nan, 0)]])
def test_positions_that_make_no_sense_are_refused(positions):
    with pytest.raises(ValueError, match="spikes_positions"):
        mj.Spike(positions, 1)


@pytest.mark.parametrize("num_spikes", [-1, 1.5, (2, 1), (1, 2, 3)])
def test_numbers_that_make_no_sense_are_refused(num_spikes):
    with pytest.raises(ValueError, match="num_spikes"):
        mj.RandomSpike(num_spikes)
