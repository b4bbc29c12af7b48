"""Images of label maps: the intensities of every class, partial volumes, and the label map left alone."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject
from scipy.stats import kstest

import medjax as mj

KEY = jax.random.key(3)


def test_each_label_has_its_own_mean_and_std():
    labels = np.random.default_rng(0).choice([0, 2, 5, 9], (1, 40, 41, 42)).astype(np.int16)
    subject = mj.Subject(label=mj.LabelMap(labels, OBLIQUE), age=3)
    result = mj.LabelsToImage(mean=(10, -4, 2), std=(1, 0.5, 0), used_labels=(5, 2, 0))(subject)
    image = result.image_from_labels
    assert isinstance(image, mj.ScalarImage) and image.dtype == np.float32 and result.age == 3
    np.testing.assert_array_equal(image.affine, OBLIQUE)
    np.testing.assert_array_equal(result.label.numpy(), labels)
    data = image.numpy()
    for label, mean, std in ((5, 10, 1), (2, -4, 0.5)):
        assert kstest((data[labels == label] - mean) / std, "norm").pvalue > 1e-3
    assert (data[labels == 0] == 2).all() and (data[labels == 9] == 0).all()


def test_partial_volumes_weight_the_classes():
    rng = np.random.default_rng(1)
    share = rng.dirichlet((1, 1, 1), (10, 11, 12)).transpose(3, 0, 1, 2).astype(np.float32)
    subject = mj.Subject(pv=mj.LabelMap(share))
    result = mj.LabelsToImage("pv", mean=(1, 5), std=(0, 0), used_labels=(0, 2), image_key="t1")(subject)
    np.testing.assert_allclose(result.t1.numpy()[0], share[0] + 5 * share[2], rtol=1e-5)


def test_w38_labels_may_have_any_value_and_replay_is_exact():
    """TorchIO 1.2.1 takes the mean at the position of the label's value, and draws its noise anew at each replay."""
    subject = small_subject()
    t = mj.RandomLabelsToImage(used_labels=(0, 1, 3), mean=[(0, 1), 5, (7, 8)], std=[0, 0, 0])
    params = t.sample(KEY, subject)
    one, other = t.apply(subject, params), t(subject, KEY)
    np.testing.assert_array_equal(one.image_from_labels.numpy(), other.image_from_labels.numpy())
    values = [np.unique(other.image_from_labels.numpy()[subject.label.numpy() == label]) for label in (0, 1, 3)]
    assert all(v.size == 1 for v in values) and 0 <= values[0] <= 1 and values[1] == 5 and 7 <= values[2] <= 8


def test_means_and_stds_are_uniform():
    subject = small_subject()
    t = mj.RandomLabelsToImage(used_labels=(1, 3), default_mean=(2, 4))
    drawn = jax.jit(jax.vmap(t.sample, (0, None)))(jax.random.split(KEY, 800), subject)["draw"]["image_from_labels"]
    for label in (0, 1):
        assert kstest(np.asarray(drawn["mean"][:, label]), "uniform", (2, 2)).pvalue > 1e-3
        assert kstest(np.asarray(drawn["std"][:, label]), "uniform", (0.01, 0.09)).pvalue > 1e-3


def drawn_by(t, count=2000):
    run = jax.jit(jax.vmap(t.sample, (0, None)))
    return {n: np.asarray(v) for n, v in run(jax.random.split(KEY, count), small_subject())["draw"][
        "image_from_labels"].items() if n != "key"}  # fmt: skip


