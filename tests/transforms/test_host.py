"""What is done around a compiled program: one program serves whatever was drawn."""

import jax
import numpy as np
import pytest

import medjax as mj
from tests.conftest import OBLIQUE, compilations, small_subject

PIPELINES = {
    "coins in several runs": lambda p, x: mj.Compose(
        [
            mj.RandomFlip((0, 1, 2), flip_probability=p),
            mj.RandomNoise(std=(0, 0.1 * x), p=p),
            mj.RandomAffine(0.1 * x, p=p),
            mj.RandomGamma(p=p),
            mj.RandomElasticDeformation(num_control_points=5, max_displacement=x, p=p),
            mj.Clamp(-3 * x, 3 * x),
        ]
    ),
    "choices": lambda p, x: mj.Compose(
        [
            mj.OneOf([mj.RandomFlip(0), mj.RandomAffine(0.2 * x, p=p), mj.RandomNoise(p=p)]),
            mj.RandomBlur((0, x)),
            mj.SomeOf([mj.RandomAffine(degrees=5 * x), mj.Flip(2), mj.RandomGamma(0.1 * x)], num=(0, 2)),
        ]
    ),
    "a turned grid": lambda p, x: mj.Compose(
        [mj.ToCanonical(), mj.RandomNoise(std=x, p=p), mj.CropOrPad((9, 8, 7)), mj.RandomFlip(0, p=p)]
    ),
}
"""p and a strength to a pipeline; the structure is the same for all."""


@pytest.mark.parametrize("name", PIPELINES)
def test_neither_coins_nor_strengths_nor_metadata_nor_affines_compile(name):
    make, seen = PIPELINES[name], set()
    make(0.5, 0.3)(small_subject(shape=(11, 9, 8)), jax.random.key(0))
    with compilations() as count:
        for seed in range(1, 24):
            subject = small_subject(shape=(11, 9, 8))
            affine = OBLIQUE if name != "a turned grid" and seed % 3 == 0 else np.diag([1.0, 1.1, 0.9, 1])
            images = {n: i.replace(affine=affine, metadata={"seed": seed}) for n, i in subject.images.items()}
            pipeline, key = make(0.4 + 0.01 * seed, 0.3 + 0.01 * seed), jax.random.key(seed)
            result = pipeline(subject.replace(**images), key)
            seen.add(
                str(jax.tree.map(bool, jax.tree.leaves([p["on"] for p in pipeline.sample(key, subject)["members"]])))
            )
            assert result.t1.metadata["seed"] == seed
    assert count() == 0
    assert len(seen) > 1 or name == "choices"  # coins fell in different ways
