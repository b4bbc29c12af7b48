"""A stretch of a series."""

import jax
import nibabel
import numpy as np
import pytest
from conftest import blobs
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import draws

SERIES = np.stack([blobs((5, 6, 7), seed) for seed in range(8)])


def test_it_takes_time_points_from_the_start():
    np.testing.assert_array_equal(mj.TemporalCrop(2, 5)(SERIES), SERIES[2:7])
    subject = mj.Subject(bold=mj.ScalarImage(SERIES), label=mj.LabelMap((SERIES > 0.5).astype(np.uint8)))
    got = mj.TemporalCrop(0, 1)(subject)
    assert got.bold.shape == (1, 5, 6, 7) and got.label.shape == (8, 5, 6, 7)


def test_each_start_is_equally_likely():
    starts = draws(mj.RandomTemporalCrop(3), channels=8)["start"]
    counts = np.bincount(starts)
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_series_of_a_subject_are_cut_alike_on_request():
    subject = mj.Subject(bold=mj.ScalarImage(SERIES), other=mj.ScalarImage(SERIES))
    got = mj.RandomTemporalCrop(2, shared=True)(subject, jax.random.key(0))
    np.testing.assert_array_equal(got.bold.numpy(), got.other.numpy())


def test_steps_after_it_draw_for_the_channels_that_are_left():
    t = mj.Compose([mj.RandomTemporalCrop(3), mj.RandomGamma(), mj.RandomBlur(per_channel=True)])
    assert t(SERIES, jax.random.key(0)).shape == (3, 5, 6, 7)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="8 time points, but 9"):
        mj.TemporalCrop(6, 3)(SERIES)
    with pytest.raises(ValueError, match="8 time points"):
        mj.RandomTemporalCrop(9)(SERIES, jax.random.key(0))
    with pytest.raises(ValueError, match="p must be 1"):
        mj.RandomTemporalCrop(3, p=0.5)
    for arguments in ((0.5, 3), (-1, 3)):
        with pytest.raises(ValueError, match="start"):
            mj.TemporalCrop(*arguments)
    with pytest.raises(ValueError, match="length"):
        mj.RandomTemporalCrop(0)


TR, BEGIN = 2.5, 1.25


@pytest.fixture
def path(tmp_path):
    """A series of 8 volumes in a file, whose header tells times."""
    header = nibabel.Nifti1Header()
    header.set_xyzt_units("mm", "sec")
    image = nibabel.Nifti1Image(np.moveaxis(SERIES, 0, -1), np.diag([2.0, 3, 4, 1]), header)
    image.header["pixdim"][4], image.header["toffset"] = TR, BEGIN
    image.header.set_dim_info(slice=2)
    image.header["slice_code"], image.header["slice_end"], image.header["slice_duration"] = 3, 6, 0.35
    nibabel.save(image, tmp_path / "bold.nii.gz")
    return tmp_path / "bold.nii.gz"


def check_times(image, start, length, source, folder):
    """A saved file holds volumes from `start`, begins as much later, and says all else that its source does."""
    image.save(folder / "cropped.nii.gz")
    saved, before = nibabel.load(folder / "cropped.nii.gz"), nibabel.load(source).header
    np.testing.assert_allclose(saved.get_fdata(), np.moveaxis(SERIES[start : start + length], 0, -1), rtol=1e-6)
    assert saved.header["dim"].tolist() == [4, 5, 6, 7, length, 1, 1, 1]
    assert saved.header["toffset"] == BEGIN + start * TR and saved.header["pixdim"][4] == TR
    for name in ("slice_code", "slice_start", "slice_end", "slice_duration", "dim_info", "xyzt_units"):
        assert saved.header[name] == before[name], name


def start_of(image):
    """The time point of the series that an image begins with."""
    return int(np.argmin([np.abs(volume - image.numpy()[0]).max() for volume in SERIES]))


def test_the_start_in_the_header_follows(path, tmp_path):
    image = mj.ScalarImage(path)
    check_times(mj.TemporalCrop(3, 4)(image), 3, 4, path, tmp_path)
    t = mj.Compose([mj.TemporalCrop(1, 6), mj.Gamma(1.0), mj.TemporalCrop(2, 3)])
    check_times(t(image), 3, 3, path, tmp_path)
    check_times(image, 0, 8, path, tmp_path)


@pytest.mark.parametrize("shared", [False, True])
def test_it_follows_what_was_drawn_for_each_image(path, tmp_path, shared):
    subject = mj.Subject(bold=mj.ScalarImage(path), other=mj.ScalarImage(path))
    t = mj.RandomTemporalCrop(3, shared=shared, keep={"bold": "whole"})
    for seed in range(2):
        params = t.sample(jax.random.key(seed), subject)
        for got in (t(subject, jax.random.key(seed)), t.apply(subject, params)):
            for name in ("bold", "other"):
                check_times(got[name], start_of(got[name]), 3, path, tmp_path)


