"""Lambda calls a function of the user's on the kinds of images that it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, compilations, small_subject

import medjax as mj


def negative(x):
    return 1 - x


def doubled(x):
    return 2 * x


def halved(x):
    return x / 2


def small(s):
    return s.replace(label=s.label.replace(data=(s.label.numpy() > 0).astype(np.uint8)))


@pytest.mark.parametrize("types, scalars, labels", [
    (None, True, True), (["intensity"], True, False), (["label"], False, True), (("label", "intensity"), True, True),
    ([mj.ScalarImage], True, False), ([mj.LabelMap], False, True),
])  # fmt: skip
def test_it_is_for_the_kinds_that_are_named(types, scalars, labels):
    s = small(small_subject())
    t = mj.Lambda(negative, types)
    for got in (
        t(s),
        jax.jit(t)(s),
        mj.unstack(t.batch(mj.stack([s, s])))[1],
        t.apply(s, t.sample(jax.random.key(0), s)),
    ):
        want = {"t1": negative(s.t1.numpy()) if scalars else s.t1.numpy(),
                "label": negative(s.label.numpy()) if labels else s.label.numpy()}  # fmt: skip
        for name in want:
            np.testing.assert_array_equal(got[name].numpy(), want[name])
            assert got[name].numpy().dtype == s[name].numpy().dtype


def test_include_and_p_hold_as_everywhere():
    s = small(small_subject())
    got = mj.Lambda(negative, include=["label"])(s)
    np.testing.assert_array_equal(got.t1.numpy(), s.t1.numpy())
    np.testing.assert_array_equal(got.label.numpy(), negative(s.label.numpy()))
    seen = {np.array_equal(mj.Lambda(negative, p=0.5)(s, jax.random.key(i)).t1.numpy(), s.t1.numpy()) for i in range(9)}
    assert seen == {True, False}


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_scalar_images_are_float32_label_maps_what_they_are(dtype):
    seen = {}

    def look(x):
        seen[x.shape[0]] = x.dtype
        return x > 0

    s = mj.Subject(
        t1=mj.ScalarImage((blobs() * 9).astype(dtype)[None]), label=mj.LabelMap(np.ones((2, 23, 31, 18), np.int16))
    )
    got = mj.Lambda(look)(s)
    assert seen == {1: jnp.float32, 2: jnp.int16}
    assert got.t1.dtype == np.float32 and got.label.dtype == np.int16


def test_the_inverse_is_a_function_too():
    s = small_subject()
    t = mj.Compose([mj.Lambda(doubled, ["intensity"], inverse=halved), mj.Flip("LR")])
    params = t.sample(jax.random.key(0), s)
    back = t.invert(t(s), params, like=s)
    np.testing.assert_allclose(back.t1.numpy(), s.t1.numpy(), atol=1e-6)
    t = mj.Lambda(doubled)
    np.testing.assert_array_equal(t.invert(s, t.sample(jax.random.key(0), s), like=s).t1.numpy(), s.t1.numpy())


def test_a_configuration_holds_functions_that_can_be_imported():
    t = mj.Lambda(doubled, [mj.ScalarImage], inverse=halved)
    named = {f"{__name__}:{f.__name__}": f for f in (doubled, halved)}
    again = mj.from_config(mj.to_config(t), functions=named)
    assert again.function is doubled and again.inverse is halved and again.types_to_apply == ("intensity",)
    assert mj.to_config(mj.Lambda(jnp.tanh))["function"] == {"function": "jax.numpy:tanh"}
    with pytest.raises(ValueError, match="is not found by module and name"):
        mj.to_config(mj.Lambda(lambda x: x))


def test_gradients_pass_and_nothing_is_compiled_twice():
    s = small_subject()
    slope = jax.grad(lambda x: mj.Lambda(jnp.square)(x).sum())(jnp.asarray(s.t1.data))
    np.testing.assert_allclose(slope, 2 * s.t1.numpy(), rtol=1e-6)
    mj.Lambda(doubled)(s)
    with compilations() as count:
        mj.Lambda(doubled)(small_subject(seed=1))
    assert count() == 0


@pytest.mark.parametrize("function, error, message", [
    (lambda x: x[0], ValueError, r"gave shape \(23, 31, 18\) for an image of shape \(1, 23, 31, 18\)"),
    (lambda x: x.mean(), ValueError, r"gave shape \(\) for"),
    (lambda x: jnp.concatenate([x, x]), ValueError, r"gave shape \(2, 23, 31, 18\)"),
    (lambda x: x.astype(jnp.float32) / 2, TypeError, "gave float32 for a label map of uint8"),
])  # fmt: skip
def test_results_that_make_no_sense_are_errors(function, error, message):
    with pytest.raises(error, match=message):
        mj.Lambda(function)(small_subject())


@pytest.mark.parametrize("arguments, error, message", [
    (("tanh",), TypeError, "function must be a function"), ((doubled, "label"), TypeError, "types_to_apply must be a sequence"),
    ((doubled, ["labels"]), ValueError, "each of types_to_apply='labels'"), ((doubled, []), ValueError, "types_to_apply"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        mj.Lambda(*arguments)


def test_padding_is_not_shown_to_a_function():
    subjects = [mj.Subject(t1=mj.ScalarImage(blobs(shape)[None], OBLIQUE)) for shape in ((9, 12, 10), (12, 9, 8))]
    with pytest.raises(TypeError, match="would see the padding"):
        mj.Lambda(doubled).batch(mj.stack(subjects, shape=(12, 12, 12)))
