"""Predictions on the native grid, against float64 interpolation by SciPy of a network that is known voxel by voxel."""

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, compilations, oriented, small_subject
from scipy.ndimage import map_coordinates

import medjax as mj

CENTRES = tuple(np.linspace(0, 1, 5).tolist())


def network(batch):
    """Scores of five classes, (B, 5, I, J, K): those of a voxel are of its intensity alone."""
    return jnp.concatenate([-20 * (batch["t1"].data - c) ** 2 for c in CENTRES], 1)


def truth(ready, native, turn=None):
    """All scores in float64 on the native grid, (5, I, J, K), and which voxels any score shows.

    turn: a map of indices of the preprocessed grid, which the affines do not tell of.
    """
    values = np.asarray(ready.data[0], np.float64)
    matrix = np.linalg.inv(ready.affine) @ native.affine
    matrix = matrix if turn is None else turn @ matrix
    index = np.indices(native.spatial_shape).reshape(3, -1)
    at = (matrix[:3, :3] @ index + matrix[:3, 3:]).reshape(3, *native.spatial_shape)
    size = np.array(values.shape)[:, None, None, None]
    shown = ((at > -0.5) & (at < size - 0.5)).all(0)
    at = np.clip(at, 0, size - 1)
    return np.stack([map_coordinates(-20 * (values - c) ** 2, at, order=1) for c in CENTRES]), shown


def check(labels, scores, shown, classes=4):
    two = np.sort(scores, 0)[-2:]
    clear = shown & (two[1] - two[0] > 1e-5)
    assert clear.sum() > 0.9 * shown.sum()
    assert not labels.numpy()[0][~shown].any()
    np.testing.assert_array_equal(labels.numpy()[0][clear], scores.argmax(0)[clear])
    assert len(np.unique(scores.argmax(0)[clear])) >= classes


def flipped(shape, axis):
    """The map of indices that reverses an axis."""
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, shape[axis] - 1
    return matrix


