"""KeepLargestComponent: islands become background."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import compilations, small_subject
from scipy import ndimage

import medjax as mj

SHAPE = (12, 14, 13)


def islands(seed=0, dtype=np.uint8):
    """Labels 0, 1, 2 and 5 in clumps of all sizes."""
    fine = np.random.default_rng(seed).choice([0, 1, 2, 5], SHAPE)
    return ndimage.median_filter(fine, 2).astype(dtype)[None]


def labelled(x, **more):
    return mj.Subject(t1=mj.ScalarImage(np.random.default_rng(0).random((1, *SHAPE), np.float32)),
                      label=mj.LabelMap(x, **more))  # fmt: skip


def largest(mask, connectivity):
    found, count = ndimage.label(mask, ndimage.generate_binary_structure(3, connectivity))
    return found == 1 + np.argmax(ndimage.sum_labels(mask, found, range(1, count + 1)))


def by_scipy(x, connectivity):
    """The largest component of each label; no two are of one size."""
    return sum(label * largest(x[0] == label, connectivity) for label in (1, 2, 5))[None]


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_w56_each_label_keeps_its_largest_component(dtype, connectivity):
    """TorchIO takes labels that touch for one thing, and gives 0 and 1."""
    x, t = islands(dtype=dtype), mj.KeepLargestComponent(connectivity=connectivity)
    for run in (t, jax.jit(t)):
        got = run(labelled(x)).label
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), by_scipy(x, connectivity))


def test_under_vmap_and_in_batches_each_is_on_its_own():
    subjects = [labelled(islands(seed)) for seed in range(3)]
    t, batch = mj.KeepLargestComponent(), mj.stack(subjects)
    for result in (jax.jit(jax.vmap(t))(batch), t.batch(batch)):
        for got, subject in zip(mj.unstack(result), subjects):
            np.testing.assert_array_equal(got.label.numpy(), by_scipy(subject.label.numpy(), 1))


def test_all_labels_as_one_thing():
    x = islands()
    kept = largest(x[0] != 0, 1)
    got = mj.KeepLargestComponent(per_label=False)(labelled(x)).label.numpy()
    np.testing.assert_array_equal(got, np.where(kept, x, 0))
    got = mj.KeepLargestComponent(binary=True)(labelled(x)).label.numpy()
    np.testing.assert_array_equal(got, kept[None])


def test_padding_belongs_to_no_component():
    x = np.zeros((1, 6, 6, 6), np.uint8)
    x[0, 0, 0, :3], x[0, 3, 3, 1], x[0, 3, 3, 2:] = 1, 1, 1
    image = mj.LabelMap.of(x, np.eye(4), extent=np.array([6, 6, 3], np.int32))
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], mj.Subject(label=image))
    got = np.asarray(mj.KeepLargestComponent().batch(batch).label.data[0])
    assert np.argwhere(got[0]).tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("p", [1.0, 0.7])
def test_gradients_of_the_image_go_past_it(dtype, p):
    subject = labelled(islands(dtype=dtype))
    pipeline = mj.Compose([mj.RandomGamma(), mj.KeepLargestComponent(p=p), mj.Gamma(1.2)])
    without = mj.Compose([mj.RandomGamma(), mj.KeepLargestComponent(p=0), mj.Gamma(1.2)])

    def slope(t):
        def loss(data):
            return t(subject.replace(t1=subject.t1.replace(data=data)), jax.random.key(0)).t1.data.sum()

        return jax.jit(jax.grad(loss))(jnp.asarray(subject.t1.data))

    got = slope(pipeline)
    assert np.abs(got).max() > 0
    np.testing.assert_allclose(got, slope(without), rtol=1e-6)


def test_gradients_of_a_map_of_floats_are_those_of_what_is_kept():
    x, t = islands(dtype=np.float32), mj.KeepLargestComponent()
    slope = jax.jit(jax.grad(lambda data: (t(mj.LabelMap(np.asarray(x)).replace(data=data)).data).sum()))(
        jnp.asarray(x)
    )
    np.testing.assert_array_equal(slope, by_scipy(x, 1) != 0)


def test_a_second_call_compiles_nothing():
    mj.KeepLargestComponent()(labelled(islands()))
    with compilations() as count:
        mj.KeepLargestComponent()(labelled(islands(1)))
    assert count() == 0


def test_without_the_labeller_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cc3d", None)
    with pytest.raises(ImportError, match=r"needs connected-components-3d.*medjax\[morphology\]"):
        mj.KeepLargestComponent()(small_subject())


@pytest.mark.parametrize("connectivity", [0, 6, "face"])
def test_connectivity_is_1_2_or_3(connectivity):
    for transform in (mj.KeepLargestComponent, mj.Contour):
        with pytest.raises((TypeError, ValueError), match="connectivity=.* is not one of 1, 2, 3"):
            transform(connectivity=connectivity)
