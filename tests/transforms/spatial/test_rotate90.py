"""Rotate90 and PermuteAxes: indexing of voxels, affines as they were."""

import jax
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from conftest import OBLIQUE, compilations, small_subject
from scipy.stats import chisquare

import medjax as mj

N = 4000
CUBE = (9, 9, 9)
KEYS = jax.random.split(jax.random.key(7), N)


def cube(shape=CUBE):
    return small_subject(OBLIQUE, shape)


def both(got, subject, index):
    """Both images as NumPy's `index` makes them, on the affine that they had."""
    for name, image in subject.images.items():
        assert got[name].dtype == image.dtype
        np.testing.assert_array_equal(got[name].numpy(), index(image.numpy()))
        np.testing.assert_allclose(got[name].affine, OBLIQUE, atol=1e-9)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (0, 2), (2, 1)])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turns_are_those_of_numpy_and_of_batchgenerators(axes, turns):
    s, t = cube(), mj.Rotate90(axes, turns)
    dims = [a + 1 for a in axes]
    both(t(s), s, lambda x: np.rot90(x, turns, dims))
    peer = Rot90Transform(1)._apply_to_image(torch.from_numpy(s.t1.numpy()), num_rot_per_combination=[turns],
                                             axis_combinations=[dims])  # fmt: skip
    np.testing.assert_array_equal(t(s).t1.numpy(), peer.numpy())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_permutations_are_those_of_numpy_and_of_batchgenerators(order):
    s, t = cube(), mj.PermuteAxes(order)
    axes = [0, *(a + 1 for a in order)]
    both(t(s), s, lambda x: x.transpose(axes))
    peer = TransposeAxesTransform({0, 1, 2})._apply_to_image(torch.from_numpy(s.t1.numpy()), axis_order=axes)
    np.testing.assert_array_equal(t(s).t1.numpy(), peer.numpy())


@pytest.mark.parametrize("make", [mj.RandomRotate90, mj.RandomPermuteAxes])
@pytest.mark.parametrize("axes, shape", [((0, 1, 2), CUBE), ((2, 0), (7, 5, 7))])
def test_what_is_drawn_is_done_in_every_mode(make, axes, shape):
    s, t = cube(shape), make(axes)
    keys = KEYS[:6]
    batch = mj.stack([s] * 6)
    runs = [[t(s, k) for k in keys], [jax.jit(t)(s, k) for k in keys]]
    runs += [mj.unstack(t.batch(batch, keys)), mj.unstack(jax.jit(jax.vmap(t))(batch, keys))]
    for i, key in enumerate(keys):
        draw = jax.device_get(t.sample(key, s)["draw"])
        if make is mj.RandomRotate90:
            plane = [(a, b) for a in sorted(axes) for b in sorted(axes) if a < b][draw["plane"]]
            twin = mj.Rotate90(plane, int(draw["turns"]))
        else:
            twin = mj.PermuteAxes([int(n) for n in draw["order"]])
        for run in runs:
            for name in ("t1", "label"):
                np.testing.assert_array_equal(run[i][name].numpy(), twin(s)[name].numpy())
        back = t.invert(runs[0][i], t.sample(key, s), like=s)
        both(back, s, lambda x: x)


def test_planes_turns_and_orders_are_equally_likely():
    s = cube()
    drawn = jax.device_get(jax.jit(jax.vmap(lambda k: mj.RandomRotate90().sample(k, s)["draw"]))(KEYS))
    assert chisquare(np.bincount(drawn["plane"] * 4 + drawn["turns"], minlength=12)).pvalue > 1e-3
    some = mj.RandomRotate90((2, 1), (1, 3))
    drawn = jax.device_get(jax.jit(jax.vmap(lambda k: some.sample(k, s)["draw"]))(KEYS))
    assert (drawn["plane"] == 0).all() and chisquare(np.unique(drawn["turns"], return_counts=True)[1]).pvalue > 1e-3
    assert set(drawn["turns"]) == {1, 3}
    for axes, count in (((0, 1, 2), 6), ((0, 2), 2)):
        t = mj.RandomPermuteAxes(axes)
        orders = np.asarray(jax.jit(jax.vmap(lambda k, t=t: t.sample(k, s)["draw"]["order"]))(KEYS))
        found, counts = np.unique(orders, axis=0, return_counts=True)
        assert len(found) == count and chisquare(counts).pvalue > 1e-3
        assert (orders[:, [a for a in range(3) if a not in axes]] == [a for a in range(3) if a not in axes]).all()


def test_they_fuse_with_their_neighbours():
    s = small_subject(OBLIQUE, (12, 14, 13))
    steps = [mj.CropOrPad(9), mj.Rotate90((0, 2)), mj.Flip(1), mj.PermuteAxes((1, 2, 0))]
    want = s
    for t in steps:
        want = t(want)
    fused = mj.Compose(steps)
    assert "one gather" in repr(fused)
    for name in ("t1", "label"):
        np.testing.assert_array_equal(fused(s)[name].numpy(), want[name].numpy())


def test_another_draw_compiles_nothing():
    t = mj.Compose([mj.RandomRotate90(), mj.RandomPermuteAxes()])
    t(cube(), KEYS[0])
    with compilations() as count:
        t(cube(), KEYS[1])
    assert count() == 0


def test_sizes_that_differ_are_refused_and_half_turns_do_not_need_them():
    s = cube((9, 10, 8))
    both(mj.Rotate90((0, 1), 2)(s), s, lambda x: np.rot90(x, 2, (1, 2)))
    for t in (mj.Rotate90(), mj.RandomRotate90(), mj.PermuteAxes(), mj.RandomPermuteAxes((0, 1))):
        for run in (t, jax.jit(t)):
            with pytest.raises(ValueError, match="must have one size, got shape"):
                run(s, KEYS[0])


def test_images_on_other_grids_are_refused():
    s = cube().replace(t2=mj.ScalarImage(np.zeros((1, *CUBE), np.float32), OBLIQUE @ np.diag([1, 1, 1.2, 1])))
    for t in (mj.Rotate90(), mj.RandomRotate90(), mj.PermuteAxes(), mj.RandomPermuteAxes()):
        with pytest.raises(ValueError, match="one grid"):
            t(s, KEYS[0])


@pytest.mark.parametrize("make, arguments, match", [
    (mj.Rotate90, dict(axes=(0, 1, 2)), "axes"), (mj.Rotate90, dict(axes=(0, 3)), "axes"),
    (mj.Rotate90, dict(turns=4), "turns"), (mj.RandomRotate90, dict(axes=(1,)), "axes"),
    (mj.RandomRotate90, dict(turns=()), "turns"), (mj.PermuteAxes, dict(order=(0, 1)), "order"),
    (mj.PermuteAxes, dict(order=(0, 1, 1)), "order"), (mj.RandomPermuteAxes, dict(axes=(0, 0)), "axes"),
])  # fmt: skip
def test_bad_arguments_are_named(make, arguments, match):
    with pytest.raises(ValueError, match=match):
        make(**arguments)
