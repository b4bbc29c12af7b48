"""nnU-Net's preprocessing against its definition in SciPy; tests/benchmarks/nnunet_preprocess.py runs nnunetv2 itself."""

import json
import pickle

import jax
import numpy as np
import pytest
from scipy import ndimage

import medjax as mj
from medjax import nnunet_preprocess, nnunet_preprocess_from_plans
from tests.conftest import OBLIQUE, blobs

CT = {"mean": 0.5, "std": 0.2, "percentile_00_5": 0.2, "percentile_99_5": 0.8}


def brain(shape=(26, 30, 22), affine=OBLIQUE, channels=1):
    """Blobs in a ball with a hole, zero around it, and labels of which some lie outside."""
    axes = np.meshgrid(*(np.linspace(-1.3, 1.2, n) for n in shape), indexing="ij")
    radius = sum(a**2 for a in axes)
    data = np.stack([blobs(shape, c) + 0.1 for c in range(channels)])
    data[:, (radius > 1) | (radius < 0.05)] = 0
    label = np.digitize(blobs(shape, 9), (0.45, 0.55, 0.6)) * (radius < 1.1)
    return mj.Subject(scan=mj.ScalarImage(data, affine), label=mj.LabelMap(label[None].astype(np.uint8), affine))


def zoomed(x, shape, order):
    """What scikit-image's resize gives in mode 'edge': zoom in grid mode, clipped to the range."""
    factors = [m / n for n, m in zip(x.shape, shape)]
    out = ndimage.zoom(x.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(out, x.min(), x.max())


def nearest(x, count, axis):
    index = np.floor((np.arange(count) + 0.5) * x.shape[axis] / count).astype(int)
    return np.take(x, index, axis)


def reference(subject, new_spacing, axis=None, use_mask=False):
    """Crop, z-score, resample, as nnU-Net's source says, in float64; (image, labels)."""
    data, label = subject.scan.numpy().astype(np.float64), subject.label.numpy()[0].astype(int)
    mask = ndimage.binary_fill_holes((data != 0).any(0))
    part = tuple(slice(v.min(), v.max() + 1) for v in np.nonzero(mask))
    data, label, mask = data[(slice(None), *part)], label[part].copy(), mask[part]
    label[(label == 0) & ~mask] = -1
    shape = [round(s / t * n) for s, t, n in zip(subject.scan.spacing, new_spacing, label.shape)]
    images = []
    for x in data:
        inside = label >= 0 if use_mask else np.ones(x.shape, bool)
        x = np.where(inside, (x - x[inside].mean()) / x[inside].std(), x)
        if axis is None:
            images.append(zoomed(x, shape, 3))
        else:
            flat = [n for a, n in enumerate(shape) if a != axis]
            planes = [zoomed(plane, flat, 3) for plane in np.moveaxis(x, axis, 0)]
            images.append(nearest(np.stack(planes, axis), shape[axis], axis))
    values = np.unique(label)
    if axis is None:
        scores = np.stack([zoomed((label == v).astype(float), shape, 1) for v in values])
    else:
        flat = [n for a, n in enumerate(shape) if a != axis]
        planes = [
            np.stack([zoomed((p == v) * 1.0, flat, 1) for p in np.moveaxis(label, axis, 0)], axis) for v in values
        ]
        scores = np.stack([nearest(p, shape[axis], axis) for p in planes])
    best = np.sort(scores, 0)
    return np.stack(images), values[scores.argmax(0)], best[-1] - best[-2] > 1e-6


@pytest.mark.parametrize("use_mask", [False, True])
@pytest.mark.parametrize(
    ("old", "new", "axis"),
    [
        ((1.0, 2.0, 1.5), (1.3, 1.1, 0.9), None),
        ((0.7, 0.8, 5.0), (1.1, 1.0, 3.1), 2),  # the old spacing is anisotropic
        ((1.0, 1.2, 0.9), (4.5, 1.0, 1.3), 0),  # the new one alone
        ((4.0, 1.0, 4.0), (1.5, 1.5, 1.5), None),  # two coarse axes are not resampled apart
    ],
)
def test_it_is_crop_normalisation_and_resampling(old, new, axis, use_mask):
    subject = brain(affine=np.diag([*old, 1.0]), channels=2)
    image, label, clear = reference(subject, new, axis, use_mask)
    result = nnunet_preprocess(new, ["ZScoreNormalization"] * 2, use_mask=use_mask)(subject)
    assert result.scan.shape == image.shape and result.scan.dtype == np.float32 and result.label.dtype == np.int8
    np.testing.assert_allclose(result.scan.numpy(), image, atol=2e-6 * np.ptp(image))
    np.testing.assert_array_equal(result.label.numpy()[0][clear], label[clear])
    assert clear.mean() > 0.9 and -1 in label and (label > 0).any()


def test_labels_that_tie_go_to_the_nearest_voxel():
    """Doubled, a line of two labels ties nowhere but between them; at 2/3 of its length the middle voxel ties."""
    line = np.array([5, 5, 5, 2, 2, 2], np.uint8)[None, :, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    subject = mj.Subject(a=mj.ScalarImage(np.ones(line.shape, np.float32)), label=mj.LabelMap(line))
    pre = nnunet_preprocess((2.0, 1.0, 1.0), "NoNormalization")
    # Voxels 0.5, 2.5, 4.5 of the old line: the middle one lies between 5 and 2, and ties go up.
    np.testing.assert_array_equal(pre(subject).label.numpy()[0, :, 0, 0], [5, 2, 2])
    flipped = subject.replace(label=mj.LabelMap(line[:, ::-1]))
    np.testing.assert_array_equal(pre(flipped).label.numpy()[0, :, 0, 0], [2, 5, 5])


def test_normalisations():
    subject = brain(channels=4)
    schemes = ["CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"]
    pre = nnunet_preprocess(subject.scan.spacing, schemes, intensities={0: CT})
    cropped = nnunet_preprocess(subject.scan.spacing, ["NoNormalization"] * 4)(subject).scan.numpy()
    ct, same, unit, rgb = pre(subject).scan.numpy()
    np.testing.assert_allclose(ct, (np.clip(cropped[0], 0.2, 0.8) - 0.5) / 0.2, atol=1e-6)
    np.testing.assert_array_equal(same, cropped[1])
    np.testing.assert_allclose(unit, cropped[2] / cropped[2].max(), atol=1e-6)
    np.testing.assert_allclose(rgb, cropped[3] / 255, rtol=1e-6)


def test_channels_are_counted_through_the_images():
    subject = brain(channels=2)
    apart = mj.Subject(
        a=mj.ScalarImage(subject.scan.numpy()[:1], OBLIQUE),
        b=mj.ScalarImage(subject.scan.numpy()[1:], OBLIQUE),
        label=subject.label,
    )
    pre = nnunet_preprocess(1.4, ["ZScoreNormalization", "CTNormalization"], intensities={"1": CT})
    together, result = pre(subject), pre(apart)
    np.testing.assert_array_equal(result.a.numpy(), together.scan.numpy()[:1])
    np.testing.assert_array_equal(result.b.numpy(), together.scan.numpy()[1:])


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_voxels_keep_their_place_in_the_world(transpose):
    """A linear ramp of world coordinates, resampled, holds the world coordinates of the new voxels."""
    shape = (24, 20, 26)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    world = np.einsum("ab,bijk->aijk", OBLIQUE[:3, :3], index) + OBLIQUE[:3, 3, None, None, None]
    inside = np.zeros(shape, bool)
    inside[3:20, 2:18, 5:25] = True
    ramp = mj.ScalarImage(np.where(inside, world, 0).astype(np.float32), OBLIQUE)
    spacing = np.array([1.3, 1.7, 1.2])[list(transpose)]
    out = nnunet_preprocess(spacing, ["NoNormalization"] * 3, transpose=transpose)(mj.Subject(ramp=ramp)).ramp
    assert np.all(np.abs(np.subtract(out.spacing, spacing)) < 0.1)
    at = np.stack(np.meshgrid(*map(np.arange, out.spatial_shape), indexing="ij"))
    expected = np.einsum("ab,bijk->aijk", out.affine[:3, :3], at) + out.affine[:3, 3, None, None, None]
    inner = (slice(None), *(slice(5, -5),) * 3)
    np.testing.assert_allclose(out.numpy()[inner], expected[inner], atol=0.02)


def test_a_prediction_goes_back_to_the_native_grid():
    subject = brain(affine=np.diag([0.7, 0.8, 5.0, 1.0]))
    pre = nnunet_preprocess((3.0, 0.6, 0.5), use_mask=True, transpose=(2, 1, 0))
    result = pre(subject)
    box = np.nonzero(subject.scan.numpy()[0])
    part = tuple(slice(v.min(), v.max() + 1) for v in box)
    back = pre.restore(result.label, subject)
    assert back.shape == subject.label.shape and back.dtype == np.int8
    np.testing.assert_allclose(back.affine, subject.label.affine, atol=1e-12)
    same = (np.maximum(back.numpy(), 0) == subject.label.numpy())[0]
    assert same[part].mean() > 0.97
    outside = np.ones(same.shape, bool)
    outside[part] = False
    assert not back.numpy()[0][outside].any()

    scores = mj.ScalarImage(np.stack([blobs(result.scan.spatial_shape, s) for s in (1, 2)]), result.scan.affine)
    restored = pre.restore(scores, subject.scan).numpy()
    shape = tuple(s.stop - s.start for s in part)
    for seen, given in zip(restored, scores.numpy()):
        planes = np.stack([zoomed(p, shape[1::-1], 1) for p in given])  # the coarse axis, k, is not interpolated
        np.testing.assert_allclose(seen[part], nearest(planes, shape[2], 0).transpose(2, 1, 0), atol=1e-6)


def test_plans_and_fingerprint(tmp_path):
    rule = {"resampling_fn_data": "resample_data_or_seg_to_shape"}
    configuration = {
        "spacing": [2.5, 1.0, 1.2], "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False], **rule,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    }  # fmt: skip
    key = "foreground_intensity_properties_per_channel"
    plans = {
        "transpose_forward": [1, 0, 2],
        "configurations": {"3d_fullres": configuration, "3d_cascade_fullres": {"inherits_from": "3d_fullres"}},
        key: {"0": CT},
    }
    pre = nnunet_preprocess_from_plans(plans)
    assert pre.spacing == (2.5, 1.0, 1.2) and pre.transpose == (1, 2, 0)  # y, z, x of z, y, x
    assert pre.normalizations == ("CTNormalization",) and pre.intensities == {0: CT}
    assert nnunet_preprocess_from_plans(plans, configuration="3d_cascade_fullres") == pre
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    other = nnunet_preprocess_from_plans(tmp_path / "plans.json", {key: {"0": {**CT, "mean": 7.0}}})
    assert other.intensities[0]["mean"] == 7.0
    assert pickle.loads(pickle.dumps(pre)) == pre

    with pytest.raises(ValueError, match="configuration='2d' is not one of '3d_fullres'"):
        nnunet_preprocess_from_plans(plans, configuration="2d")
    torch_rule = {**configuration, "resampling_fn_data": "resample_torch_fornnunet"}
    with pytest.raises(ValueError, match="resamples data by resample_torch_fornnunet"):
        nnunet_preprocess_from_plans({**plans, "configurations": {"3d_fullres": torch_rule}})


def test_a_plan_of_two_axes_keeps_the_first_spacing():
    subject = brain(affine=np.diag([3.0, 1.0, 1.5, 1.0]))
    result = nnunet_preprocess((2.0, 1.0))(subject)
    assert result.scan.spacing[0] == pytest.approx(3.0)
    assert np.allclose(result.scan.spacing[1:], (2.0, 1.0), atol=0.1)


def test_empty_and_constant_images_are_defined():
    zeros = mj.Subject(a=mj.ScalarImage(np.zeros((1, 6, 6, 6), np.float32)))
    np.testing.assert_array_equal(nnunet_preprocess(1.0, use_mask=True)(zeros).a.numpy(), 0)
    ones = mj.Subject(a=mj.ScalarImage(np.full((1, 6, 6, 6), 3, np.int16)))
    np.testing.assert_array_equal(nnunet_preprocess((1.0, 2.0, 0.5))(ones).a.numpy(), 0)


def test_inputs_are_not_changed():
    subject = brain()
    before = jax.tree.map(np.array, subject)
    nnunet_preprocess(subject.scan.spacing, "RescaleTo01Normalization", use_mask=True)(subject)
    jax.tree.map(np.testing.assert_array_equal, subject, before)


def test_errors():
    with pytest.raises(ValueError, match="normalizations='zscore' is not one of"):
        nnunet_preprocess(1.0, "zscore")
    with pytest.raises(ValueError, match=r"intensities\[0\] lacks mean, std"):
        nnunet_preprocess(1.0, "CTNormalization")
    with pytest.raises(ValueError, match="spacing must be one, two or three positive"):
        nnunet_preprocess((1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="transpose must hold 0, 1 and 2"):
        nnunet_preprocess(1.0, transpose=(0, 0, 1))
    with pytest.raises(ValueError, match="use_mask must be one truth value or 1"):
        nnunet_preprocess(1.0, use_mask=(True, False))
    with pytest.raises(ValueError, match=r"normalizations has 1 schemes.*scan, have 2 channels"):
        nnunet_preprocess(1.0)(brain(channels=2))
    subject = brain()
    with pytest.raises(ValueError, match="needs images on one grid"):
        nnunet_preprocess(1.0)(subject.replace(label=subject.label.replace(affine=np.eye(4))))
    with pytest.raises(ValueError, match="scan holds NaN"):
        nnunet_preprocess(1.0)(subject.replace(scan=mj.ScalarImage(np.full((1, 26, 30, 22), np.nan), OBLIQUE)))
    pre = nnunet_preprocess(1.0)
    with pytest.raises(ValueError, match="is not what preprocessing makes"):
        pre.restore(mj.ScalarImage(np.zeros((1, 9, 9, 9)), np.eye(4)), subject)
