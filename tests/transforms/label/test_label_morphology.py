"""LabelMorphology: against scipy.ndimage and batchgeneratorsv2, and what its random form draws."""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chisquare, kstest

import medjax as mj
from medjax.ops.morphology import OPERATIONS

SHAPE = (21, 23, 22)
N = 3000


def ball(radius, dtype=bool):
    """scikit-image's, by its definition."""
    n = int(2 * radius + 1)
    x, y, z = np.ogrid[(slice(-radius, radius, n * 1j),) * 3]
    return (x**2 + y**2 + z**2 <= radius * radius).astype(dtype)


@pytest.fixture
def peer(monkeypatch):
    """The module of batchgeneratorsv2, with scikit-image's ball from here."""
    monkeypatch.setitem(sys.modules, "skimage", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "skimage.morphology", SimpleNamespace(ball=ball, disk=None))
    from batchgeneratorsv2.transforms.nnunet import random_binary_operator

    return random_binary_operator


def blocks(seed=0, dtype=np.uint8):
    """Labels 0, 1, 2 and 5 in large clumps that reach the border."""
    fine = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(4, *SHAPE)), (0, 2.2, 2.2, 2.2))
    return np.array([0, 1, 2, 5])[np.argmax(fine, 0)].astype(dtype)[None]


def by_scipy(x, operation, radius):
    """Outside of the volume nothing is gained or lost: the volume is padded with what has no influence."""

    def dilate(mask):
        return ndimage.binary_dilation(mask, ball(int(radius)))

    def erode(mask):
        return ndimage.binary_erosion(mask, ball(int(radius)), border_value=1)

    steps = {"dilation": [dilate], "erosion": [erode], "opening": [erode, dilate], "closing": [dilate, erode]}
    for step in steps[operation]:
        x = step(x)
    return x


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_label_is_scipys(operation):
    x = blocks()
    for radius in (0.0, 1.0, 2.3, 3.0, 8.0):
        got = mj.LabelMorphology((2,), operation, radius)(mj.LabelMap(x)).numpy()
        new = by_scipy(x[0] == 2, operation, radius)
        np.testing.assert_array_equal(got[0], np.where(new, 2, np.where(x[0] == 2, 0, x[0])))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_several_labels_are_batchgenerators(operation, peer):
    """Of one-hot maps, one label after the other. By even balls an opening or closing there is a voxel away, and for some
    fractions, as 3.2, rounding takes voxels off the ball."""
    x, order = blocks(1), (5, 1, 2)
    halves = (1.0, 1.5, 2.7, 3.0, 6.8, 7.9) if operation in ("dilation", "erosion") else (1.0, 2.4, 4.3)
    for radius in halves:
        t = peer.ApplyRandomBinaryOperatorTransform(channel_idx=[0, 1, 2])
        params = dict(apply_to_channels=[0, 1, 2], strel_size=[radius] * 3,
                      operators=[getattr(peer, f"binary_{operation}_torch")] * 3)  # fmt: skip
        image = torch.from_numpy(np.concatenate([x == label for label in order]).astype(np.float32))
        want = t._apply_to_image(image, **params).numpy()
        got = mj.LabelMorphology(order, operation, radius)(mj.LabelMap(x))
        np.testing.assert_array_equal(mj.Regions(order)(got).numpy(), want)


@pytest.mark.parametrize("radius", [1.5, 2.5, 3.7])
def test_even_balls_open_and_close(radius):
    """An opening is in the label, a closing holds it, both twice are the same as once; inside the volume."""
    x = np.zeros((1, *SHAPE), np.uint8)
    x[0, 5:-5, 5:-5, 5:-5] = blocks()[0, 5:-5, 5:-5, 5:-5] == 1
    opened, closed = (mj.LabelMorphology((1,), name, radius)(mj.LabelMap(x)) for name in ("opening", "closing"))
    assert (opened.numpy() <= x).all() and (x <= closed.numpy()).all()
    for name, once in (("opening", opened), ("closing", closed)):
        np.testing.assert_array_equal(mj.LabelMorphology((1,), name, radius)(once).numpy(), once.numpy())
    assert 0 < opened.numpy().sum() < x.sum() < closed.numpy().sum()


def test_padding_has_no_influence():
    x = blocks()
    padded = np.pad(x, ((0, 0), (0, 3), (0, 5), (0, 4)), constant_values=2)
    image = mj.LabelMap.of(padded, np.eye(4), extent=np.array(SHAPE, np.int32))
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], mj.Subject(label=image))
    for operation in OPERATIONS:
        t = mj.LabelMorphology((2, 1), operation, 2.6)
        got = np.asarray(t.batch(batch).label.data[0])[:, : SHAPE[0], : SHAPE[1], : SHAPE[2]]
        np.testing.assert_array_equal(got, t(mj.LabelMap(x)).numpy())


def test_the_random_form_is_the_other_with_what_was_drawn():
    x = blocks()
    t = mj.RandomLabelMorphology((1, 2, 5), radius=(1, 4), p_per_label=0.6)
    for seed in range(4):
        key = jax.random.key(seed)
        draw = jax.device_get(t.sample(key, mj.LabelMap(x))["draw"]["image"])
        want = mj.LabelMap(x)
        for n in draw["order"]:
            if draw["chosen"][n]:
                name, radius = OPERATIONS[draw["operation"][n]], draw["radius"][n]
                want = mj.LabelMorphology(t.labels[n], name, radius)(want)
        np.testing.assert_array_equal(t(mj.LabelMap(x), key).numpy(), want.numpy())


def test_what_is_drawn():
    t, image = mj.RandomLabelMorphology((1, 2, 5), p_per_label=0.7), mj.LabelMap(blocks())
    keys = jax.random.split(jax.random.key(3), N)
    drawn = jax.device_get(jax.jit(jax.vmap(lambda key: t.sample(key, image)["draw"]["image"]))(keys))
    assert kstest(drawn["radius"].ravel(), "uniform", (1, 7)).pvalue > 1e-3
    assert abs(np.corrcoef(drawn["radius"].T)[0, 1]) < 4 / np.sqrt(N)
    assert abs(drawn["chosen"].mean() - 0.7) < 4 * np.sqrt(0.21 / (3 * N))
    assert chisquare(np.bincount(drawn["operation"].ravel())).pvalue > 1e-3
    orders, counts = np.unique(drawn["order"], axis=0, return_counts=True)
    assert len(orders) == 6 and chisquare(counts).pvalue > 1e-3
    some = mj.RandomLabelMorphology((1,), ("closing", "erosion"))
    chosen = jax.vmap(lambda key: some.sample(key, image)["draw"]["image"]["operation"])(keys)
    assert set(np.unique(chosen)) == {1, 3}


@pytest.mark.parametrize("arguments, match", [
    (dict(labels=()), "labels"), (dict(labels=(0, 1)), "labels"), (dict(labels=(1, 1)), "labels"),
    (dict(operation="open"), "operation='open' is not one of.*opening"), (dict(radius=9), "max_radius"),
    (dict(radius=-1), "radius"), (dict(max_radius=100), "max_radius"),
])  # fmt: skip
def test_bad_arguments_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        mj.LabelMorphology(**{"labels": (1,), **arguments})


def test_a_label_beyond_the_type_is_named():
    with pytest.raises(ValueError, match="cannot hold label 300"):
        mj.LabelMorphology((300,))(mj.LabelMap(blocks()))
