"""Images that some subjects of a batch lack."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject

import medjax as mj

SHAPE = (9, 10, 8)
FAR = OBLIQUE + 50 * np.eye(4, k=3)
FAR[1:, 3] = OBLIQUE[1:, 3]


def subject_of(names, seed=0, shape=SHAPE, affine=OBLIQUE, **more):
    """A subject with these of t1, flair (two channels, int16) and label."""
    whole = small_subject(affine, shape, seed)
    flair = np.concatenate([whole.t1.numpy() * 100] * 2).astype(np.int16)
    whole = whole.replace(flair=mj.ScalarImage(flair, affine))
    return mj.Subject({name: whole[name] for name in names}, **more)


def some():
    return [
        subject_of(["t1", "label"], 0, age=40),
        subject_of(["t1", "flair", "label"], 1, age=41),
        subject_of(["flair", "label"], 2, affine=FAR, age=42),
    ]


def test_what_a_subject_lacks_is_zeros_on_its_own_grid_and_present_says_so():
    subjects = some()
    batch = mj.stack(subjects, missing="zeros")
    assert list(batch.images) == ["t1", "flair", "label"] and batch.age == (40, 41, 42)
    assert batch.flair.shape == (3, 2, *SHAPE) and batch.flair.dtype == np.int16
    for name, has in {"t1": [1, 1, 0], "flair": [0, 1, 1], "label": [1, 1, 1]}.items():
        np.testing.assert_array_equal(batch.present[name], np.array(has, bool))
        for i, subject in enumerate(subjects):
            want = subject[name].numpy() if has[i] else 0
            np.testing.assert_array_equal(batch[name].numpy()[i], np.broadcast_to(want, batch[name].shape[1:]))
            np.testing.assert_array_equal(batch[name].affine[i], (OBLIQUE, OBLIQUE, FAR)[i])


def test_a_missing_image_of_another_shape_lies_where_that_of_the_first_that_has_it_does():
    coarse = mj.ScalarImage(np.ones((1, 4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1]))
    one, other = subject_of(["t1"], t2=None), subject_of(["t1"], affine=FAR, t2=coarse)
    batch = mj.stack([one, other], missing="zeros")
    np.testing.assert_array_equal(batch.t2.affine, np.stack([coarse.affine] * 2))
    np.testing.assert_array_equal(batch.present["t2"], [False, True])


def test_padded_images_of_a_subject_share_its_grid():
    batch = mj.stack([subject_of(["t1", "flair"]), subject_of(["t1"], shape=(7, 11, 5))], shape=12, missing="zeros")
    np.testing.assert_array_equal(batch.flair.extent, batch.t1.extent)
    result = mj.CropOrPad(6).batch(batch)
    assert result.flair.shape == (2, 2, 6, 6, 6) and not result.flair.numpy()[1].any()


def test_one_program_serves_all_that_may_be_missing():
    @jax.jit
    def loss(batch):
        return (
            batch.flair.data.astype(np.float32).mean((1, 2, 3, 4)) * batch.present["flair"].astype(np.float32)
        ).sum()

    subjects = some()
    loss(mj.stack(subjects, missing="zeros"))
    with compilations() as count:
        loss(mj.stack([subjects[1], subjects[0], subjects[0]], missing="zeros"))
    assert count() == 0


def test_it_comes_through_transforms_vmap_unstack_and_pickle():
    batch = mj.stack(some(), missing="zeros")
    t, keys = (
        mj.Compose([mj.RandomFlip(), mj.RandomAffine(), mj.ZNormalization()]),
        jax.random.split(jax.random.key(0), 3),
    )
    for result in (t.batch(batch, keys), jax.jit(jax.vmap(t))(batch, keys), pickle.loads(pickle.dumps(batch))):
        for name in batch.images:
            np.testing.assert_array_equal(result.present[name], batch.present[name])
    alone = [t(one, k) for one, k in zip(mj.unstack(batch), keys)]
    for one, other in zip(mj.unstack(t.batch(batch, keys)), alone):
        assert dict(one.present) == dict(other.present)
        for name in batch.images:
            np.testing.assert_allclose(one[name].numpy(), other[name].numpy(), atol=1e-4)
    again = mj.stack([*mj.unstack(batch), subject_of(["t1"])], missing="zeros")
    np.testing.assert_array_equal(again.present["flair"], [False, True, True, False])
    np.testing.assert_array_equal(mj.stack(mj.unstack(batch)).present["t1"], batch.present["t1"])


def test_an_image_of_one_value_that_is_there_still_cannot_be_normalised():
    flat = subject_of(["t1"])
    flat = flat.replace(t1=flat.t1.replace(data=np.zeros_like(flat.t1.data)))
    with pytest.raises(ValueError, match="voxels of t1 are all equal"):
        mj.ZNormalization().batch(mj.stack([flat, subject_of(["t1", "flair"])], missing="zeros"))


@pytest.mark.parametrize("t", [mj.MixUp(1.0, p=1), mj.CutMix()], ids=lambda t: type(t).__name__)
def test_nothing_is_given_between_subjects_that_have_other_images(t):
    subjects = [s.replace(label=mj.OneHot(4)(s.label)) for s in some()]
    batch = mj.stack([subjects[0], subjects[1], subjects[1]], missing="zeros")
    drawn = jax.vmap(lambda key: t.sample(key, batch))(jax.random.split(jax.random.key(0), 50))
    partner = np.asarray(drawn["partner"])
    np.testing.assert_array_equal(drawn["on"], (partner == 0) == (np.arange(3) == 0))


def test_without_the_option_it_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"subjects 0 and 1 differ in their images .*missing='zeros'"):
        mj.stack(some())
    with pytest.raises(ValueError, match="missing='mean' is not one of 'zeros'"):
        mj.stack(some(), missing="mean")
    with pytest.raises(ValueError, match="'present' is to say which images are there, but subject 1"):
        mj.stack([subject_of(["t1"]), subject_of(["t1"], present=3)], missing="zeros")


def test_stacking_traced_subjects_is_the_same():
    subjects = [subject_of(["t1"]), subject_of(["t1", "flair"], 1)]
    got = jax.jit(lambda subjects: mj.stack(subjects, missing="zeros"))(subjects)
    want = mj.stack(subjects, missing="zeros")
    for name in want.images:
        np.testing.assert_array_equal(got[name].data, want[name].data)
        np.testing.assert_array_equal(got.present[name], want.present[name])
    assert jnp.issubdtype(got.present["t1"].dtype, np.bool_)
