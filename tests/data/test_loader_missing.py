"""Batches of subjects that do not all have the same images."""

import jax
import numpy as np
import pytest
from conftest import compilations, small_subject

import medjax as mj
from medjax import keys

KEY = jax.random.key(7)
NAMES = [("t1", "label"), ("t1", "label"), ("flair", "t1", "label"), ("flair", "label"), ("t1",), ("flair", "t1")]
SHAPES = [(10, 9, 8), (12, 8, 9), (9, 9, 9), (8, 10, 11), (10, 10, 10), (11, 9, 8)]
AUGMENT = mj.Compose([mj.CropOrPad((9, 8, 7)), mj.RandomFlip(axes=(0, 1)), mj.ZNormalization(), mj.RandomGamma()])


def subjects(shapes=SHAPES):
    made = []
    for number, (names, shape) in enumerate(zip(NAMES, shapes)):
        whole = small_subject(shape=shape, seed=number)
        whole = whole.replace(flair=mj.ScalarImage(2 - whole.t1.numpy(), whole.t1.affine))
        made.append(mj.Subject({name: whole[name] for name in names}, number=number))
    return made


@pytest.mark.parametrize("shapes", [SHAPES, [(10, 9, 8)] * 6], ids=["padded", "of one shape"])
def test_each_subject_is_what_it_is_alone_and_the_rest_is_said_to_be_missing(shapes):
    dataset = mj.SubjectsDataset(subjects(shapes), AUGMENT)
    loader = mj.loader(dataset, 2, KEY, shuffle=False, missing="zeros")
    for batch in loader:
        assert list(batch.images) == ["flair", "t1", "label"]
        for i, number in enumerate(batch.number):
            alone = dataset.get(number, keys.for_element(KEY, 0, number))
            for name in batch.images:
                assert bool(batch.present[name][i]) == (name in NAMES[number])
                if name in alone.images:
                    np.testing.assert_allclose(batch[name].numpy()[i], alone[name].numpy(), atol=1e-4)
                    np.testing.assert_allclose(batch[name].affine[i], alone[name].affine, atol=1e-9)


def test_whatever_is_missing_it_is_one_program():
    """The first batch has no flair at all."""
    batches = iter(
        mj.loader(mj.SubjectsDataset(subjects([(10, 9, 8)] * 6), AUGMENT), 2, KEY, shuffle=False, missing="zeros")
    )
    step = jax.jit(lambda batch: batch.flair.data.sum() + batch.present["flair"].sum(dtype=np.int32).astype(np.float32))
    step(next(batches))
    with compilations() as count:
        for batch in batches:
            step(batch)
    assert count() == 0


def test_without_a_transform_and_without_the_option():
    dataset = mj.SubjectsDataset(subjects([(10, 9, 8)] * 6))
    batch = next(iter(mj.loader(dataset, 4, None, shuffle=False, missing="zeros")))
    np.testing.assert_array_equal(batch.present["flair"], [False, False, True, True])
    with pytest.raises(ValueError, match="differ in their images .*missing='zeros'"):
        next(iter(mj.loader(dataset, 4, None, shuffle=False)))
    with pytest.raises(ValueError, match="missing='ones' is not one of 'zeros'"):
        mj.loader(dataset, 4, None, shuffle=False, missing="ones")
