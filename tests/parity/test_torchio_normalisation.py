"""Normalisation gives TorchIO 1.2.1's numbers, on a real T1 and on small volumes."""

import warnings

import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject

import medjax as mj
from parity.peer import agree, run, strided, tio

RAS = np.diag([1.0, 2, 1.5, 1])
TARGETS = 100 * np.linspace(0, 1, 13) ** 1.5


@pytest.fixture(scope="module")
def head(mni):
    """The real T1 and its grey matter, every fourth voxel."""
    return strided(mni)


def check(mine, peer, subject, tolerance=1e-4):
    got, want = mine(subject), run(peer, subject)
    for name in got.images:
        agree(got[name], want[name], tolerance=tolerance)
    return got, want


def bright(x):
    return x > 0.4


# -- histogram standardisation


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three volumes of different contrast, and masks of them."""
    folder = tmp_path_factory.mktemp("images")
    paths, masks = [], []
    for i in range(3):
        data = (100 * (i + 1) * blobs(seed=i) ** (1 + i / 2) + i).astype(np.float32)[None]
        paths.append(folder / f"t1_{i}.nii.gz")
        masks.append(folder / f"mask_{i}.nii.gz")
        mj.ScalarImage(data, RAS).save(paths[-1])
        mj.LabelMap((blobs(seed=i) > 0.5).astype(np.uint8)[None], RAS).save(masks[-1])
    return paths, masks


def trained(paths, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tio.HistogramStandardization.train(paths, progress=False, **options)


def test_training(files):
    found = mj.HistogramStandardization.train(files[0], progress=False)
    np.testing.assert_allclose(found, trained(files[0]), rtol=1e-5, atol=1e-4)


def test_training_by_a_function(files):
    found = mj.HistogramStandardization.train(files[0], masking_method=lambda x: x > 60, progress=False)
    want = trained(files[0], masking_function=lambda x: (x > 60).numpy())
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-4)


def test_training_by_label_maps(files):
    subjects = [mj.Subject(t1=mj.ScalarImage(p), mask=mj.LabelMap(m)) for p, m in zip(*files)]
    found = mj.HistogramStandardization.train(subjects, masking_method="mask", progress=False)
    np.testing.assert_allclose(found, trained(files[0], mask_path=files[1]), rtol=1e-5, atol=1e-4)


def test_training_with_a_cutoff(files):
    found = mj.HistogramStandardization.train(files[0], cutoff=(0.1, 0.9), progress=False)
    np.testing.assert_allclose(found, trained(files[0], cutoff=(0.1, 0.9)), rtol=1e-5, atol=1e-4)


def called(value):
    """A name for a test that is the same in every process."""
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("method", [None, "label", bright, "Left", (3, 1, 5, 8, 2, 0)], ids=called)
def test_histogram_standardization(method):
    mine = mj.HistogramStandardization({"t1": TARGETS}, method)
    check(mine, tio.HistogramStandardization({"t1": TARGETS}, masking_method=method), small_subject(RAS))


def test_histogram_standardization_of_a_head(head):
    check(
        mj.HistogramStandardization(TARGETS, "label"),
        tio.HistogramStandardization({"t1": TARGETS}, masking_method="label"),
        head,
    )


def test_files_of_one_library_are_read_by_the_other(files, tmp_path):
    want = trained(files[0], output_path=tmp_path / "peer.npy")
    np.testing.assert_allclose(mj.Landmarks.load(tmp_path / "peer.npy"), want, rtol=1e-6)
    mine = mj.HistogramStandardization.train(files[0], progress=False)
    np.save(tmp_path / "mine.npy", mine)
    check(
        mj.HistogramStandardization({"t1": mine}),
        tio.HistogramStandardization({"t1": tmp_path / "mine.npy"}),
        small_subject(RAS),
    )


# -- the others


@pytest.mark.parametrize("bounds", [(0.3, 0.6), (None, 0.6), (0.3, None)])
def test_clamp(bounds):
    check(mj.Clamp(*bounds), tio.Clamp(*bounds), small_subject(), 1e-6)


@pytest.mark.parametrize("method, value, labels", [
    ("label", 0, None), ("label", -2, [3]), ("label", 1, [1, 3]), ("Right", 0.5, None), (bright, 2, None), (4, -1, None),
], ids=called)  # fmt: skip
def test_mask(method, value, labels):
    check(mj.Mask(method, value, labels), tio.Mask(method, value, labels), small_subject(RAS), 1e-6)


def test_a_mask_of_one_channel():
    data = np.stack([blobs(), 1 + blobs(seed=1)])
    label = mj.LabelMap((blobs() > 0.5).astype(np.uint8)[None], RAS)
    subject = mj.Subject(t1=mj.ScalarImage(data, RAS), label=label)
    check(mj.Mask("label"), tio.Mask("label"), subject, 1e-6)


PCAS = {
    "nothing said": {},
    "as they are": {"whiten": False, "normalize": False, "values_range": None, "clip": False},
    "without signs": {"make_skewness_positive": False, "num_components": 2},
    "a range": {"values_range": (-1.0, 4.0), "clip": False, "num_components": 4},
}


@pytest.mark.parametrize("arguments", PCAS.values(), ids=PCAS)
def test_pca(arguments):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(2)
    mixed = rng.normal(size=(5, 5)) @ (rng.gamma(2, size=(5, 720)) * np.arange(1, 6)[:, None])
    subject = mj.Subject(t1=mj.ScalarImage(mixed.reshape(5, 9, 8, 10).astype(np.float32), OBLIQUE))
    check(mj.PCA(**arguments), tio.PCA(**arguments), subject, 1e-3)


def square(x):
    return x**2


@pytest.mark.parametrize("types", [None, ["intensity"], ["label"]], ids=str)
def test_lambda(types):
    check(mj.Lambda(square, types), tio.Lambda(square, types), small_subject(), 1e-6)