def test_labels_of_a_class_share_what_is_drawn():
    t = mj.RandomLabelsToImage(used_labels=(0, 1, 3, 4), classes=(7, 2, 7, 1), default_mean=(0, 1))
    for values in drawn_by(t).values():
        np.testing.assert_array_equal(values[:, 0], values[:, 2])
        alone = values[:, [0, 1, 3]]
        assert np.abs(np.corrcoef(alone.T) - np.eye(3)).max() < 0.1
        for column in alone.T:
            low, width = (0, 1) if values.max() > 0.2 else (0.01, 0.09)
            assert kstest(column, "uniform", (low, width)).pvalue > 1e-3
    ranges = [(0, 1), (2, 3), (5, 6), (7, 8)]
    mean = drawn_by(mj.RandomLabelsToImage(used_labels=(0, 1, 3, 4), classes=(1, 0, 0, 1), mean=ranges))["mean"]
    np.testing.assert_array_equal(mean[:, [0, 1]], mean[:, [3, 2]])
    assert kstest(mean[:, 0], "uniform", (0, 1)).pvalue > 1e-3 and kstest(mean[:, 1], "uniform", (2, 1)).pvalue > 1e-3


def test_background_is_black_or_dark_at_times():
    count = 4000
    t = mj.RandomLabelsToImage(
        used_labels=(1, 0, 3), classes=(0, 1, 1), default_mean=(100, 200), default_std=(20, 30), p_black=0.1, p_dark=0.3
    )
    drawn = drawn_by(t, count)
    mean, std = drawn["mean"], drawn["std"]
    black, dark = mean[:, 1] == 0, (mean[:, 1] > 0) & (mean[:, 1] < 50)
    for found, p in ((black, 0.1), (dark, 0.3)):
        assert abs(found.mean() - p) < 4 * np.sqrt(p * (1 - p) / count)
    assert (std[black, 1] == 0).all()
    assert kstest(mean[dark, 1], "uniform", (0, 15)).pvalue > 1e-3
    assert kstest(std[dark, 1], "uniform", (0, 5)).pvalue > 1e-3
    assert kstest(mean[~black & ~dark, 1], "uniform", (100, 100)).pvalue > 1e-3
    np.testing.assert_array_equal(mean[:, 1], mean[:, 2])
    for values, law in ((mean[:, 0], (100, 100)), (std[:, 0], (20, 10))):
        assert kstest(values, "uniform", law).pvalue > 1e-3


def test_gradients_reach_the_ranges_through_a_class():
    def brightness(high):
        t = mj.RandomLabelsToImage(used_labels=(1, 3), classes=(0, 0), default_mean=(jax.numpy.float32(0), high))
        return t(small_subject(), KEY).image_from_labels.data.sum()

    slope = jax.grad(brightness)(jax.numpy.float32(2.0))
    assert abs(float(brightness(jax.numpy.float32(3.0)) - brightness(jax.numpy.float32(2.0))) - slope) < 1e-2 * slope


def test_what_follows_sees_the_new_image():
    subject = small_subject()
    t = mj.Compose([mj.RandomLabelsToImage(used_labels=(1, 3)), mj.RandomAffine(), mj.RandomFlip(), mj.RandomNoise()])
    many = jax.random.split(KEY, 2)
    alone, batch = t(subject, many[1]), t.batch(mj.stack([subject, subject]), many)
    np.testing.assert_allclose(batch.image_from_labels.data[1], alone.image_from_labels.numpy(), atol=1e-5)
    assert list(alone.images) == ["t1", "label", "image_from_labels"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mj.LabelsToImage(mean=(1, 2)), "mean must hold one number for each of used_labels"),
        (lambda: mj.LabelsToImage(std=(-1,)), "std must be at least 0"),
        (lambda: mj.LabelsToImage(p=0.5), "p must be 1"),
        (lambda: mj.LabelsToImage("t1")(small_subject()), "label_key='t1' is no label map"),
        (lambda: mj.LabelsToImage(used_labels=(-1,))(small_subject()), "from 0 to 65535"),
        (lambda: mj.RandomLabelsToImage(mean=[1, 2]), "mean must hold one number or pair"),
        (lambda: mj.RandomLabelsToImage(classes=(1, 2)), "classes must hold one number for each of used_labels"),
        (lambda: mj.RandomLabelsToImage(p_black=0.6, p_dark=0.6), "at most 1"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