def test_images_that_are_left_alone_keep_their_times(path, tmp_path):
    subject = mj.Subject(bold=mj.ScalarImage(path), other=mj.ScalarImage(path))
    t = mj.TemporalCrop(3, 4, include=["bold"], keep={"bold": "whole"})
    got = t(subject)
    check_times(got.bold, 3, 4, path, tmp_path)
    check_times(got.other, 0, 8, path, tmp_path)
    check_times(got.whole, 0, 8, path, tmp_path)


def test_each_element_of_a_batch_has_its_start(path, tmp_path):
    batch = mj.stack([mj.Subject(bold=mj.ScalarImage(path))] * 4)
    got = mj.unstack(mj.RandomTemporalCrop(3).batch(batch, jax.random.key(0)))
    starts = [start_of(each.bold) for each in got]
    for start, each in zip(starts, got, strict=True):
        check_times(each.bold, start, 3, path, tmp_path)
    assert len(set(starts)) > 1


def test_a_loader_gives_each_its_start(path, tmp_path):
    dataset = mj.SubjectsDataset([mj.Subject(bold=mj.ScalarImage(path))] * 3, mj.RandomTemporalCrop(3))
    for batch in mj.loader(dataset, 2, jax.random.key(1)):
        for each in mj.unstack(batch):
            check_times(each.bold, start_of(each.bold), 3, path, tmp_path)


def test_headers_without_time_stay_as_they_are(tmp_path):
    vectors = nibabel.Nifti1Image(np.moveaxis(SERIES[:3], 0, -1)[:, :, :, None], np.eye(4))
    vectors.header["pixdim"][4], vectors.header["toffset"] = TR, BEGIN
    nibabel.save(vectors, tmp_path / "vectors.nii")
    got = mj.TemporalCrop(1, 2)(mj.ScalarImage(tmp_path / "vectors.nii"))
    assert got.metadata["header"]["toffset"] == BEGIN
    assert mj.TemporalCrop(1, 2)(mj.ScalarImage(SERIES, name="mine")).metadata == {"name": "mine"}


# -- gradients

VECTORS = np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32)
B_VALUES = tuple(100.0 * n for n in range(8))


def diffusion(**more):
    """A series, whose volumes tell which they are, with its gradients, and other directions, which are not of it."""
    gradients, others = mj.Directions(VECTORS, B_VALUES), mj.Directions(VECTORS[:5], list("abcde"))
    return mj.Subject(dwi=mj.ScalarImage(SERIES), gradients=gradients, others=others, **more)


def check_gradients(got, start, length):
    np.testing.assert_array_equal(got.gradients.xyz, VECTORS[start : start + length])
    assert got.gradients.labels == B_VALUES[start : start + length]
    np.testing.assert_array_equal(got.others.xyz, VECTORS[:5])
    assert got.others.labels == tuple("abcde")


def test_gradients_are_cut_with_their_series():
    check_gradients(mj.TemporalCrop(2, 3)(diffusion()), 2, 3)
    twice = mj.Compose([mj.TemporalCrop(1, 6), mj.Gamma(1.0), mj.TemporalCrop(2, 3)])
    check_gradients(twice(diffusion()), 3, 3)
    check_gradients(mj.TemporalCrop(0, 8)(diffusion()), 0, 8)
    t1 = mj.ScalarImage(SERIES[:1])
    check_gradients(mj.TemporalCrop(2, 3, exclude=["t1"])(diffusion(t1=t1)), 2, 3)
    check_gradients(mj.TemporalCrop(0, 1, include=["t1"])(diffusion(t1=t1)), 0, 8)


def test_gradients_are_cut_as_it_was_drawn():
    t, subject = mj.RandomTemporalCrop(3), diffusion()
    for seed in range(3):
        got = t(subject, jax.random.key(seed))
        check_gradients(got, start_of(got.dwi), 3)
    batch = mj.stack([subject] * 4)
    each = mj.unstack(t.batch(batch, jax.random.key(0)))
    for got in each:
        check_gradients(got, start_of(got.dwi), 3)
    assert len({start_of(got.dwi) for got in each}) > 1
    traced = jax.jit(t)(subject, jax.random.key(1))
    np.testing.assert_array_equal(traced.gradients.xyz, t(subject, jax.random.key(1)).gradients.xyz)


def test_gradients_turn_and_are_cut():
    flipped = mj.Compose([mj.Flip(0), mj.TemporalCrop(2, 3)])(diffusion())
    np.testing.assert_allclose(flipped.gradients.xyz, VECTORS[2:5] * [-1, 1, 1], atol=1e-6)
    assert flipped.gradients.labels == B_VALUES[2:5]


def test_what_dicom_tells_of_each_volume_is_cut():
    image = mj.ScalarImage(SERIES, bvals=B_VALUES, EchoTime=5.0)
    got = mj.TemporalCrop(2, 3)(image)
    assert got.metadata == {"bvals": B_VALUES[2:5], "EchoTime": 5.0}
