"""What runs off a CPU, run on one: the same numbers as the loops that CPUs run, which SciPy vouches for elsewhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import medjax as mj
from medjax.ops import bspline, passes, statistics, warp
from tests.conftest import OBLIQUE, blobs, small_subject

X = jnp.asarray(np.stack([blobs((13, 11, 12)), blobs((13, 11, 12), 3)]))
REAL = jnp.arange(13)[None, :, None, None] < jnp.array([9, 13])[:, None, None, None]


@pytest.fixture
def elsewhere(monkeypatch):
    """Every choice by platform as off a CPU."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    jax.clear_caches()
    yield
    jax.clear_caches()


def cubic():
    points = [jnp.asarray(v, jnp.float32) for v in np.random.default_rng(0).uniform(-2, 14, (3, 7, 6, 5))]
    return warp.spline(X, tuple(points), jnp.array([13, 11, 12], jnp.int32), jnp.float32)


def field(turned):
    control = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6, 7, 5)), jnp.float32)
    matrix = np.eye(4) * 0.4
    matrix[0, 1] = 0.1 * turned
    matrix[3, 3] = 1
    return bspline.field_on(control, jnp.asarray(matrix, jnp.float32), (9, 8, 7))


def field_at():
    control = jnp.asarray(np.random.default_rng(1).normal(size=(3, 6, 7, 5)), jnp.float32)
    points = np.random.default_rng(2).uniform(-1, 6, (3, 7, 6, 5))
    return bspline.field_at(control, tuple(jnp.asarray(v, jnp.float32) for v in points))


def quantiles(x):
    return statistics.quantiles(x, jnp.array([0.0, 0.005, 0.31, 0.5, 0.995, 1.0]))


KERNELS = {
    "cubic": cubic,
    "a turned field": partial(field, 1),
    "a field at points": field_at,
    "quantiles": partial(quantiles, X),
    "quantiles of ties": partial(quantiles, jnp.round(X * 3)),
    "quantiles of few": partial(quantiles, X[:1, :1, :1, :2]),
    "channels": partial(statistics.each_channel, lambda x, m: statistics.mean_std(x, m)[0], X, REAL),
}
TRANSFORMS = {
    "nnU-Net's gamma": mj.RandomGamma(gamma=((0.7, 1), (1, 1.5)), rescale=True, invert_image=True, retain_stats=True),
    "low resolution": mj.LowResolution(0.4, image_interpolation="cubic"),
    "Gibbs": mj.RandomGibbs(per_channel=True),
    "elastic": mj.RandomElasticDeformation(num_control_points=5, max_displacement=3),
    "elastic behind a turn": mj.Compose([mj.RandomAffine(), mj.RandomElasticDeformation(5, max_displacement=3)]),
    "a coin that falls on heads": mj.Compose([mj.RandomBiasField(p=0.9), mj.RandomGamma(p=0.9), mj.RandomNoise(p=0.9)]),
    "a coin that falls on tails": mj.Compose([mj.RandomBiasField(p=0.1), mj.RandomGamma(p=0.1), mj.RandomNoise(p=0.1)]),
    "flips": mj.RandomFlip(axes=(0, 1, 2), p=0.8),
    "crops of a padded image": mj.Compose([mj.Pad(3, padding_mode="reflect"), mj.RandomCrop(9), mj.Flip(0)]),
    "statistics of channels": mj.Compose([mj.ZNormalization(per_channel=True), mj.RescaleIntensity(per_channel=True)]),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_the_same_off_a_cpu(name, request):
    here = KERNELS[name]()
    request.getfixturevalue("elsewhere")
    np.testing.assert_allclose(jax.jit(KERNELS[name])(), here, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_and_their_gradients_are_the_same_off_a_cpu(name, request):
    t, s, key = TRANSFORMS[name], small_subject(shape=(14, 12, 13)), jax.random.key(3)
    s = mj.Subject(t1=mj.ScalarImage(np.concatenate([s.t1.data, 2 * s.t1.data]), s.t1.affine))

    def slope(data):
        return jax.grad(lambda data: (jax.jit(t)(s.replace(t1=s.t1.replace(data=data)), key).t1.data ** 2).mean())(data)

    here = t(s, key).t1.numpy(), slope(jnp.asarray(s.t1.data))
    request.getfixturevalue("elsewhere")
    there = t(s, key).t1.numpy(), slope(jnp.asarray(s.t1.data))
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max())


FAR = OBLIQUE.copy()
FAR[:3, 3] += 3e5
LABELS = {
    "finer and cropped": mj.Compose([mj.Resample(0.8), mj.CropOrPad(17)]),
    "turned or not": mj.Compose([mj.RandomAffine(degrees=20, p=0.5), mj.CropOrPad(9)]),
    "flipped, of which the pad is a mirror": mj.Compose([mj.Pad(3, padding_mode="reflect"), mj.RandomFlip((0, 1, 2))]),
    "turned, of which the pad is a mirror": mj.Compose([mj.Pad(3, padding_mode="symmetric"), mj.RandomAffine(p=0.5)]),
    "another orientation": mj.Compose([mj.ToCanonical(), mj.RandomVoxelAffine(p=0.5), mj.CropOrPad((9, 20, 14))]),
}


@pytest.mark.parametrize("affine", [OBLIQUE, FAR], ids=["near", "far"])
@pytest.mark.parametrize("name", LABELS)
def test_labels_are_the_same_off_a_cpu_whatever_is_drawn(name, affine, request):
    """There a voxel that is copied and one that is looked for come by one branch."""
    t, s = LABELS[name], small_subject(affine, shape=(14, 12, 13))
    here = [t(s, jax.random.key(n)).label.numpy() for n in range(4)]
    request.getfixturevalue("elsewhere")
    for n, labels in enumerate(here):
        np.testing.assert_array_equal(t(s, jax.random.key(n)).label.numpy(), labels)


def test_a_loop_of_a_cpu_is_none_elsewhere():
    x = jnp.arange(4.0)
    f = partial(passes.one_by_one, jnp.sin)
    assert "while" in jax.jit(f).lower(x).as_text()
    assert "while" not in jax.export.export(jax.jit(f), platforms=["cuda"])(x).mlir_module()


def test_planes_are_summed_everywhere(request):
    flat = jnp.arange(6.0).reshape(2, 3)

    def f(flat):
        return passes.over_planes(lambda channel, a: channel * (1 + a), flat)

    np.testing.assert_array_equal(jax.jit(f)(flat), 10 * flat)
    request.getfixturevalue("elsewhere")
    np.testing.assert_array_equal(jax.jit(f)(flat), 10 * flat)


@pytest.mark.parametrize("condition", [False, True])
def test_either_is_a_conditional_on_a_cpu_and_a_choice_elsewhere(request, condition):
    f = jax.jit(lambda c, x: passes.either(c, jnp.sin, jnp.negative, x))
    x, condition = jnp.arange(4.0), jnp.asarray(condition)
    want = np.where(condition, np.sin(x), -x)
    np.testing.assert_allclose(f(condition, x), want, rtol=1e-6)
    assert "case" in f.lower(condition, x).as_text()
    request.getfixturevalue("elsewhere")
    f = jax.jit(lambda c, x: passes.either(c, jnp.sin, jnp.negative, x))
    np.testing.assert_allclose(f(condition, x), want, rtol=1e-6)
    assert "case" not in f.lower(condition, x).as_text()
    assert "case" in f.lower(condition, jax.ShapeDtypeStruct((passes.LITTLE,), x.dtype)).as_text()
