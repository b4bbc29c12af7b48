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


def shares(library, channels):
    """Shares of labels, of some voxels of nothing, and an image beside them."""
    data = torch.rand(channels, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    data[:, :, 2] = 0
    t1 = torch.rand(1, 6, 5, 4, generator=torch.Generator().manual_seed(1))
    return library.Subject(seg=library.LabelMap(tensor=data), t1=library.ScalarImage(tensor=t1))


@pytest.mark.parametrize("name", ["RandomLabelsToImage", "LabelsToImage"])
@pytest.mark.parametrize(
    "channels, options",
    [
        (1, {"mean": [0.5], "std": [0], "discretize": True}),
        (1, {"mean": [2], "std": [0]}),
        (3, {"mean": [0.2, 0.5, 0.9], "std": [0, 0, 0], "discretize": True, "image_key": "t1"}),
        (3, {"mean": [0.2, 0.5, 0.9], "std": [0, 0, 0], "image_key": "t1", "ignore_background": True}),
    ],
    ids=["largest of one", "one", "largest, filled", "mixed, filled"],
)
def test_shares_are_painted_as_torchio_paints_them(name, channels, options):
    key = options.get("image_key", "image_from_labels")
    found = getattr(tio, name)(label_key="seg", **options)(shares(tio, channels))
    expected = getattr(torchio.transforms, name)(label_key="seg", **options)(shares(torchio, channels))
    torch.testing.assert_close(found[key].data, expected[key].data)
    torch.testing.assert_close(found.seg.data, shares(tio, channels).seg.data)


def test_means_of_all_labels_of_which_some_are_used():
    options = {"label_key": "seg", "mean": [0.2, 0.5, 0.9], "std": [0, 0, 0], "used_labels": [2], "image_key": "t1"}
    expected = torchio.transforms.LabelsToImage(**options)(shares(torchio, 3))
    torch.testing.assert_close(tio.LabelsToImage(**options)(shares(tio, 3)).t1.data, expected.t1.data)


def test_noise_of_labels_to_image_is_new_unless_it_has_a_seed():
    drawn = tio.LabelsToImage("seg", [0] * 4, [1] * 4)
    fixed = tio.LabelsToImage("seg", [0] * 4, [1] * 4, seed=3)
    for t, same in ((drawn, False), (fixed, True)):
        first, second = (t(labels(tio)).image_from_labels.data for _ in range(2))
        assert torch.equal(first, second) == same and 0.9 < first.std() < 1.1


def test_a_default_mean_may_be_negative():
    options = {"default_mean": -1, "default_std": 0}
    expected = torchio.RandomLabelsToImage(**options)(labels(torchio)).image_from_labels
    torch.testing.assert_close(tio.RandomLabelsToImage(**options)(labels(tio)).image_from_labels.data, expected.data)
