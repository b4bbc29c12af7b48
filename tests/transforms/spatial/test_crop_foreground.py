"""CropForeground: the box of what is bright, as MONAI cuts it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject
from monai.transforms import CropForeground

import medjax as mj

SHAPE = (23, 31, 18)


def lesion(low=(4, 7, 3), high=(9, 20, 8), seed=0):
    """A subject that is dark but for a box."""
    subject = small_subject(seed=seed)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    data = 0.4 * subject.t1.numpy() - 1
    data[0][box] += 2
    return subject.replace(t1=subject.t1.replace(data=data))


@pytest.mark.parametrize("margin", [0, 2, 5])
def test_the_box_is_monais(margin):
    subject = lesion()
    theirs = CropForeground(select_fn=lambda x: x > 0.5, margin=margin, allow_smaller=True)
    want = np.asarray(theirs(subject.t1.numpy()))
    first = np.maximum(np.array((4, 7, 3)) - margin, 0)
    got = mj.CropForeground(0.5, margin=margin)(subject)
    np.testing.assert_array_equal(got.t1.numpy(), want)
    np.testing.assert_allclose(got.label.affine[:3, 3], (OBLIQUE @ [*first, 1])[:3], atol=1e-9)
    assert got.label.shape == got.t1.shape and got.label.dtype == np.uint8


def test_a_function_says_what_is_in_the_foreground():
    got = mj.CropForeground(function=lambda x: x > x.max() - 1)(lesion())
    np.testing.assert_array_equal(got.t1.numpy(), mj.CropForeground(0.5)(lesion()).t1.numpy())
    padded = mj.stack([lesion()], shape=(24, 32, 24))
    with pytest.raises(TypeError, match="padding"):
        mj.CropForeground(function=jnp.isfinite, target_shape=8).batch(padded)


def test_of_a_label_map_it_is_the_box_that_crop_or_pad_cuts():
    subject = small_subject()
    for more in ({}, {"target_shape": (9, 40, 11)}):
        got = mj.CropForeground(0, image_name="label", **more)(subject)
        want = mj.CropOrPad(mask_name="label", **more)(subject)
        np.testing.assert_array_equal(got.t1.numpy(), want.t1.numpy())
        np.testing.assert_array_equal(got.label.affine, want.label.affine)


def test_a_fixed_shape_compiles_once_for_all_places_and_the_box_does_not_compile():
    t, moved = mj.CropForeground(0.5, target_shape=(8, 16, 8)), lesion((9, 2, 6), (12, 9, 14), 1)
    one = jax.jit(t)(lesion())
    np.testing.assert_array_equal(one.t1.data, t(lesion()).t1.numpy())
    batch = t.batch(mj.stack([lesion(), moved]))
    with compilations() as count:
        t(moved)
    assert count() == 0
    for got, subject in zip(mj.unstack(batch), (lesion(), moved)):
        np.testing.assert_array_equal(got.t1.numpy(), t(subject).t1.numpy())
    with pytest.raises(TypeError, match="hangs on|depends on values"):
        jax.jit(mj.CropForeground(0.5))(lesion())


def test_whole_numbers_are_compared_with_any_threshold():
    data = np.full((1, 5, 6, 7), -1, np.int16)
    data[0, 1:3, 2:5, 3] = 0
    for threshold in (-0.5, -1):
        np.testing.assert_array_equal(
            mj.CropForeground(threshold)(mj.ScalarImage(data)).numpy(), np.zeros((1, 2, 3, 1))
        )


def test_it_sees_what_the_steps_before_it_have_made():
    t = mj.Compose([mj.Flip(axes=(0,)), mj.CropForeground(0.5)])
    want = mj.Flip(axes=(0,))(lesion()).t1.numpy()[:, 14:19, 7:20, 3:8]
    np.testing.assert_array_equal(t(lesion()).t1.numpy(), want)


def test_padding_is_no_foreground():
    subjects = [lesion(), lesion((9, 2, 6), (12, 9, 14), 1)]
    t = mj.CropForeground(-2, target_shape=(9, 9, 9))
    batch = t.batch(mj.stack(subjects, shape=(24, 32, 24)))
    for got, subject in zip(mj.unstack(batch), subjects):
        np.testing.assert_array_equal(got.t1.numpy(), t(subject).t1.numpy())


def test_what_was_cut_off_comes_back_as_0():
    subject, t = lesion(), mj.CropForeground(0.5)
    back = t.invert(t(subject), t.sample(None, subject), like=subject)
    inside = np.zeros(SHAPE, bool)
    inside[4:9, 7:20, 3:8] = True
    np.testing.assert_array_equal(back.t1.numpy(), np.where(inside, subject.t1.numpy(), 0))


@pytest.mark.parametrize("arguments, message", [
    ({}, "give threshold or function"), ({"threshold": 0, "function": jnp.isfinite}, "give threshold or function"),
    ({"threshold": 0, "margin": 1, "target_shape": 8}, "give one of them"), ({"threshold": 0, "margin": -1}, "margin"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.CropForeground(**arguments)


def test_nothing_bright_and_no_such_image_are_errors():
    with pytest.raises(ValueError, match="no foreground"):
        mj.CropForeground(5)(lesion())
    with pytest.raises(ValueError, match="'t2' is no image of the subject, which has t1, label"):
        mj.CropForeground(0, image_name="t2")(lesion())