PIPELINES = {
    "nothing": mj.Compose([]),
    "resampled and permuted": mj.Compose([mj.ToCanonical(), mj.Resample((1.3, 1.7, 1.1)), mj.ZNormalization()]),
    "coarser, cropped and padded": mj.Compose([mj.Crop((2, 1, 0, 3, 1, 1)), mj.Resample(2.1), mj.Pad(2)]),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_labels_are_those_of_float64_interpolation(name):
    subject = small_subject(oriented("PIR", (1.0, 2.0, 1.5), (20, -30, 11)))
    pipeline = PIPELINES[name]
    plain = mj.Compose([m for m in pipeline.members if not isinstance(m, mj.ZNormalization)])
    ready = plain(subject).t1
    found = mj.predict(network, subject, plain, patch_size=10, overlap=0.4, batch_size=3)
    assert isinstance(found, mj.LabelMap) and found.dtype == np.uint8
    assert found.spatial_shape == subject.t1.spatial_shape
    np.testing.assert_array_equal(found.affine, subject.t1.affine)
    check(found, *truth(ready, subject.t1))


def test_what_was_moved_in_the_world_is_moved_back(subject):
    pipeline = mj.Compose([mj.Flip(axes=(0, 2)), mj.Resample((1.3, 1.7, 1.1))])
    ready = pipeline(subject).t1
    turn = flipped(ready.spatial_shape, 0) @ flipped(ready.spatial_shape, 2)
    found = mj.predict(network, subject, pipeline, patch_size=10)
    check(found, *truth(ready, subject.t1, turn))
    held = mj.predict(network, subject, pipeline, patch_size=10, memory=0)
    np.testing.assert_array_equal(held.data, found.data)


def test_rotated_and_elastic_ways_back_are_those_of_invert(subject):
    subject = subject.replace(label=None)
    pipelines = (
        mj.Compose([mj.Affine(degrees=(12, -9, 20), scales=(1.1, 0.9, 1.0)), mj.Resample(1.4)]),
        mj.Compose([mj.ElasticDeformation(control_points()), mj.Resample(1.4)]),
    )
    for pipeline in pipelines:
        params = pipeline.sample(None, subject)
        ready = pipeline.apply(subject, params)
        scores = mj.ScalarImage(np.asarray(network(jax.tree.map(lambda x: x[None], ready))[0]), ready.t1.affine)
        back = pipeline.invert(mj.Subject(p=scores), params, like=subject, interpolation="linear")["p"].numpy()
        found, chances = mj.predict(network, subject, pipeline, patch_size=10, probabilities=True)
        two = np.sort(back, 0)[-2:]
        clear = (two[1] - two[0] > 1e-2) & (np.abs(back).sum(0) > 0)
        assert clear.mean() > 0.5
        np.testing.assert_array_equal(found.numpy()[0][clear], back.argmax(0)[clear])
        np.testing.assert_allclose(chances.numpy()[:, clear], jax.nn.softmax(back, 0)[:, clear], atol=3e-3)


def control_points():
    return np.random.default_rng(3).uniform(-1, 1, (7, 7, 7, 3)).astype(np.float32)


def test_probabilities_and_regions(subject):
    pipeline = mj.Compose([mj.Crop((2, 1, 0, 3, 1, 1)), mj.Resample(1.2)])
    scores, shown = truth(pipeline(subject).t1, subject.t1)
    found, chances = mj.predict(network, subject, pipeline, patch_size=10, probabilities=True)
    want = np.where(shown, np.asarray(jax.nn.softmax(scores, 0)), np.eye(5)[0][:, None, None, None])
    np.testing.assert_allclose(chances.numpy(), want, atol=1e-5)
    check(found, scores, shown)
    regions = {1: 0.3, 2: 0.45, 7: 0.4, 400: 0.3, 4: 0.35}
    found = mj.predict(network, subject, pipeline, patch_size=10, labels=regions)
    want, near = np.zeros(shown.shape), np.zeros(shown.shape, bool)
    for value, (label, threshold) in zip(1 / (1 + np.exp(-scores)), regions.items()):
        want[shown & (value > threshold)] = label
        near |= np.abs(value - threshold) < 1e-5
    assert found.dtype == np.uint16 and len(np.unique(want)) > 4
    np.testing.assert_array_equal(found.numpy()[0][~near], want[~near])


def test_flips_and_models_are_averaged():
    """A network that sees where a voxel lies in its patch, against the mean written out in NumPy."""
    x = blobs((8, 8, 8))
    subject = mj.Subject(t1=mj.ScalarImage(x[None]))

    def placed(scale, batch):
        ramp = jnp.linspace(0, 1, 8)[None, None, :, None, None] + jnp.linspace(0, 2, 8)[None, None, None, None, :]
        y = batch["t1"].data
        return jnp.concatenate([y + ramp * scale, 1 - y, 0.5 + 0 * y], 1)

    models = [jnp.float32(0.1), jnp.float32(0.4)]
    found = mj.predict(
        placed, subject, mj.Compose([]), patch_size=8, flips=(0, 2), models=models, space="probabilities",
        probabilities=True,
    )[1]  # fmt: skip
    ramp = np.linspace(0, 1, 8)[:, None, None] + np.linspace(0, 2, 8)[None, None, :]
    want = 0
    for scale in (0.1, 0.4):
        for turn in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            there = (slice(None, None, turn[0]), slice(None), slice(None, None, turn[1]))
            y = x[there].astype(np.float64)
            scores = np.exp(np.stack([y + ramp * scale, 1 - y, 0.5 + 0 * y]))
            want = want + (scores / scores.sum(0))[(slice(None), *there)] / 8
    np.testing.assert_allclose(found.numpy(), want, atol=1e-5)


def test_a_coarser_network_and_labels_of_ones_own(subject):
    subject = subject.replace(label=None)

    def half(batch):
        return network(batch.replace(t1=batch["t1"].replace(data=batch["t1"].data[..., ::2, ::2, ::2])))

    labels = (0, 10, 20, 30, 40)
    pipeline = mj.Compose([mj.CropOrPad(16)])
    ready = pipeline(subject).t1
    coarse = ready.affine @ np.array([[2, 0, 0, 0.5], [0, 2, 0, 0.5], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    image = mj.ScalarImage(np.asarray(ready.data)[:, ::2, ::2, ::2], coarse)
    scores, shown = truth(image, subject.t1)
    found = mj.predict(half, subject, pipeline, patch_size=8, labels=labels)
    assert set(np.unique(found.data)) <= set(labels)
    check(found.replace(data=found.numpy() // 10), scores, shown, classes=3)


def test_nnunets_preprocessing_is_restored_as_it_restores():
    rng = np.random.default_rng(0)
    data = np.zeros((20, 18, 12), np.float32)
    data[2:17, 3:16, 1:11] = blobs((15, 13, 10)) + 0.1 + rng.uniform(0, 0.01, (15, 13, 10))
    subject = mj.Subject(t1=mj.ScalarImage(data[None], np.diag([1.0, 1.0, 4.0, 1.0])))
    pipeline = mj.nnunet_preprocess((1.3, 1.4, 4.5), transpose=(2, 0, 1))
    ready = pipeline(subject)
    scores = mj.ScalarImage(np.asarray(network(jax.tree.map(lambda x: x[None], ready))[0]), ready.t1.affine)
    back = pipeline.restore(scores, subject).numpy()
    two = np.sort(back, 0)[-2:]
    clear = two[1] - two[0] > 1e-4
    found = mj.predict(network, subject, pipeline, patch_size=8)
    assert clear.mean() > 0.4
    np.testing.assert_array_equal(found.numpy()[0][clear], back.argmax(0)[clear])


def test_a_folder_is_predicted_with_headers_and_what_is_done_is_skipped(tmp_path):
    pipeline, calls = mj.Compose([mj.ToCanonical(), mj.Resample(1.5)]), []
    affine = oriented("LPS", (1.0, 1.0, 2.0), (5, -7, 9))
    for n in range(3):
        image = nib.Nifti1Image((blobs((12, 14, 10), n) * 1000).astype(np.int16), affine)
        image.header.set_slope_inter(1e-3, 0)
        image.header["descrip"], image.header["cal_max"] = b"scanner", 700
        image.header.set_xyzt_units("mm", "sec")
        image.set_sform(affine, 2)
        nib.save(image, tmp_path / f"case{n}.nii.gz")

    def counted(batch):
        calls.append(len(calls))
        return jnp.concatenate([-20 * (batch["image"].data - c) ** 2 for c in CENTRES], 1)

    options = dict(patch_size=10, overlap=0)
    found = mj.predict(counted, tmp_path, pipeline, out=tmp_path / "out", **options)
    assert found == [tmp_path / "out" / f"case{n}.nii.gz" for n in range(3)]
    written = nib.load(found[1])
    assert written.get_data_dtype() == np.uint8 and (written.dataobj.slope, written.dataobj.inter) == (1, 0)
    assert written.header["descrip"].item() == b"scanner" and int(written.header["sform_code"]) == 2
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    one = mj.predict(counted, tmp_path / "case1.nii.gz", pipeline, **options)
    np.testing.assert_array_equal(np.asarray(written.dataobj), one.numpy()[0])

    found[1].unlink()
    times = [path.stat().st_mtime_ns for path in (found[0], found[2])]
    with compilations() as count:
        again = mj.predict(counted, tmp_path, pipeline, out=tmp_path / "out", **options)
        assert count() == 0
    assert again == found and found[1].exists()
    with pytest.raises(ValueError, match="write over"):
        mj.predict(counted, tmp_path, pipeline, out=tmp_path, **options)
    assert times == [path.stat().st_mtime_ns for path in (found[0], found[2])]


def test_scores_that_are_nan_and_what_does_not_fit(subject):
    def nan(batch):
        return network(batch).at[:, 2].set(jnp.nan)

    with pytest.raises(ValueError, match="NaN"):
        mj.predict(nan, subject, mj.Compose([]), patch_size=10)
    with pytest.raises(ValueError, match=r"labels must have one entry for each of the 5 classes, got 2"):
        mj.predict(network, subject, mj.Compose([]), patch_size=10, labels=(0, 1))
    with pytest.raises(ValueError, match="random"):
        mj.predict(network, subject, mj.Compose([mj.RandomNoise()]), patch_size=10)
    with pytest.raises(TypeError, match="pipeline"):
        mj.predict(network, subject, lambda x: x, patch_size=10)
    with pytest.raises(TypeError, match="subject_or_paths"):
        mj.predict(network, None, mj.Compose([]), patch_size=10)
    with pytest.raises(ValueError, match="name"):
        mj.predict(network, [small_subject(OBLIQUE)], mj.Compose([]), patch_size=10, out="there")
    for wrong in (dict(overlap=1.0), dict(flips=(3,)), dict(space="x"), dict(labels={1: 1.0}), dict(labels=(-1, 2)),
                  dict(models=[])):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            mj.predict(network, subject, mj.Compose([]), patch_size=10, **wrong)
