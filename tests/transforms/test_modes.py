"""Transforms inside what users write: jitted steps, scans, dicts of arrays, float64, NaN checks, abstract evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject

import medjax as mj
from medjax.transforms import transform as registered

SHAPE = (9, 10, 8)


def pipeline():
    return mj.Compose([mj.CropOrPad((8, 8, 8)), mj.RandomAffine(p=0.5), mj.RandomGamma(), mj.RandomNoise(p=0.5)])


def arrays(batch=None):
    subject = small_subject(np.eye(4), SHAPE)
    x, y = subject.t1.data, subject.label.data
    return (
        {"image": x, "label": y} if batch is None else {"image": np.stack([x] * batch), "label": np.stack([y] * batch)}
    )


def test_a_dict_of_arrays_is_a_subject_on_the_identity():
    t, key, x = pipeline(), jax.random.key(0), arrays()
    out = t(x, key, labels=["label"])
    subject = mj.Subject(image=mj.ScalarImage(x["image"]), label=mj.LabelMap(x["label"]))
    expected = t(subject, key)
    np.testing.assert_array_equal(out["image"], expected.image.data)
    np.testing.assert_array_equal(out["label"], expected.label.data)
    assert out["label"].dtype == np.uint8


def test_a_bare_array_and_an_image_come_back_as_what_they_are():
    t, key, x = pipeline(), jax.random.key(0), arrays()["image"]
    out = t(x, key)
    assert isinstance(out, jax.Array) and out.shape == (1, 8, 8, 8)
    image = t(mj.ScalarImage(x), key)
    assert isinstance(image, mj.ScalarImage)
    np.testing.assert_array_equal(out, image.data)


def test_a_batch_of_dicts_inside_a_jitted_training_step_and_a_scan():
    t, x = pipeline(), arrays(batch=3)

    @jax.jit
    def step(carry, key):
        out = t.batch(x, key, labels=["label"])
        return carry + out["image"].sum(), out["label"]

    keys = jax.random.split(jax.random.key(0), 2)
    _, labels = jax.lax.scan(step, jnp.float32(0), keys)
    expected = [t.batch(x, key, labels=["label"])["label"] for key in keys]
    np.testing.assert_array_equal(labels, np.stack(expected))


def test_eval_shape_and_debug_nans():
    t, subject = pipeline(), small_subject(OBLIQUE, SHAPE)
    shape = jax.eval_shape(t, subject, jax.random.key(0))
    assert shape.t1.data.shape == (1, 8, 8, 8) and shape.label.data.dtype == np.uint8
    with jax.debug_nans(True):
        t(subject, jax.random.key(0))


def test_float64_data_stay_float64_and_the_same_is_drawn():
    t, subject = (
        mj.Compose([mj.CropOrPad((8, 8, 8)), mj.RandomAffine(), mj.RandomGamma()]),
        small_subject(OBLIQUE, SHAPE),
    )
    single, params = t(subject, jax.random.key(0)), t.sample(jax.random.key(0), subject)
    with jax.enable_x64(True):
        double = subject.replace(t1=subject.t1.replace(data=subject.t1.data.astype(np.float64)))
        out, drawn = t(double, jax.random.key(0)), t.sample(jax.random.key(0), double)
    assert out.t1.data.dtype == np.float64
    np.testing.assert_allclose(out.t1.data, single.t1.data, atol=1e-4)
    for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_medjax_sets_no_global_flag():
    import subprocess
    import sys

    code = (
        "import jax; before = dict(jax.config.values); import medjax; after = dict(jax.config.values);"
        "assert before == after; from jax._src import xla_bridge; assert not xla_bridge._backends;"
        "import sys; assert not {'torch', 'matplotlib', 'SimpleITK', 'grain'} & set(sys.modules);"
        "medjax.Compose([medjax.RandomAffine(), medjax.RandomNoise()]); assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_thirty_shapes_compile_at_most_six_programs():
    draw = np.random.default_rng(0)
    t = mj.Compose([mj.ToCanonical(), mj.Resample(1.5), mj.CropOrPad((16, 16, 16))])
    subjects = [
        small_subject(OBLIQUE, tuple(int(n) for n in draw.integers((140, 200, 33), (250, 250, 60)) // 8))
        for _ in range(30)
    ]
    assert len({s.t1.shape for s in subjects}) >= 20
    with compilations() as count:
        for subject in subjects:
            t(subject)
    assert count() <= 6


def test_mixed_spacings_in_one_padded_batch_equal_each_alone():
    t = mj.Compose(
        [
            mj.Resample(1.5),
            mj.CropOrPad((12, 12, 12)),
            mj.ZNormalization(masking_method="label"),
            mj.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
            mj.RandomElasticDeformation(max_displacement=1.0, p=0.5),
            mj.RandomBiasField(p=0.5),
            mj.RandomNoise(std=(0, 0.05), p=0.5),
            mj.RandomFlip(axes=("LR",), flip_probability=0.5),
        ]
    )
    scales = (1.0, 1.3, 0.8)
    shapes = ((12, 14, 10), (10, 9, 11), (15, 13, 9))
    subjects = [
        small_subject(OBLIQUE @ np.diag([s, s, s, 1]), shape, seed=i, name=f"s{i}")
        for i, (s, shape) in enumerate(zip(scales, shapes, strict=True))
    ]
    keys = jax.random.split(jax.random.key(4), 3)
    batch = mj.stack(subjects, shape=(16, 16, 16))
    result = t.batch(batch, keys)
    assert result.t1.extent is None and result.metadata["name"] == ("s0", "s1", "s2")
    for one, subject, key in zip(mj.unstack(result), subjects, keys, strict=True):
        alone = t(subject, key)
        np.testing.assert_allclose(one.t1.data, alone.t1.data, atol=2e-5 * np.ptp(np.asarray(alone.t1.data)))
        assert (np.asarray(one.label.data) != np.asarray(alone.label.data)).mean() < 2e-3
        np.testing.assert_allclose(one.t1.affine, alone.t1.affine, atol=1e-6)


def test_gradients_through_the_gate_equal_those_of_apply():
    t, subject, key = pipeline(), small_subject(OBLIQUE, SHAPE), jax.random.key(0)

    def through(run):
        return jax.grad(lambda x: (run(subject.replace(t1=subject.t1.replace(data=x))).t1.data ** 2).sum())

    x = jnp.asarray(subject.t1.data)
    gated = jax.jit(through(lambda s: t(s, key)))(x)
    plain = jax.jit(through(lambda s: t.apply(s, t.sample(key, s))))(x)
    np.testing.assert_allclose(gated, plain, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_vmapped_pipeline_are_those_of_its_elements():
    t, batch = pipeline(), mj.stack([small_subject(OBLIQUE, SHAPE, seed) for seed in range(3)])
    keys, x = jax.random.split(jax.random.key(1), 3), jnp.asarray(batch.t1.data)

    def loss(run, x):
        return (run(batch.replace(t1=batch.t1.replace(data=x))).t1.data ** 2).sum()

    mapped = jax.jit(jax.grad(lambda x: loss(lambda b: jax.vmap(t)(b, keys), x)))(x)
    batched = jax.jit(jax.grad(lambda x: loss(lambda b: t.batch(b, keys), x)))(x)
    np.testing.assert_allclose(mapped, batched, rtol=1e-5, atol=1e-6)


def test_forward_mode_goes_through_apply_and_batch():
    t, x = pipeline(), jnp.asarray(arrays(batch=2)["image"])
    value, tangent = jax.jvp(lambda x: t.batch(x, jax.random.key(1)).sum(), (x,), (jnp.ones_like(x),))
    gradient = jax.grad(lambda x: t.batch(x, jax.random.key(1)).sum())(x)
    np.testing.assert_allclose(tangent, gradient.sum(), rtol=1e-4)
    assert np.isfinite(value)


def test_a_batch_whose_shape_hangs_on_values_says_what_to_do():
    with pytest.raises(TypeError, match="CropOrPad"):
        mj.Resample(1.3).batch(mj.stack([small_subject()] * 2))


def test_a_batch_of_patches_copies_no_volume():
    """A loop would take each volume out of the batch first."""
    t = mj.Compose([mj.RandomAffine(default_pad_value=0, p=0.5), mj.RandomCrop(8), mj.RandomGamma()])
    batch = mj.stack([small_subject(OBLIQUE, (64, 64, 64), seed) for seed in range(2)])
    program = jax.jit(lambda batch, key: t.batch(batch, key)).lower(batch, jax.random.key(0)).compile()
    assert program.memory_analysis().temp_size_in_bytes < 64**3
    keys = jax.random.split(jax.random.key(1), 2)
    for one, subject, key in zip(mj.unstack(t.batch(batch, keys)), mj.unstack(batch), keys, strict=True):
        alone = t(subject, key)
        np.testing.assert_allclose(one.t1.data, alone.t1.data, atol=1e-6)
        np.testing.assert_array_equal(one.label.data, alone.label.data)


@pytest.mark.parametrize("names", [pytest.param("ab", marks=pytest.mark.long), "ba"])
@pytest.mark.parametrize(
    "t",
    [
        mj.RandomDiffeomorphicDeformation(3, 2.0),
        mj.Compose([mj.RandomElasticDeformation(5, 1.0), mj.Flip(0, include=["a"])]),
    ],
    ids=["flow", "spline"],
)
def test_the_first_image_is_the_reference_in_a_batch_whatever_it_is_called(t, names):
    """Images on grids of their own, and points, which move as the first does."""
    size = {"a": (9, 8, 7), "b": (6, 8, 9)}
    affine = {
        "a": np.diag([1.0, 1.2, 0.9, 1]),
        "b": np.array([[0, 0, 1.1, -1], [1.3, 0, 0, 2], [0, 1, 0, 1], [0, 0, 0, 1]]),
    }
    generator = np.random.default_rng(0)
    subjects = [
        mj.Subject(
            {n: mj.ScalarImage.of(generator.normal(size=(1, *size[n])).astype(np.float32), affine[n]) for n in names},
            mark=mj.Points(np.full((1, 3), 3, np.float32)),
        )
        for _ in range(2)
    ]
    keys = jax.random.split(jax.random.key(2), 2)
    for subject, key, got in zip(subjects, keys, mj.unstack(t.batch(mj.stack(subjects), keys)), strict=True):
        want = t(subject, key)
        assert list(got.images) == list(want.images)
        for name, image in want.images.items():
            np.testing.assert_allclose(got[name].numpy(), image.numpy(), atol=1e-4)
            np.testing.assert_allclose(got[name].affine, image.affine, atol=1e-9)
        np.testing.assert_allclose(got.mark.xyz, want.mark.xyz, atol=1e-5)


def test_elements_that_differ_in_whether_a_copy_is_made_anew_have_affines_of_their_own():
    keep = {"t1": "kept"}
    t = mj.Compose([mj.Noise(keep=keep), mj.ToOrientation("LPS", exclude=["kept"]), mj.Noise(p=0.5, keep=keep)])
    subject = mj.Subject(t1=mj.ScalarImage(np.ones((1, 4, 4, 4), np.float32), np.diag([2.0, 2, 2, 1])))
    keys = jax.random.split(jax.random.key(3), 4)
    want = np.stack([t(subject, key).kept.affine for key in keys])
    assert len(np.unique(want, axis=0)) == 2
    np.testing.assert_array_equal(t.batch(mj.stack([subject] * 4), keys).kept.affine, want)


def test_what_is_measured_may_be_complex(monkeypatch):
    monkeypatch.setattr(registered, "REGISTRY", dict(registered.REGISTRY))  # it is no transform of the library

    @mj.transform
    class Spectral(mj.IntensityTransform):
        """Adds a wave's share to itself."""

        def measure(self, image, subject):
            return {"share": jnp.fft.fftn(image.data)[0, 0, 0, 1]}

        def verify(self, measured, name):
            if measured["share"] == 0:
                raise ValueError("no wave")

        def apply_to(self, image, params, measured):
            return image.replace(data=image.data + measured["share"].real)

    data = np.random.default_rng(0).normal(size=(2, 1, 4, 4, 4)).astype(np.float32)
    want = data + np.fft.fftn(data[:, 0], axes=(1, 2, 3))[:, 0, 0, 1].real[:, None, None, None, None]
    np.testing.assert_allclose(Spectral().batch(data), want, atol=1e-4)
    with pytest.raises(ValueError, match="no wave"):
        Spectral().batch(0 * data)
