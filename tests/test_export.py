"""Exported programs of which the batch and the shape stay open: written, read and called as the pipeline is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, blobs
from jax import export

import medjax as mj

pytest.importorskip("flatbuffers", reason="the extra `export` writes programs")

BOUNDS = [bound for axis in "ijk" for bound in (f"{axis} >= 12", f"{axis} <= 512")]
PIPELINES = {
    "the guide": mj.Compose(
        [
            mj.Resample(1.5),
            mj.CropOrPad((12, 10, 11)),
            mj.ZNormalization(masking_method="label"),
            mj.RandomAffine(degrees=10, p=0.75),
            mj.RandomElasticDeformation(max_displacement=1.0, p=0.5),
            mj.RandomBiasField(p=0.5),
            mj.RandomNoise(p=0.5),
            mj.RandomFlip(axes=("LR",)),
        ]
    ),
    "of any shape": mj.Compose(
        [mj.RandomAffine(degrees=10), mj.RandomFlip(axes=(0,)), mj.RandomBlur(), mj.RandomGamma()]
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_program_of_open_batch_and_shape_does_what_the_pipeline_does(name):
    pipeline = PIPELINES[name]

    def one(data, label, affine, key):
        subject = mj.Subject(t1=mj.ScalarImage.of(data, affine), label=mj.LabelMap.of(label, affine))
        result = pipeline(subject, jax.random.wrap_key_data(key))
        return result.t1.data, result.label.data, result.t1.affine

    scope = export.SymbolicScope(BOUNDS)
    arguments = [
        jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype)
        for shape, dtype in (
            ("b, 1, i, j, k", jnp.float32),
            ("b, 1, i, j, k", jnp.uint8),
            ("b, 4, 4", jnp.float32),
            ("b, 2", jnp.uint32),
        )
    ]
    platforms = ["cpu", "cuda", "tpu"]
    program = export.export(jax.jit(jax.vmap(one)), platforms=platforms)(*arguments)
    again = export.deserialize(program.serialize())
    assert again.platforms == tuple(platforms)
    for size, shape in ((1, (14, 17, 12)), (2, (20, 12, 13))):
        data = np.stack([blobs(shape, seed)[None] for seed in range(size)])
        label = (data > 0.5).astype(np.uint8)
        keys = jax.random.split(jax.random.key(size), size)
        got = again.call(data, label, np.tile(OBLIQUE.astype(np.float32), (size, 1, 1)), jax.random.key_data(keys))
        for n in range(size):
            subject = mj.Subject(t1=mj.ScalarImage(data[n], OBLIQUE), label=mj.LabelMap(label[n], OBLIQUE))
            want = pipeline(subject, keys[n])
            np.testing.assert_allclose(got[0][n], want.t1.data, atol=1e-3)
            assert (np.asarray(got[1][n]) != want.label.numpy()).mean() < 1e-3
            np.testing.assert_allclose(got[2][n], want.t1.affine, atol=1e-3)


SIZED = {
    "RandomSpike": "JAX has no Fourier transform of open length on a card",
    "RandomSwap": "whether a patch fits must be known: a lower bound above its size is enough",
    "RandomCoarseDropout": "the same of its cuboid",
    "RescaleIntensity": "how many voxels there are decides how quantiles are found",
    "RandomRotate90": "its axes must have one size",
}
"""What keeps the shape open only under conditions."""
OPEN = [
    "RandomAffine",
    "RandomElasticDeformation",
    "RandomDiffeomorphicDeformation",
    "RandomFlip",
    "RandomBlur",
    "RandomGamma",
    "RandomNoise",
    "RandomBiasField",
    "RandomBSplineBiasField",
    "RandomMotion",
    "RandomGhosting",
    "RandomGibbs",
    "RandomAnisotropy",
    "RandomAcquisition",
    "RandomLowResolution",
    "RandomBrightnessGradient",
    "RandomLocalGamma",
    "RandomBrightness",
    "RandomContrast",
    "RandomSharpen",
    "RandomMedian",
    "ZNormalization",
    "RandomVoxelAffine",
]


def lowered(name, bounds=BOUNDS):
    def one(data, key):
        return getattr(mj, name)()(data, jax.random.wrap_key_data(key))

    scope = export.SymbolicScope(bounds)
    shapes = [export.symbolic_shape(shape, scope=scope) for shape in ("b, 1, i, j, k", "b, 2")]
    arguments = [jax.ShapeDtypeStruct(s, d) for s, d in zip(shapes, (jnp.float32, jnp.uint32), strict=True)]
    return export.export(jax.jit(jax.vmap(one)), platforms=["cpu", "cuda", "tpu"])(*arguments)


@pytest.mark.long
@pytest.mark.parametrize("name", OPEN)
def test_a_transform_is_lowered_with_its_shape_open(name):
    program = lowered(name)
    assert [str(n) for n in program.out_avals[0].shape] == ["b", "1", "i", "j", "k"]


@pytest.mark.long
@pytest.mark.parametrize("name", SIZED)
def test_what_needs_to_know_its_shape_still_does(name):
    with pytest.raises((TypeError, ValueError, NotImplementedError)):
        lowered(name)
