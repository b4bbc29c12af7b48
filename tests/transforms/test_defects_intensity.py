"""What TorchIO 1.2.1 gets wrong in intensity, by its number in the conventions, and how it goes here.

Tested elsewhere, by name: W27, W29, W34 in intensity/test_motion.py; W28 in parity/test_torchio_kspace.py.
"""

import jax
import numpy as np
import pytest
from conftest import small_subject

import medjax as mj

RNG = np.random.default_rng(5)
VOXELS = RNG.normal(size=(1, 12, 14, 10)).astype(np.float32)
ELSEWHERE = np.array([[2.0, 0, 0, 200], [0, 2, 0, -300], [0, 0, 2, 100], [0, 0, 0, 1]])


def test_w30_many_spikes_are_taken_back_exactly():
    t = mj.Spike([(0.2, 0.1, 0.7), (0.9, 0.25, 0.1), (0.3, 0, 0)], 2.0)
    params = t.sample(None, VOXELS)
    got = t.apply(VOXELS, params)
    image = np.asarray(t.invert(mj.ScalarImage(got), params, like=mj.ScalarImage(VOXELS)).data)
    np.testing.assert_allclose(image, VOXELS, atol=1e-3 * np.abs(got).max())
    spectrum = np.fft.fftn(VOXELS[0].astype(float))
    assert np.abs(got).max() < np.abs(VOXELS).max() + 3 * 2 * 2 * np.abs(spectrum).max() / VOXELS.size


def test_w31_gamma_is_taken_back_with_signs():
    t = mj.Gamma(0.6)
    params = t.sample(None, VOXELS)
    got = mj.ScalarImage(t.apply(VOXELS, params))
    np.testing.assert_allclose(t.invert(got, params, like=mj.ScalarImage(VOXELS)).numpy(), VOXELS, atol=1e-5)


def test_w32_blur_does_not_cut_integers():
    counts = RNG.integers(0, 200, (1, 16, 16, 16)).astype(np.int16)
    assert abs(mj.Blur(1.0)(counts).mean() - counts.mean()) < 0.2


def test_w33_a_magnitude_image_stays_one():
    t, positive = mj.Ghosting(4, 0, 1.0), np.abs(VOXELS)
    assert mj.Ghosting(4, 0, 1.0, magnitude=True)(positive).min() >= 0 > t(VOXELS).min()


def test_w35_swapped_boxes_never_overlap_and_reach_the_last_corner():
    t = mj.RandomSwap(patch_size=3, num_iterations=5)
    last = np.array(VOXELS.shape[1:]) - 3
    starts = [np.asarray(t.sample(jax.random.key(s), VOXELS)["draw"]["image"]["locations"]) for s in range(60)]
    boxes = np.concatenate([found.reshape(-1, 2, 3) for found in starts])
    assert (np.abs(boxes[:, 0] - boxes[:, 1]) >= 3).any(1).all()
    assert (boxes.reshape(-1, 3).max(0) == last).all() and (boxes >= 0).all()


def test_w36_ghosting_knows_the_names_of_axes():
    image = mj.ScalarImage(VOXELS, ELSEWHERE[[2, 0, 1, 3]])
    np.testing.assert_allclose(
        mj.Ghosting(4, "Left", 0.7)(image).numpy(), mj.Ghosting(4, 2, 0.7)(image).numpy(), atol=1e-5
    )


def test_w37_a_bias_field_without_its_constant_term_is_1_in_the_middle():
    ones = np.ones((1, 11, 11, 11), np.float32)
    gains = []
    for constant in (False, True):
        t = mj.RandomBiasField(0.5, constant=constant)
        gains.append([float(t(ones, jax.random.key(s))[0, 5, 5, 5]) for s in range(5)])
    np.testing.assert_allclose(gains[0], 1, atol=1e-5)
    assert np.ptp(gains[1]) > 0.1


