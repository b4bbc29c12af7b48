"""Transforms whose defaults look at a subject, against the installed TorchIO."""

import numpy as np
import pytest
import torch
from bridge.shared import time_limit as time_limit

import torch_bridge as tio

torchio = pytest.importorskip("torchio")


def labels(library, **items):
    data = torch.zeros(1, 16, 16, 16, dtype=torch.int32)
    for label in (1, 2, 3):
        data[:, 4 * label : 4 * label + 4] = label
    return library.Subject(seg=library.LabelMap(tensor=data), **items)


def per_label(image):
    """Mean and standard deviation of an image in each label."""
    data, seg = image.data[0], labels(tio).seg.data[0]
    return np.array([[data[seg == v].mean(), data[seg == v].std()] for v in range(4)])


@pytest.mark.parametrize("options", [
    {"mean": [0.1, 0.4, 0.6, 0.9], "std": [0.01] * 4},
    {"label_key": "seg", "mean": [0.1, 0.4, 0.6, 0.9], "std": [0.01] * 4, "ignore_background": True},
    {"mean": [0.1, 0.4, 0.6, 0.9], "std": [0.01] * 4, "used_labels": [0, 1, 2, 3]},
])  # fmt: skip
def test_labels_to_image_paints_what_torchio_paints(options):
    found = tio.RandomLabelsToImage(**options)(labels(tio)).image_from_labels
    expected = torchio.RandomLabelsToImage(**options)(labels(torchio)).image_from_labels
    np.testing.assert_allclose(per_label(found), per_label(expected), atol=3e-3)


def test_labels_to_image_fills_an_image_that_is_there():
    there = torch.full((1, 16, 16, 16), 7.0)
    subject = labels(tio, t1=tio.ScalarImage(tensor=there))
    result = tio.RandomLabelsToImage(image_key="t1", used_labels=[1])(subject)
    outside = subject.seg.data != 1
    assert (result.t1.data[outside] == 7).all() and (result.t1.data[~outside] < 2).all()
    assert torch.equal(subject.t1.data, there)
    drawn = per_label(tio.RandomLabelsToImage()(labels(tio)).image_from_labels)
    assert len(set(drawn[:, 0].round(3))) == 4 and (drawn[:, 1] > 0.005).all()
    with pytest.raises(RuntimeError, match="one number or pair for each label"):
        tio.RandomLabelsToImage(mean=[1, 2])(subject)


def test_one_hot_counts_the_labels():
    found, expected = tio.OneHot()(labels(tio)).seg.data, torchio.OneHot()(labels(torchio)).seg.data
    assert torch.equal(found.float(), expected.float())
    assert torch.equal(tio.OneHot(4)(labels(tio)).seg.data.float(), expected.float())


def test_other_interpolations_are_the_nearest_and_said():
    with pytest.warns(UserWarning, match="'lanczos' is not here"):
        assert tio.RandomAffine(image_interpolation="lanczos").image_interpolation == "cubic"
