"""RemoveComponents: one piece of each label goes."""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chisquare, kstest

import medjax as mj

SHAPE = (12, 14, 13)
N = 2000


def islands(seed=0, dtype=np.uint8):
    """Labels 0, 1, 2 and 5 in clumps of all sizes."""
    fine = np.random.default_rng(seed).choice([0, 0, 0, 1, 2, 5], SHAPE)
    return ndimage.median_filter(fine, 2).astype(dtype)[None]


def pieces(mask, connectivity=3):
    """scipy numbers them in the order of their first voxels."""
    return ndimage.label(mask, ndimage.generate_binary_structure(3, connectivity))


def by_scipy(x, places, most, connectivity=3):
    want = x.copy()
    for label, place in places.items():
        found, count = pieces(x[0] == label, connectivity)
        sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
        small = np.flatnonzero(sizes < most * x.size)
        if small.size:
            want[0][found == 1 + small[min(int(place * small.size), small.size - 1)]] = 0
    return want


@pytest.mark.parametrize("connectivity", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_the_piece_is_scipys(dtype, connectivity):
    x = islands(dtype=dtype)
    for place, most in ((0.0, 0.15), (0.4, 0.15), (1.0, 1.0), (0.7, 0.003), (0.5, 0.0)):
        t = mj.RemoveComponents((5, 1), place, most, connectivity=connectivity)
        want = by_scipy(x, {5: place, 1: place}, most, connectivity)
        assert (want != x).any() == (most > 0)
        for run in (t, jax.jit(t)):
            got = run(mj.LabelMap(x))
            assert got.dtype == dtype
            np.testing.assert_array_equal(got.numpy(), want)


def test_under_vmap_and_in_batches_each_is_on_its_own():
    subjects = [mj.Subject(label=mj.LabelMap(islands(seed))) for seed in range(3)]
    t, batch = mj.RemoveComponents((1, 2), 0.6), mj.stack(subjects)
    for result in (jax.jit(jax.vmap(t))(batch), t.batch(batch)):
        for got, subject in zip(mj.unstack(result), subjects, strict=True):
            want = by_scipy(subject.label.numpy(), {1: 0.6, 2: 0.6}, 0.15)
            np.testing.assert_array_equal(got.label.numpy(), want)


def test_padding_is_no_part_of_the_volume():
    x = islands()
    padded = np.pad(x, ((0, 0), (0, 3), (0, 5), (0, 4)), constant_values=1)
    image = mj.LabelMap.of(padded, np.eye(4), extent=np.array(SHAPE, np.int32))
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], mj.Subject(label=image))
    t = mj.RemoveComponents((1,), 1.0, 0.004)
    got = np.asarray(t.batch(batch).label.data[0])[:, : SHAPE[0], : SHAPE[1], : SHAPE[2]]
    np.testing.assert_array_equal(got, by_scipy(x, {1: 1.0}, 0.004))


def test_each_piece_goes_as_often_as_in_batchgenerators(monkeypatch):
    """Pieces that may go are equally likely; with 15 % those larger stay, in both."""
    x = np.zeros((1, *SHAPE), np.uint8)
    x[0, :5, :, :], x[0, 6:8, :2, :2], x[0, 9, 9, 9], x[0, 9, 1:9, 12] = 1, 1, 1, 1
    found, count = pieces(x[0] == 1)
    helper = SimpleNamespace(label_with_component_sizes=lambda m: (
        pieces(m)[0], {i: j for i, j in enumerate(np.bincount(pieces(m)[0].ravel())) if i}))  # fmt: skip
    for name in ("acvl_utils", "acvl_utils.morphology"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.setitem(sys.modules, "acvl_utils.morphology.morphology_helper", helper)
    from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
        RemoveRandomConnectedComponentFromOneHotEncodingTransform as Peer,
    )

    peer = Peer([0], fill_with_other_class_p=0, dont_do_if_covers_more_than_x_percent=0.15)
    t = mj.RandomRemoveComponents((1,))
    run = jax.jit(lambda key: t(mj.LabelMap(x), key).data)

    def gone(after):
        return np.unique(found[(x[0] == 1) & (np.asarray(after)[0] == 0)])

    def peers():
        image = torch.from_numpy(x.astype(np.float32))
        return peer._apply_to_image(image, **peer.get_parameters(image=image)).numpy()

    ours = [gone(run(key)) for key in jax.random.split(jax.random.key(0), 300)]
    theirs = [gone(peers()) for _ in range(60)]
    assert count == 4 and all(g.size == 1 for g in (*ours, *theirs))
    assert set(np.concatenate(ours)) == set(np.concatenate(theirs)) == {2, 3, 4}
    assert chisquare(np.bincount(np.concatenate(ours))[2:]).pvalue > 1e-3


def test_what_is_drawn():
    t, image = mj.RandomRemoveComponents((1, 2, 5), p_per_label=0.3), mj.LabelMap(islands())
    keys = jax.random.split(jax.random.key(3), N)
    drawn = jax.device_get(jax.jit(jax.vmap(lambda key: t.sample(key, image)["draw"]["image"]))(keys))
    assert kstest(drawn["place"].ravel(), "uniform").pvalue > 1e-3
    assert abs(drawn["chosen"].mean() - 0.3) < 4 * np.sqrt(0.21 / (3 * N))
    for name in ("place", "chosen"):
        assert abs(np.corrcoef(drawn[name].T.astype(float))[0, 1]) < 4 / np.sqrt(N)
    one = t(image, jax.random.key(1)).numpy()
    draw = jax.device_get(t.sample(jax.random.key(1), image)["draw"]["image"])
    chosen = {label: p for label, p, on in zip(t.labels, draw["place"], draw["chosen"], strict=True) if on}
    np.testing.assert_array_equal(one, by_scipy(image.numpy(), chosen, 0.15))


def test_labels_must_be_named():
    for labels in ((), (0,), (1, 1)):
        with pytest.raises(ValueError, match="labels"):
            mj.RemoveComponents(labels)


def test_without_the_labeller_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cc3d", None)
    with pytest.raises(ImportError, match=r"RemoveComponents needs connected-components-3d.*medjax\[morphology\]"):
        mj.RemoveComponents((1,))(mj.LabelMap(islands()))
