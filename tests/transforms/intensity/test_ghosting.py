"""Ghosting against its definition with a full 3-D transform in float64."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented
from scipy import stats

import medjax as mj

SHAPE = (13, 16, 11)
IMAGE = mj.ScalarImage(blobs(SHAPE)[None], OBLIQUE)


def textbook(x, count, axis, intensity, restore, magnitude=False):
    """x: (I, J, K)."""
    spectrum = np.moveaxis(np.fft.fftshift(np.fft.fftn(x.astype(float))), axis, 0)
    n = len(spectrum)
    kept = spectrum.copy()
    if count:
        spectrum[::count] *= 1 - intensity
    width = 1 if restore is None else round(restore * n)
    first = n // 2 - width // 2
    spectrum[first : first + width] = kept[first : first + width]
    y = np.fft.ifftn(np.fft.ifftshift(np.moveaxis(spectrum, 0, axis)))
    return np.abs(y) if magnitude else y.real


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count, intensity, restore", [(4, 0.7, None), (1, 1, None), (3, 0.4, 0.2), (2, 1.5, 0.31)])
@pytest.mark.parametrize("magnitude", [False, True])
def test_it_is_the_definition(axis, count, intensity, restore, magnitude):
    got = mj.Ghosting(count, axis, intensity, restore, magnitude=magnitude)(IMAGE).numpy()[0]
    want = textbook(IMAGE.numpy()[0], count, axis, intensity, restore, magnitude)
    assert np.abs(got - want).max() < 1e-5 * np.ptp(want)


@pytest.mark.parametrize("arguments", [(0, 1, 1.0), (4, 1, 0.0), (4, 1, 1.0, 1.0)])
def test_no_ghosts_change_nothing(arguments):
    np.testing.assert_array_equal(mj.Ghosting(*arguments)(IMAGE).numpy(), IMAGE.numpy())


def test_w36_an_odd_number_of_planes_is_restored_whole():
    # 3 of 13 planes: 5, 6, 7; every plane is removed.
    x = IMAGE.numpy()[0]
    got = mj.Ghosting(1, 0, 1.0, 3 / 13)(IMAGE).numpy()[0]
    spectrum = np.fft.fft(x.astype(float), axis=0)
    spectrum[2:-1] = 0
    np.testing.assert_allclose(got, np.fft.ifft(spectrum, axis=0).real, atol=1e-5)


@pytest.mark.parametrize("name, axis", [("LR", 2), ("A", 0), ("inferior", 1)])
def test_w36_names_of_axes_are_those_of_the_image(name, axis):
    image = mj.ScalarImage(IMAGE.numpy(), oriented("PIR", (1, 2, 1.5)))
    np.testing.assert_allclose(mj.Ghosting(3, name)(image).numpy(), mj.Ghosting(3, axis)(image).numpy(), atol=1e-6)


def test_ghosts_are_copies_a_part_of_the_field_of_view_apart():
    # Every third plane removed from 12, the centre too but for the mean: copies at thirds.
    x = np.zeros((1, 12, 5, 4), np.float32)
    x[:, 2, 2, 2] = 1
    got = np.asarray(mj.Ghosting(3, 0, 1.0, 0.0)(x))[0, :, 2, 2]
    want = np.zeros(12)
    want[2], want[[6, 10]] = 2 / 3, -1 / 3
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_padding_has_no_part_in_it():
    padded = mj.stack([mj.Subject(t1=IMAGE)], shape=(16, 16, 16))
    t = mj.Ghosting(3, "AP", 0.8, 0.2)
    got = t.batch(padded).t1.data[0][:, :13, :16, :11]
    np.testing.assert_allclose(got, t(IMAGE).numpy(), atol=1e-6)


SUBJECT = mj.Subject(t1=mj.ScalarImage(np.zeros((2, 5, 6, 7), np.float32), OBLIQUE))


@jax.jit
def draws(t, keys):
    return jax.vmap(lambda key: t.sample(key, SUBJECT))(keys)["draw"]["t1"]


def test_what_is_drawn():
    t = mj.RandomGhosting((2, 5), ("LR", 1, 2), (0.5, 1), (0.1, 0.4), per_channel=True)
    drawn = {n: np.asarray(v) for n, v in draws(t, jax.random.split(jax.random.key(0), 2000)).items()}
    assert all(v.shape == (2000, 2) for v in drawn.values())
    assert stats.kstest(drawn["intensity"].ravel(), stats.uniform(0.5, 0.5).cdf).pvalue > 1e-3
    assert stats.kstest(drawn["restore"].ravel(), stats.uniform(0.1, 0.3).cdf).pvalue > 1e-3
    for name, values in (("num_ghosts", range(2, 6)), ("axis", range(3))):
        counts = [np.sum(drawn[name] == v) for v in values]
        assert sum(counts) == 4000 and stats.chisquare(counts).pvalue > 1e-3
        assert abs(np.corrcoef(drawn[name].T)[0, 1]) < 0.1


def test_an_axis_of_one_voxel_is_not_drawn():
    subject = mj.Subject(t1=mj.ScalarImage(np.zeros((1, 5, 6, 1), np.float32)))
    t = mj.RandomGhosting()
    found = {int(t.sample(jax.random.key(i), subject)["draw"]["t1"]["axis"]) for i in range(30)}
    assert found == {0, 1}


def test_each_channel_is_changed_by_its_own_numbers():
    data = np.stack([blobs(SHAPE)] * 3)
    t, key = mj.RandomGhosting(per_channel=True), jax.random.key(1)
    drawn = t.sample(key, mj.Subject(image=mj.ScalarImage(data)))["draw"]["image"]
    for c, channel in enumerate(np.asarray(t(data, key))):
        count, axis, intensity = (np.asarray(drawn[n][c]).item() for n in ("num_ghosts", "axis", "intensity"))
        np.testing.assert_allclose(channel, textbook(data[c], count, axis, intensity, None), atol=1e-5)


NONSENSE = [
    (dict(num_ghosts=-1), ValueError), (dict(num_ghosts=2.5), ValueError), (dict(num_ghosts=(1, 2)), ValueError),
    (dict(axis=3), ValueError), (dict(axis=(0, 1)), TypeError), (dict(axis="up"), ValueError),
    (dict(intensity=-0.1), ValueError), (dict(restore=1.2), ValueError), (dict(restore="all"), TypeError),
]  # fmt: skip


@pytest.mark.parametrize("arguments, error", NONSENSE)
def test_arguments_that_make_no_sense_are_refused(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        mj.Ghosting(**{"num_ghosts": 3, "axis": 0, **arguments})


@pytest.mark.parametrize("arguments", [{"num_ghosts": (1, 2.5)}, {"num_ghosts": (4, 2)}, {"restore": 2}, {"axes": ()}])
def test_ranges_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomGhosting(**arguments)
