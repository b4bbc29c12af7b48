"""CopyPaste against SciPy in float64."""

import jax
import numpy as np
import pytest
from conftest import small_subject
from scipy import ndimage

import medjax as mj

KEY = jax.random.key(2)
SHAPE = (13, 14, 12)


def batch_of(size=4):
    """Subjects with lesions 3 in tissue 1, and a brain that is not everywhere."""
    subjects = []
    for i in range(size):
        subject = small_subject(shape=SHAPE, seed=i)
        brain = ndimage.binary_dilation(subject.label.numpy()[0] > 0, iterations=2)[None].astype(np.uint8)
        subjects.append(subject.replace(brain=subject.label.replace(data=brain)))
    return mj.stack(subjects)


def reference(batch, drawn, labels, rim, mask):
    """What is pasted, in float64, one element after the other."""
    t1, label, brain = (np.asarray(batch[name].data) for name in ("t1", "label", "brain"))
    images, maps, weights = t1.astype(float), label.copy(), np.zeros(t1.shape)
    for i, j in enumerate(drawn["partner"]):
        if not drawn["on"][i]:
            continue
        allowed = (brain[i, 0] != 0) if mask else np.ones(SHAPE, bool)
        pasted = np.isin(label[j, 0], labels) & allowed
        above, below = pasted.astype(float), allowed.astype(float)
        if rim:
            kernel = np.exp(-2 * (np.arange(-rim, rim + 1) / rim) ** 2)
            for axis in range(3):
                above, below = (ndimage.correlate1d(x, kernel, axis, mode="constant") for x in (above, below))
        weights[i, 0] = np.where(allowed, above / np.where(allowed, below, 1), 0)
        images[i] += weights[i] * (t1[j].astype(float) - images[i])
        maps[i, 0][pasted] = label[j, 0][pasted]
    return images, maps, weights


@pytest.mark.parametrize("rim", [0, 1, 3])
@pytest.mark.parametrize("mask_name", [None, "brain"])
def test_images_are_blended_and_labels_pasted(rim, mask_name):
    batch = batch_of()
    t = mj.CopyPaste("label", labels=(3,), mask_name=mask_name, rim=rim, p=0.7)
    drawn = jax.device_get(t.sample(KEY, batch))
    images, maps, weights = reference(batch, drawn, (3,), rim, mask_name)
    got = t.batch(batch, KEY)
    np.testing.assert_array_equal(got.label.numpy(), maps)
    np.testing.assert_allclose(got.t1.numpy(), images, atol=1e-6)
    np.testing.assert_array_equal(got.t1.numpy()[weights == 0], batch.t1.numpy()[weights == 0])
    np.testing.assert_array_equal(got.brain.numpy(), batch.brain.numpy())
    assert got.label.dtype == np.uint8 and got.t1.dtype == np.float32 and (maps != batch.label.numpy()).any()


def test_beyond_the_rim_nothing_is_changed_and_inside_all_is_the_partners():
    batch, rim = batch_of(), 2
    drawn = jax.device_get(mj.CopyPaste(labels=(1, 3), rim=rim).sample(KEY, batch))
    got = mj.CopyPaste(labels=(1, 3), rim=rim).batch(batch, KEY).t1.numpy()
    for i, j in enumerate(drawn["partner"]):
        pasted = batch.label.numpy()[j, 0] != 0
        cube = np.ones((2 * rim + 1,) * 3)
        near, deep = (
            f(pasted, cube, border_value=v) for f, v in ((ndimage.binary_dilation, 0), (ndimage.binary_erosion, 1))
        )
        assert deep.any()
        np.testing.assert_array_equal(got[i, 0][~near], batch.t1.numpy()[i, 0][~near])
        np.testing.assert_array_equal(got[i, 0][deep], batch.t1.numpy()[j, 0][deep])


def test_labels_that_nobody_has_paste_nothing():
    batch = batch_of()
    got = mj.CopyPaste(labels=(7, 300)).batch(batch, KEY)
    for name, image in batch.images.items():
        np.testing.assert_array_equal(got[name].numpy(), image.numpy())


@pytest.mark.parametrize("arguments, message", [
    ({"label_name": "t1"}, "label_name='t1' is no label map of one channel"),
    ({"mask_name": "liver"}, "mask_name='liver' is no label map of one channel.*brain"),
])  # fmt: skip
def test_label_maps_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.CopyPaste(**arguments).batch(batch_of(2), KEY)


@pytest.mark.parametrize("arguments", [{"labels": ()}, {"labels": (0, 1)}, {"rim": -1}, {"rim": 1.5}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.CopyPaste(**arguments)