def test_w38_labels_without_gaps_or_with_make_an_image_and_stay():
    labels = RNG.choice([0, 2, 5], (1, 20, 20, 20)).astype(np.uint8)
    subject = mj.Subject(label=mj.LabelMap(labels))
    t = mj.RandomLabelsToImage(used_labels=(0, 2, 5), mean=[(1, 1), (2, 2), (3, 3)], std=[(0.1, 0.1)] * 3)
    got, again = t(subject, jax.random.key(0)), t(subject, jax.random.key(0))
    np.testing.assert_array_equal(got.label.numpy(), labels)
    np.testing.assert_array_equal(got.image_from_labels.numpy(), again.image_from_labels.numpy())
    for label, mean in ((0, 1), (2, 2), (5, 3)):
        assert abs(got.image_from_labels.numpy()[labels == label].mean() - mean) < 0.02


def test_w39_the_percentiles_of_training_are_those_of_use(tmp_path):
    images = [mj.ScalarImage(np.abs(VOXELS) * scale) for scale in (1, 3)]
    path = tmp_path / "landmarks.npz"
    learned = mj.HistogramStandardization.train(images, cutoff=(0.1, 0.9), output_path=path, progress=False)
    assert learned.percentiles[0] == 10 and learned.percentiles[-1] == 90
    alike = [mj.HistogramStandardization({"t1": path})(mj.Subject(t1=image)).t1.numpy() for image in images]
    np.testing.assert_allclose(*alike, rtol=1e-3, atol=1e-2)
    low, high = np.percentile(alike[0], (10, 90))
    np.testing.assert_allclose([low, high], [learned.landmarks[0], learned.landmarks[-1]], atol=0.5)


def test_w40_channels_may_be_normalised_each_and_one_mask_serves_all():
    two = mj.ScalarImage(np.concatenate([VOXELS, 5 + 3 * VOXELS]))
    mask = mj.LabelMap((VOXELS > -0.5).astype(np.uint8))
    got = mj.ZNormalization("mask", per_channel=True)(mj.Subject(t1=two, mask=mask)).t1.numpy()
    inside = got[:, VOXELS[0] > -0.5].astype(float)
    np.testing.assert_allclose(inside.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(inside.std(1, ddof=1), 1, atol=1e-4)
    with pytest.raises(ValueError, match="mask"):
        mj.ZNormalization("mask")(mj.Subject(t1=two, mask=mj.LabelMap(np.zeros_like(VOXELS, np.uint8))))
    clipped = mj.RescaleIntensity((0, 1), in_min_max=(-0.5, 0.5), clip=True)(VOXELS)
    assert clipped.min() == 0 and clipped.max() == 1


@pytest.mark.parametrize("name", ["Left", "left", "L"])
def test_w41_anatomical_masks_go_through_the_affine(name):
    data = np.zeros((1, 8, 6, 4), np.float32)
    data[:, :4] = 1
    for affine, left in ((np.eye(4), data == 1), (np.diag([-1.0, 1, 1, 1]), data == 0)):
        got = mj.Mask(name, outside_value=-1)(mj.ScalarImage(data, affine)).numpy()
        np.testing.assert_array_equal(got, np.where(left, data, -1))


def test_w42_a_voxel_that_is_no_number_stays_one_voxel():
    data = VOXELS.copy()
    data[0, 3, 4, 5] = np.nan
    got = mj.ZNormalization()(mj.Subject(t1=mj.ScalarImage(data))).t1.numpy()
    assert np.isnan(got).sum() == 1
    rest = np.isfinite(data)
    np.testing.assert_allclose(got[rest].mean(), 0, atol=1e-4)


def test_w55_images_of_a_subject_share_a_draw_or_do_not():
    subject = small_subject()
    subject = subject.replace(t2=subject.t1)
    for shared in (True, False):
        got = mj.RandomGamma(shared=shared)(subject, jax.random.key(0))
        assert np.array_equal(got.t1.numpy(), got.t2.numpy()) == shared
