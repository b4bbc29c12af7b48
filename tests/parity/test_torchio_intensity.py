"""Intensity transforms give TorchIO 1.2.1's numbers, on the real T1 and on a small volume, to 1e-4 of the range."""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject

import medjax as mj
from parity.peer import agree, run, strided, tio

RAS = np.diag([1.0, 2, 1.5, 1])


@pytest.fixture(scope="module")
def head(mni):
    """The real T1 and its grey matter, every fourth voxel."""
    return strided(mni)


def check(mine, peer, subject, tolerance=1e-4):
    got, want = mine(subject), run(peer, subject)
    assert got.t1.dtype == np.float32
    agree(got.t1, want.t1, tolerance=tolerance)
    if "label" in subject:
        np.testing.assert_array_equal(got.label.numpy(), subject.label.numpy())


def bright(x):
    return x > 0.4


HALVES = ["Left", "Anterior", "sUPERIOR"]
MASKS = [None, "label", *HALVES, bright, 2, (3, 5, 2), (3, 1, 5, 8, 2, 0)]


def called(method):
    """A name that is the same in every process, as pytest-xdist needs."""
    return getattr(method, "__name__", str(method))


@pytest.mark.parametrize("method", MASKS, ids=called)
def test_z_normalization(method):
    subject = small_subject(RAS)
    check(mj.ZNormalization(masking_method=method), tio.ZNormalization(masking_method=method), subject)


@pytest.mark.parametrize("name", ["above the mean", "label", "Right"])
def test_z_normalization_of_a_head(head, name):
    mine, peer = {"above the mean": (mj.ZNormalization.mean, tio.ZNormalization.mean)}.get(name, (name, name))
    check(mj.ZNormalization(mine), tio.ZNormalization(masking_method=peer), head)


def test_channels_are_normalised_together():
    data = np.concatenate([blobs(), 3 * blobs(seed=1) - 1])
    subject = mj.Subject(t1=mj.ScalarImage(data.reshape(2, 23, 31, 18), RAS))
    check(mj.ZNormalization(), tio.ZNormalization(), subject)
    check(mj.RescaleIntensity(percentiles=(5, 90)), tio.RescaleIntensity(percentiles=(5, 90)), subject)


RESCALES = {
    "nothing said": {},
    "out": {"out_min_max": (-1, 3)},
    "out, one number": {"out_min_max": 2},
    "percentiles": {"percentiles": (1, 99)},
    "odd percentiles": {"percentiles": (0.3, 87.6)},
    "one percentile": {"percentiles": 95},
    "in": {"in_min_max": (0.2, 0.7)},
    "in, one number": {"in_min_max": 0.6},
    "in and percentiles": {"in_min_max": (0.2, 0.7), "percentiles": (3, 98), "out_min_max": (-1, 1)},
}


@pytest.mark.parametrize("arguments", RESCALES.values(), ids=RESCALES)
def test_rescale_intensity(arguments):
    check(mj.RescaleIntensity(**arguments), tio.RescaleIntensity(**arguments), small_subject(RAS))


@pytest.mark.parametrize("method", ["label", "Posterior", bright, (3, 1, 5, 8, 2, 0)], ids=called)
def test_rescale_intensity_by_a_mask(method):
    arguments = {"percentiles": (2, 97), "masking_method": method}
    check(mj.RescaleIntensity(**arguments), tio.RescaleIntensity(**arguments), small_subject(RAS))


def test_rescale_intensity_of_a_head(head):
    arguments = {"out_min_max": (-1, 1), "percentiles": (0.5, 99.5), "masking_method": "label"}
    check(mj.RescaleIntensity(**arguments), tio.RescaleIntensity(**arguments), head)


@pytest.mark.parametrize("gamma", [0.74, 1.0, 1.35])
@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_gamma(gamma, offset):
    subject = mj.Subject(t1=mj.ScalarImage(blobs()[None] + np.float32(offset), OBLIQUE))
    check(mj.Gamma(gamma), tio.Gamma(gamma), subject, 1e-5)


@pytest.mark.parametrize("order", range(5))
def test_bias_field(order):
    size = (order + 1) * (order + 2) * (order + 3) // 6
    coefficients = np.random.default_rng(order).uniform(-0.5, 0.5, size).tolist()
    check(mj.BiasField(coefficients, order), tio.BiasField(coefficients, order), small_subject(), 1e-5)


def test_bias_field_of_one_slice():
    subject = mj.Subject(t1=mj.ScalarImage(blobs((23, 31, 1))[None], OBLIQUE))
    coefficients = np.linspace(-0.4, 0.5, 20).tolist()
    check(mj.BiasField(coefficients, 3), tio.BiasField(coefficients, 3), subject, 1e-5)


def test_bias_field_of_a_head(head):
    coefficients = np.random.default_rng(7).uniform(-0.5, 0.5, 20).tolist()
    check(mj.BiasField(coefficients), tio.BiasField(coefficients, 3), head, 1e-5)


@pytest.mark.parametrize("std", [(0.0, 0.0, 0.0), (1.0, 1, 1), (0.4, 3.1, 2), (0.0, 7, 0.3), (9.0, 11, 14)])
def test_blur(std):
    check(mj.Blur(std), tio.Blur(std), small_subject(), 1e-5)


def test_blur_of_a_head(head):
    check(mj.Blur((3, 5, 8)), tio.Blur((3, 5, 8)), head, 1e-5)


def test_a_head_of_whole_numbers(mni):
    """TorchIO takes the integers of the file as they are, and so does medjax: both give float32."""
    head = strided(mni)
    head = head.replace(t1=head.t1.replace(data=np.round(head.t1.numpy()).astype(np.int16)))
    check(mj.ZNormalization("label"), tio.ZNormalization(masking_method="label"), head)
    check(mj.RescaleIntensity(percentiles=(1, 99)), tio.RescaleIntensity(percentiles=(1, 99)), head)
    check(mj.Gamma(1.1), tio.Gamma(1.1), head)
