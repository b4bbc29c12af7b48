"""Motion against its definition: volumes moved by scipy, and a full 3-D transform of each, in float64."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented
from scipy import stats
from scipy.ndimage import map_coordinates

import medjax as mj

SHAPE = (14, 17, 12)
DEGREES = [(4, -6, 9), (-8, 3, 5), (2, 2, -7)]
SHIFTS = [(1, -0.7, 0.4), (-1.3, 0.6, 1), (0.2, 1.1, -0.8)]
IMAGE = mj.ScalarImage(blobs(SHAPE)[None] - np.float32(0.3), OBLIQUE)


def textbook(image, degrees, shifts, times, axis, magnitude=False):
    """Each volume moved by `Affine`; lines in shifted order, the central segment from the volume itself."""
    volumes = [image.numpy()[0]]
    volumes += [mj.Affine(degrees=d, translation=t)(image).numpy()[0] for d, t in zip(degrees, shifts, strict=True)]
    spectra = [np.moveaxis(np.fft.fftshift(np.fft.fftn(v.astype(float))), axis, 0) for v in volumes]
    n = len(spectra[0])
    ends = [0, *(int(n * t) for t in times), n]
    central = max(k for k in range(len(volumes)) if ends[k] <= n // 2)
    order = list(range(len(volumes)))
    order[0], order[central] = order[central], order[0]
    result = np.empty_like(spectra[0])
    for k, m in enumerate(order):
        result[ends[k] : ends[k + 1]] = spectra[m][ends[k] : ends[k + 1]]
    y = np.fft.ifftn(np.fft.ifftshift(np.moveaxis(result, 0, axis)))
    return np.abs(y) if magnitude else y.real


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("times", [(0.22, 0.45, 0.8), (0.55, 0.7, 0.9), (0.1, 0.2, 0.4), (0, 0.33, 1)])
def test_it_is_the_definition(axis, times):
    got = mj.Motion(DEGREES, SHIFTS, times, axis=axis)(IMAGE).numpy()[0]
    want = textbook(IMAGE, DEGREES, SHIFTS, times, axis)
    assert np.abs(got - want).max() < 1e-4 * np.ptp(want)


def test_the_magnitude():
    got = mj.Motion(DEGREES, SHIFTS, (0.22, 0.45, 0.8), magnitude=True)(IMAGE).numpy()[0]
    want = textbook(IMAGE, DEGREES, SHIFTS, (0.22, 0.45, 0.8), 2, magnitude=True)
    assert np.abs(got - want).max() < 1e-4 * np.ptp(want)


def test_w27_it_turns_about_the_middle_of_the_image():
    # A quarter turn about the third axis of a square slab whose origin is far away is np.rot90, exactly.
    affine = np.diag([1.5, 1.5, 2, 1])
    affine[:3, 3] = (200, -150, 320)
    x = blobs((15, 15, 12))
    got = mj.Motion([(0, 0, 90)], [(0, 0, 0)], [7.5 / 12])(mj.ScalarImage(x[None], affine)).numpy()[0]
    spectrum, turned = (np.fft.fftshift(np.fft.fft(v.astype(float)), -1) for v in (x, np.rot90(x, 1, (0, 1))))
    spectrum[..., 7:] = turned[..., 7:]
    np.testing.assert_allclose(got, np.fft.ifft(np.fft.ifftshift(spectrum, -1)).real, atol=1e-4)


def test_no_movement_changes_nothing():
    got = mj.Motion(np.zeros((2, 3)), np.zeros((2, 3)), (0.3, 0.6))(IMAGE).numpy()
    np.testing.assert_allclose(got, IMAGE.numpy(), atol=2e-6)


@pytest.mark.parametrize("shape", [(14, 17, 12), (14, 17, 13)])
def test_frequency_0_is_never_moved(shape):
    # So the sum over each line along the axis stays.
    image = mj.ScalarImage(blobs(shape)[None])
    for first in np.linspace(0.03, 0.97, 20):
        got = mj.Motion([(0, 0, 0)], [(2, 0, 0)], [first])(image).numpy()
        np.testing.assert_allclose(got.sum(-1), image.numpy().sum(-1), atol=1e-4)


def test_a_shift_along_the_axis_is_a_phase():
    # Whole voxels into a black border, recorded from line 9 of 16 on: those lines are turned by the shift theorem.
    x = np.zeros((1, 4, 5, 16), np.float32)
    x[..., 5:9] = blobs((4, 5, 4))
    got = mj.Motion([(0, 0, 0)], [(0, 0, 3)], [9.5 / 16])(x)
    spectrum = np.fft.fftshift(np.fft.fft(x.astype(float)), -1)
    frequency = np.arange(16) - 8
    spectrum[..., 9:] *= np.exp(-2j * np.pi * frequency * 3 / 16)[9:]
    np.testing.assert_allclose(got, np.fft.ifft(np.fft.ifftshift(spectrum, -1)).real, atol=1e-5)


@pytest.mark.parametrize("name, axis", [("LR", 2), ("A", 0), ("S", 1)])
def test_names_of_axes_are_those_of_the_image(name, axis):
    image = mj.ScalarImage(IMAGE.numpy(), oriented("PIR", (1, 2, 1.5)))
    one, other = (mj.Motion(DEGREES, SHIFTS, (0.2, 0.4, 0.8), axis=a)(image).numpy() for a in (name, axis))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_nearest_reads_voxels_that_are_there():
    x = IMAGE.numpy()
    got = mj.Motion([(0, 0, 0)], [(0.6, 0, 0)], [0.0], "nearest", axis=1)(x)
    index = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    shifted = map_coordinates(x[0], [index[0] - 1, index[1], index[2]], order=0, cval=x.min())
    # Time 0: segment 0 is empty and the rest, with frequency 0, stays.
    np.testing.assert_allclose(got, x, atol=1e-6)
    late = mj.Motion([(0, 0, 0)], [(0.6, 0, 0)], [(SHAPE[1] // 2 + 1.5) / SHAPE[1]], "nearest", axis=1)(x)
    spectra = [np.fft.fftshift(np.fft.fft(v.astype(float), axis=1), 1) for v in (x[0], shifted)]
    spectra[0][:, SHAPE[1] // 2 + 1 :] = spectra[1][:, SHAPE[1] // 2 + 1 :]
    np.testing.assert_allclose(late[0], np.fft.ifft(np.fft.ifftshift(spectra[0], 1), axis=1).real, atol=1e-5)


@pytest.mark.parametrize("name", ["cubic", "bspline"])
def test_cubic_reads_scipys_spline(name):
    x, n = IMAGE.numpy(), SHAPE[1]
    index = np.meshgrid(*(np.arange(m, dtype=float) for m in SHAPE), indexing="ij")
    at = [index[0] - 0.6, index[1] + 0.3, index[2]]
    read = map_coordinates(x[0].astype(float), at, order=3, mode="mirror")
    inside = np.all([(c >= -0.5) & (c < m - 0.5) for c, m in zip(at, SHAPE, strict=True)], axis=0)
    spectra = [np.fft.fftshift(np.fft.fft(v, axis=1), 1) for v in (x[0], np.where(inside, read, x.min()))]
    spectra[0][:, n // 2 + 1 :] = spectra[1][:, n // 2 + 1 :]
    t = mj.Motion([(0, 0, 0)], [(0.6, -0.3, 0)], [(n // 2 + 1.5) / n], name, axis=1)
    np.testing.assert_allclose(t(x)[0], np.fft.ifft(np.fft.ifftshift(spectra[0], 1), axis=1).real, atol=1e-5)
    assert np.abs(t(x) - t.replace(image_interpolation="linear")(x)).max() > 1e-3


def test_padding_has_no_part_in_it():
    t = mj.Motion(DEGREES, SHIFTS, (0.22, 0.45, 0.8))
    got = t.batch(mj.stack([mj.Subject(t1=IMAGE)], shape=(17, 17, 16))).t1.data[0][:, :14, :17, :12]
    np.testing.assert_allclose(got, t(IMAGE).numpy(), atol=1e-5)


@jax.jit
def draws(t, subject, keys):
    return jax.vmap(lambda key: t.sample(key, subject))(keys)["draw"]["t1"]


SUBJECT = mj.Subject(t1=mj.ScalarImage(np.zeros((2, 5, 6, 7), np.float32), OBLIQUE))
KEYS = jax.random.split(jax.random.key(0), 2000)


def test_what_is_drawn():
    t = mj.RandomMotion(7, (-1, 3), 3, axes=("LR", 1))
    drawn = {n: np.asarray(v) for n, v in draws(t, SUBJECT, KEYS).items()}
    for name, low, width in (("degrees", -7, 14), ("translation", -1, 4)):
        assert drawn[name].shape == (2000, 3, 3)
        assert stats.kstest(drawn[name].ravel(), stats.uniform(low, width).cdf).pvalue > 1e-3
    for k in range(3):
        law = stats.uniform((k + 1 - 0.3) / 4, 0.6 / 4)
        assert stats.kstest(drawn["times"][:, k], law.cdf).pvalue > 1e-3
    assert stats.chisquare(np.unique(drawn["axis"], return_counts=True)[1]).pvalue > 1e-3


@pytest.mark.parametrize("count", [48, 97])
def test_w34_any_number_of_movements_has_its_times(count):
    times = np.asarray(draws(mj.RandomMotion(num_transforms=count), SUBJECT, KEYS[:20])["times"])
    assert times.shape == (20, count) and (np.diff(times) > 0).all() and (times > 0).all() and (times < 1).all()


def test_w29_a_slice_is_recorded_along_one_of_its_own_axes():
    slab = mj.Subject(t1=mj.ScalarImage(blobs((14, 17, 1))[None]))
    drawn = draws(mj.RandomMotion(axes=(0, 1, 2)), slab, KEYS)
    assert set(np.unique(drawn["axis"])) == {0, 1}
    got = mj.RandomMotion(axes=(0, 1, 2))(slab, jax.random.key(0)).t1.numpy()
    assert np.abs(got - slab.t1.numpy()).max() > 1e-2
    legacy = draws(mj.RandomMotion(legacy=True), slab, KEYS)
    assert (legacy["degrees"][..., :2] == 0).all() and (legacy["degrees"][..., 2] != 0).all()
    assert (legacy["translation"][..., 2] == 0).all()


def test_each_channel_moves_by_itself_if_asked():
    data, key = np.stack([blobs(SHAPE)] * 2), jax.random.key(1)
    t = mj.RandomMotion(per_channel=True)
    drawn = t.sample(key, mj.Subject(image=mj.ScalarImage(data)))["draw"]["image"]
    got = np.asarray(t(data, key))
    for c in range(2):
        one = mj.Motion(*(np.asarray(drawn[n][c]) for n in ("degrees", "translation", "times")))
        np.testing.assert_allclose(got[c], np.asarray(one(data[c : c + 1]))[0], atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 1e-2


NONSENSE = [
    dict(degrees=(1, 2, 3)), dict(translation=[(1, 2)]), dict(times=(0.5,)), dict(times=(0.7, 0.2)),
    dict(times=(0.2, 1.2)), dict(image_interpolation="sinc"), dict(axis=4), dict(axis=(0, 1)),
]  # fmt: skip


@pytest.mark.parametrize("arguments", NONSENSE)
def test_arguments_that_make_no_sense_are_refused(arguments):
    good = dict(degrees=DEGREES[:2], translation=SHIFTS[:2], times=(0.3, 0.6))
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        mj.Motion(**{**good, **arguments})


@pytest.mark.parametrize("arguments", [dict(num_transforms=0), dict(num_transforms=1.5), dict(degrees=-1)])
def test_ranges_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomMotion(**arguments)
