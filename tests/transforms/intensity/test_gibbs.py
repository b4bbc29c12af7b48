"""Gibbs against its definition with a full 3-D transform in float64, and against the physics."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented
from scipy import stats
from scipy.special import sici

import medjax as mj

SHAPE = (13, 16, 11)
IMAGE = mj.ScalarImage(blobs(SHAPE)[None] - np.float32(0.3), OBLIQUE)


def textbook(x, cutoff):
    spectrum = np.fft.fftn(x.astype(float))
    for axis, (c, n) in enumerate(zip(cutoff, x.shape, strict=True)):
        kept = np.abs(np.fft.fftfreq(n, 1 / n)) <= np.floor(c * n / 2)
        spectrum *= np.reshape(kept, [-1 if a == axis else 1 for a in range(3)])
    return np.fft.ifftn(spectrum).real


@pytest.mark.parametrize("cutoff", [(0.6, 0.47, 0.83), (1, 0.3, 1), (0.2, 1, 0.5), (0, 0, 0)])
@pytest.mark.parametrize("magnitude", [False, True])
def test_it_is_the_definition(cutoff, magnitude):
    got = mj.Gibbs(cutoff, magnitude=magnitude)(IMAGE).numpy()[0]
    want = textbook(IMAGE.numpy()[0], cutoff)
    np.testing.assert_allclose(got, np.abs(want) if magnitude else want, atol=1e-5)


def test_an_edge_overshoots_by_nine_per_cent():
    # Wilbraham-Gibbs: Si(pi) / pi - 1 / 2 of the step.
    x = np.zeros((1, 512, 2, 2), np.float32)
    x[:, 128:384] = 1
    want = sici(np.pi)[0] / np.pi - 0.5
    for cutoff in (0.1, 0.2):
        line = np.asarray(mj.Gibbs((cutoff, 1, 1))(x))[0, :, 0, 0]
        assert line.max() - 1 == pytest.approx(want, abs=0.004)
        assert -line.min() == pytest.approx(want, abs=0.004)


def test_everything_kept_is_the_image_exactly():
    np.testing.assert_array_equal(mj.Gibbs(1.0)(IMAGE).numpy(), IMAGE.numpy())


def test_it_is_a_projection_and_keeps_the_mean():
    once = mj.Gibbs(0.4)(IMAGE)
    np.testing.assert_allclose(mj.Gibbs(0.4)(once).numpy(), once.numpy(), atol=1e-6)
    assert once.numpy().mean() == pytest.approx(IMAGE.numpy().mean(), abs=1e-6)


def test_padding_has_no_part_in_it():
    t = mj.Gibbs((0.5, 0.3, 0.7))
    got = t.batch(mj.stack([mj.Subject(t1=IMAGE)], shape=(16, 16, 16))).t1.data[0][:, :13, :16, :11]
    np.testing.assert_allclose(got, t(IMAGE).numpy(), atol=1e-6)


def draws(t, affine):
    subject = mj.Subject(t1=mj.ScalarImage(np.zeros((2, 5, 6, 7), np.float32), affine))
    keys = jax.random.split(jax.random.key(0), 2000)
    return np.asarray(jax.jit(jax.vmap(lambda key: t.sample(key, subject)))(keys)["draw"]["t1"]["cutoff"])


def test_what_is_drawn():
    cutoff = draws(mj.RandomGibbs(), OBLIQUE)
    for axis in range(3):
        assert stats.kstest(cutoff[:, axis], stats.uniform(0.3, 0.6).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(cutoff.T)[0, 1]) < 0.1


def test_only_the_axes_asked_for_are_cut_off():
    cutoff = draws(mj.RandomGibbs((0.2, 0.4), ("LR", 0), per_channel=True), oriented("PIR"))
    assert cutoff.shape == (2000, 2, 3) and (cutoff[..., 1] == 1).all()
    for axis in (0, 2):
        assert stats.kstest(cutoff[..., axis].ravel(), stats.uniform(0.2, 0.2).cdf).pvalue > 1e-3


def test_each_channel_is_changed_by_its_own_numbers():
    data, key = np.stack([blobs(SHAPE)] * 2), jax.random.key(1)
    t = mj.RandomGibbs(per_channel=True)
    cutoff = t.sample(key, mj.Subject(image=mj.ScalarImage(data)))["draw"]["image"]["cutoff"]
    for c, channel in enumerate(np.asarray(t(data, key))):
        np.testing.assert_allclose(channel, textbook(data[c], np.asarray(cutoff[c])), atol=1e-5)


@pytest.mark.parametrize("cutoff", [-0.1, 1.1, (0.5, 0.5), np.nan])
def test_a_cutoff_that_makes_no_sense_is_refused(cutoff):
    with pytest.raises(ValueError, match="cutoff"):
        mj.Gibbs(cutoff)
