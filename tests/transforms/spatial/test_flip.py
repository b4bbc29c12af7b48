"""Where Flip does better than TorchIO 1.2.1."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj

WORLD = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SLP", "IRA"])
@pytest.mark.parametrize("name", ["LR", "rl", "Left", "right", "Anterior", "P", "AP", "IS", "superior", "Inferior"])
def test_an_anatomical_flip_is_that_of_the_world_whatever_the_orientation(codes, name):
    axis = next(i for i, code in enumerate(codes) if WORLD[code] == WORLD[name[0].upper()])
    image = mj.ScalarImage(blobs((5, 7, 6))[None], oriented(codes, (1, 2, 1.5), (30, -400, 70)))
    got = mj.Flip(name)(image)
    np.testing.assert_array_equal(got.numpy(), np.flip(image.numpy(), axis + 1))
    np.testing.assert_allclose(got.affine, image.affine, atol=1e-9)


@pytest.mark.parametrize("axes, want", [
    ((0, "AP"), (0, 1)), (("Superior", 0), (0, 2)), ("Width", (0,)), (("height", "Depth"), (1, 2)), (np.int64(2), (2,)),
    (["LR", "AP", "IS"], (0, 1, 2)),
])  # fmt: skip
def test_w21_indices_and_names_may_be_mixed(axes, want):
    data = blobs((5, 7, 6))[None]
    np.testing.assert_array_equal(mj.Flip(axes)(data), np.flip(data, [a + 1 for a in want]))


def test_the_same_axis_by_two_names_is_flipped_twice():
    data = blobs((5, 7, 6))[None]
    np.testing.assert_array_equal(mj.Flip((0, "LR"))(data), data)


def test_an_oblique_image_is_flipped_along_its_closest_axis():
    image = mj.ScalarImage(blobs((5, 7, 6))[None], OBLIQUE)
    for name, axis in (("LR", 1), ("AP", 2), ("IS", 3)):
        np.testing.assert_array_equal(mj.Flip(name)(image).numpy(), np.flip(image.numpy(), axis))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.bool_])
def test_it_is_exact_its_own_inverse_and_keeps_dtypes(dtype):
    data = (blobs() * 99).astype(dtype)[None]
    subject = mj.Subject(t1=mj.ScalarImage(data, OBLIQUE), label=mj.LabelMap(data, OBLIQUE))
    t = mj.Flip((0, "AP"))
    once = t(subject)
    for name in ("t1", "label"):
        assert once[name].dtype == dtype
        np.testing.assert_array_equal(t(once)[name].numpy(), data)
        np.testing.assert_allclose(once[name].affine, OBLIQUE, atol=1e-9)


def test_images_on_other_grids_are_mirrored_in_the_world_with_the_first():
    """The mirror is that of the first image; a voxel of any other goes to the mirror image of its place."""
    other = oriented("PIR", (1.5, 1.2, 2.0), (4, 25, 3))
    subject = small_subject(np.eye(4)).replace(t2=mj.ScalarImage(blobs((12, 9, 14), 1)[None], other))
    got = mj.Flip("LR")(subject).t2
    np.testing.assert_array_equal(got.numpy(), subject.t2.numpy()[..., ::-1])
    corner, mirrored = (other @ [0, 0, 0, 1])[:3], (got.affine @ [0, 0, 13, 1])[:3]
    np.testing.assert_allclose(mirrored, [22 - corner[0], *corner[1:]], atol=1e-9)


def test_each_axis_has_its_own_coin():
    t = mj.RandomFlip((0, "AP", "IS"))
    keys, image = jax.random.split(jax.random.key(0), 200), small_subject().t1
    flips = np.asarray(jax.jit(jax.vmap(lambda key: t.sample(key, image)["draw"]["flip"]))(keys))
    assert len(np.unique(flips, axis=0)) == 8


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_a_certain_coin(probability):
    data = blobs()[None]
    got = mj.RandomFlip(1, flip_probability=probability)(data, jax.random.key(0))
    np.testing.assert_array_equal(got, data[:, :, ::-1] if probability else data)


@pytest.mark.parametrize("axes", [3, -1, "Lft", (0, 0), (), (1, "Heigth")])
def test_axes_that_make_no_sense_are_refused(axes):
    with pytest.raises(ValueError, match="axes"):
        mj.Flip(axes)
