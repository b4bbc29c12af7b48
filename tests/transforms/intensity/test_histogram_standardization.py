"""Landmarks are learned, stored and applied as Nyúl et al. describe, and better than by TorchIO 1.2.1."""

import json
import re
import sys
import time

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject

import medjax as mj
from medjax.transforms.intensity import histogram_standardization
from medjax.transforms.intensity.histogram_standardization import KNOTS, PERCENTILES
from medjax.transforms.program import flatten

TARGETS = 100 * np.linspace(0, 1, 13) ** 1.5


def volumes(number=3):
    return [((i + 1) * blobs(seed=i) ** (1 + i / 2) + i).astype(np.float32)[None] for i in range(number)]


def learned(data, percentiles, mask=slice(None)):
    """The mean of the scaled percentiles, in float64."""
    values = [np.percentile(x[mask].astype(float), percentiles) for x in data]
    return np.mean([100 * (v - v[0]) / (v[-1] - v[0]) for v in values], axis=0)


def standardized(data, targets, percentiles, knots, mask=slice(None)):
    """The broken line, in float64; the first and the last piece go on for ever."""
    data = data.astype(float)
    v, targets = np.percentile(data[mask], percentiles)[knots], np.asarray(targets)[knots]
    piece = np.clip(np.searchsorted(v, data, side="right") - 1, 0, len(v) - 2)
    return targets[piece] + (data - v[piece]) * (np.diff(targets) / np.diff(v))[piece]


def bright(x):
    return x > 0.4


def test_training_is_the_mean_of_scaled_percentiles():
    found = mj.HistogramStandardization.train(volumes(), progress=False)
    assert found.percentiles == PERCENTILES and np.asarray(found).dtype == np.float32
    np.testing.assert_allclose(found, learned(volumes(), PERCENTILES), rtol=1e-5, atol=1e-4)


def test_training_reads_files_images_arrays_and_subjects_alike(tmp_path):
    data = volumes()
    paths = [tmp_path / f"{i}.nii.gz" for i in range(3)]
    for path, x in zip(paths, data):
        mj.ScalarImage(x, OBLIQUE).save(path)
    images = [mj.ScalarImage(path) for path in paths]
    want = learned(data, PERCENTILES)
    for items in (paths, [str(p) for p in paths], images, data, (x for x in data), [mj.Subject(t1=i) for i in images]):
        found = mj.HistogramStandardization.train(items, progress=False, num_threads=3)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-4)
    assert all(image.held()[0] is None for image in images)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_images_are_taken_than_there_are_threads(threads):
    taken, done, most = [], [], []

    def items():
        for i in range(20):
            taken.append(i)
            most.append(len(taken) - len(done))
            yield i

    def work(i):
        time.sleep(0.002 * (i % 3))
        done.append(i)
        return i

    assert list(histogram_standardization.in_threads(work, items(), threads)) == list(range(20))
    assert max(most) == threads


@pytest.mark.parametrize(
    "method, labels",
    [("label", None), ("label", (3,)), (bright, None), (4, None)],
    ids=["map", "labels", "function", "border"],
)
def test_training_by_a_mask(method, labels):
    subjects = [small_subject(seed=i) for i in range(2)]
    items = subjects if method == "label" else [s.t1 for s in subjects]
    found = mj.HistogramStandardization.train(items, masking_method=method, labels=labels, progress=False)
    values = []
    for s in subjects:
        label, box = s.label.numpy(), np.zeros_like(s.t1.numpy(), bool)
        box[:, 4:-4, 4:-4, 4:-4] = True
        mask = {"label": label == 3 if labels else label > 0, 4: box}.get(method, bright(s.t1.numpy()))
        values.append(s.t1.numpy()[mask])
    np.testing.assert_allclose(found, learned(values, PERCENTILES), rtol=1e-4, atol=1e-3)


def test_training_leaves_out_what_is_not_finite():
    data = volumes()
    spoiled = [x.copy() for x in data]
    for x in spoiled:
        x[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    kept = [x[np.isfinite(x)] for x in spoiled]
    found = mj.HistogramStandardization.train(spoiled, progress=False)
    np.testing.assert_allclose(found, learned(kept, PERCENTILES), rtol=1e-5, atol=1e-4)


def test_w39_the_cutoff_of_training_is_that_of_applying():
    """TorchIO trains 11 landmarks for this cutoff, applies percentiles 1 to 99, and fails."""
    found = mj.HistogramStandardization.train(volumes(), cutoff=(0.1, 0.9), progress=False)
    assert found.percentiles == (10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90)
    np.testing.assert_allclose(found, learned(volumes(), found.percentiles), rtol=1e-5, atol=1e-4)
    x = blobs(seed=9)[None]
    got = mj.HistogramStandardization(found)(x)
    np.testing.assert_allclose(got, standardized(x, found, found.percentiles, list(range(11))), atol=1e-2)
    np.testing.assert_allclose(np.percentile(got, found.percentiles), np.asarray(found), atol=0.1)


def test_other_cutoffs_of_13_landmarks_apply_all_of_them():
    found = mj.HistogramStandardization.train(volumes(), cutoff=(0.02, 0.97), progress=False)
    assert len(found.percentiles) == 13 and found.knots == tuple(range(13))
    x = blobs(seed=9)[None]
    got = mj.HistogramStandardization(found)(x)
    np.testing.assert_allclose(got, standardized(x, found, found.percentiles, list(range(13))), atol=1e-2)


@pytest.mark.parametrize("method", [None, bright, 3], ids=["all", "function", "border"])
def test_the_default_landmarks_apply_all_but_the_quartiles(method):
    x = blobs()[None]
    box = np.zeros_like(x, bool)
    box[:, 3:-3, 3:-3, 3:-3] = True
    mask = slice(None) if method is None else box if method == 3 else bright(x)
    got = mj.HistogramStandardization(TARGETS, method)(x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, standardized(x, TARGETS, PERCENTILES, list(KNOTS), mask), atol=1e-2, rtol=1e-4)


def test_labels_of_the_mask():
    s = small_subject()
    got = mj.HistogramStandardization(TARGETS, "label", labels=[3])(s).t1.numpy()
    want = standardized(s.t1.numpy(), TARGETS, PERCENTILES, list(KNOTS), s.label.numpy() == 3)
    np.testing.assert_allclose(got, want, atol=1e-2, rtol=1e-4)


# -- files


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json"])
def test_w39_landmarks_are_stored_with_their_percentiles(tmp_path, suffix):
    path = tmp_path / f"t1{suffix}"
    found = mj.HistogramStandardization.train(volumes(), cutoff=(0.07, 0.95), output_path=path, progress=False)
    again = mj.Landmarks.load(path)
    np.testing.assert_array_equal(again, found)
    assert again.percentiles == found.percentiles and again.percentiles[0] == 7
    x = blobs(seed=9)[None]
    np.testing.assert_array_equal(mj.HistogramStandardization(path)(x), mj.HistogramStandardization(found)(x))
    np.testing.assert_array_equal(mj.HistogramStandardization(str(path))(x), mj.HistogramStandardization(found)(x))


def test_a_file_of_torchio_is_13_numbers(tmp_path):
    np.save(tmp_path / "t1.npy", TARGETS)
    found = mj.Landmarks.load(tmp_path / "t1.npy")
    assert found.percentiles == PERCENTILES
    np.testing.assert_allclose(found, TARGETS, rtol=1e-6)


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "t1.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"t1.npy.*allow_pickle"):
        mj.Landmarks.load(tmp_path / "t1.npy")


@pytest.mark.parametrize("name", ["t1.txt", "t1.pth"])
def test_other_files_are_refused(tmp_path, name):
    for call in (mj.Landmarks(TARGETS).save, mj.Landmarks.load):
        with pytest.raises(ValueError, match=r"suffix='.*' is not one of '.npy', '.npz', '.json'"):
            call(tmp_path / name)


def test_landmarks_are_a_frozen_pytree():
    found = mj.Landmarks(TARGETS)
    doubled = jax.tree.map(lambda x: 2 * x, found)
    np.testing.assert_allclose(doubled, 2 * TARGETS, rtol=1e-6)
    assert doubled.percentiles == PERCENTILES and len(jax.tree.leaves(found)) == 1
    with pytest.raises(AttributeError):
        found.percentiles = (0.0,)
    np.testing.assert_allclose(jax.jit(lambda f: f.landmarks)(found), TARGETS, rtol=1e-6)
    assert np.asarray(found, np.float64).dtype == np.float64


# -- by name


def two_images():
    s = small_subject()
    return mj.Subject(t1=s.t1, t2=mj.ScalarImage(3 * blobs(seed=4)[None], s.t1.affine), label=s.label)


def test_a_dictionary_gives_each_image_its_own_landmarks():
    other = TARGETS[-1] - TARGETS[::-1]
    s = two_images()
    t = mj.HistogramStandardization({"t2": other, "t1": mj.Landmarks(TARGETS)})
    want = {"t1": TARGETS, "t2": other}
    batch = mj.stack([s, s])
    key = jax.random.key(0)
    configured = mj.from_config(json.loads(json.dumps(mj.to_config(t))))
    composed = mj.Compose([mj.Clamp(-9, 9), t])
    results = [t(s), jax.jit(t)(s), mj.unstack(t.batch(batch, key))[1], mj.unstack(jax.vmap(t)(batch))[0]]
    for result in [*results, configured(s), composed(s), t.apply(s, t.sample(key, s))]:
        for name, targets in want.items():
            np.testing.assert_allclose(
                result[name].numpy(),
                standardized(s[name].numpy(), targets, PERCENTILES, list(KNOTS)),
                atol=1e-2,
                rtol=1e-4,
            )
        np.testing.assert_array_equal(result.label.numpy(), s.label.numpy())


def test_a_dictionary_goes_through_every_door_as_one_transform():
    """It is one step of one kind, alone or in a pipeline, its names and landmarks survive a configuration."""
    s = two_images()
    t = mj.HistogramStandardization({"t1": TARGETS, "t2": TARGETS[-1] - TARGETS[::-1]})
    assert isinstance(t, mj.IntensityTransform) and len(flatten(mj.Compose([t, mj.RandomNoise()]))) == 2
    for pipeline in (mj.Compose([t, mj.RandomNoise()]), mj.Compose([mj.RandomNoise(), t, mj.RandomGamma()])):
        (batch,) = mj.PatchQueue(
            mj.SubjectsDataset([s], pipeline), mj.UniformSampler(8), 2, jax.random.key(0), samples_per_volume=2
        )
        for patch in mj.unstack(batch):
            low, high = np.asarray(patch[mj.LOCATION]).reshape(2, 3)
            box = (slice(None), *map(slice, low, high))
            for name, image in pipeline(s, patch["key"]).images.items():
                np.testing.assert_allclose(patch[name].data, image.numpy()[box], atol=1e-3)


def test_a_dictionary_has_one_coin_for_all():
    s = two_images()
    t = mj.HistogramStandardization({"t1": TARGETS, "t2": TARGETS}, p=0.5)
    changed = []
    for i in range(12):
        result = t(s, jax.random.key(i))
        changed.append(tuple(not np.array_equal(result[n].numpy(), s[n].numpy()) for n in ("t1", "t2")))
    assert set(changed) == {(True, True), (False, False)}


def test_images_that_are_not_named_are_left_alone_and_copies_are_kept():
    s = two_images()
    result = mj.HistogramStandardization({"t2": TARGETS}, keep={"t2": "before"})(s)
    np.testing.assert_array_equal(result.t1.numpy(), s.t1.numpy())
    np.testing.assert_array_equal(result.before.numpy(), s.t2.numpy())
    assert np.ptp(result.t2.numpy()) > 50


def test_a_name_that_the_subject_does_not_have_is_an_error():
    with pytest.raises(ValueError, match="HistogramStandardization names image 'flair'"):
        mj.HistogramStandardization({"t1": TARGETS, "flair": TARGETS})(two_images())


def test_landmarks_are_learned_by_gradients():
    """The slope of the sum by the landmarks is one, shared by the ends of each piece: that of NumPy's interpolation."""
    x = blobs()[None]
    got = jax.jit(jax.grad(lambda t: t(x).sum()))(mj.HistogramStandardization(TARGETS)).landmarks.landmarks
    want = [
        (standardized(x, TARGETS + e, PERCENTILES, list(KNOTS)) - standardized(x, TARGETS - e, PERCENTILES, list(KNOTS))).sum() / 2
        for e in np.eye(13)
    ]  # fmt: skip
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-2)
    assert got[3] == got[9] == 0


# -- back, and hard images


def test_the_inverse_is_exact_where_landmarks_rise():
    s = two_images()
    t = mj.HistogramStandardization({"t1": TARGETS, "t2": TARGETS})
    params = t.sample(jax.random.key(0), s)
    back = t.invert(t.apply(s, params), params, like=s)
    for name in ("t1", "t2"):
        np.testing.assert_allclose(back[name].numpy(), s[name].numpy(), atol=1e-4)


def test_a_background_of_one_value_makes_a_jump_and_no_nan():
    x = np.maximum(blobs()[None] - np.median(blobs()), 0)
    got = np.asarray(mj.HistogramStandardization(TARGETS)(x))
    assert np.isfinite(got).all() and len(np.unique(got[x == 0])) == 1
    order = np.argsort(x.ravel())
    assert (np.diff(got.ravel()[order]) >= -1e-4).all()


def test_voxels_that_are_not_finite_stay_and_change_no_other():
    x = blobs()[None]
    spoiled = x.copy()
    spoiled[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    got = np.asarray(mj.HistogramStandardization(TARGETS)(spoiled))
    np.testing.assert_array_equal(got[0, 0, 0, :3], spoiled[0, 0, 0, :3])
    kept = np.isfinite(spoiled)
    want = standardized(x, TARGETS, PERCENTILES, list(KNOTS), kept)
    np.testing.assert_allclose(got[kept], want[kept], atol=1e-2, rtol=1e-4)


def test_constant_images_and_empty_masks_are_errors_and_under_jit_change_nothing():
    flat = np.full((1, 9, 10, 8), 3, np.float32)
    t = mj.HistogramStandardization(TARGETS)
    with pytest.raises(ValueError, match=r"percentiles 1 and 99 of image are equal \(3\)"):
        t(flat)
    np.testing.assert_array_equal(jax.jit(t)(flat), flat)
    s = small_subject()
    s = s.replace(label=s.label.replace(data=np.zeros_like(s.label.data)))
    t = mj.HistogramStandardization(TARGETS, "label")
    with pytest.raises(ValueError, match="mask 'label' has no voxels in t1"):
        t(s)
    np.testing.assert_array_equal(jax.jit(t)(s).t1.numpy(), s.t1.numpy())


def test_padding_has_no_influence():
    shapes = ((9, 12, 10), (12, 9, 8))
    subjects = [mj.Subject(t1=mj.ScalarImage(blobs(shape)[None])) for shape in shapes]
    t = mj.HistogramStandardization(TARGETS)
    for got, s in zip(mj.unstack(t.batch(mj.stack(subjects, shape=(12, 12, 12)))), subjects):
        np.testing.assert_allclose(got.t1.numpy(), t(s).t1.numpy(), atol=1e-3)


# -- what makes no sense


@pytest.mark.parametrize("arguments, message", [
    ({"landmarks": TARGETS[:5]}, "one number for each of the 13 percentiles"),
    ({"landmarks": TARGETS[::-1]}, "landmarks must ascend"),
    ({"landmarks": np.full(13, np.nan)}, "landmarks must be finite"),
    ({"landmarks": {}}, "landmarks must be landmarks or a dictionary"),
    ({"landmarks": [[0, 50, 100], [5, 3, 90]]}, "percentiles must ascend"),
    ({"landmarks": {"a": TARGETS, "b": [[0, 100], [5, 95]]}}, re.escape("different counts: {'a': 13, 'b': 2}")),
    ({"landmarks": {"a": TARGETS}, "include": ["a"]}, "no include"),
    ({"landmarks": TARGETS, "masking_method": -2}, "masking_method"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.HistogramStandardization(**arguments)


@pytest.mark.parametrize("cutoff", [(0.9, 0.1), (-0.1, 0.9), (1, 99)])
def test_cutoffs_that_make_no_sense_are_refused(cutoff):
    with pytest.raises(ValueError, match="cutoff must be two fractions"):
        mj.HistogramStandardization.train(volumes(), cutoff=cutoff, progress=False)


def test_training_says_which_image_is_no_good(tmp_path):
    train = mj.HistogramStandardization.train
    data = volumes()
    data[1] = np.zeros_like(data[1])
    with pytest.raises(ValueError, match=r"image 1: percentiles 1 and 99 are equal \(0\)"):
        train(data, progress=False)
    with pytest.raises(ValueError, match="image 0: the mask .* has no voxels"):
        train(volumes(1), masking_method=lambda x: x > 99, progress=False)
    with pytest.raises(ValueError, match="image 0: masking_method='brain' is no label map"):
        train(volumes(1), masking_method="brain", progress=False)
    s = small_subject()
    turned = s.replace(label=mj.LabelMap(s.label.numpy(), np.diag([-1.0, 1, 1, 1]) @ OBLIQUE))
    with pytest.raises(ValueError, match="image 0: training by the mask 'label' needs images on one grid"):
        train([turned], masking_method="label", progress=False)
    with pytest.raises(ValueError, match="image 0: a subject to train on has one scalar image, this one has t1, t2"):
        train([two_images()], progress=False)
    with pytest.raises(OSError, match=r"image 0 \(.*none.nii\)"):
        train([tmp_path / "none.nii"], progress=False)
    with pytest.raises(ValueError, match="images_or_paths is empty"):
        train([], progress=False)


def test_progress_is_shown_if_tqdm_is_there(capsys, monkeypatch):
    want = mj.HistogramStandardization.train(volumes(), progress=False)
    assert capsys.readouterr() == ("", "")
    found = mj.HistogramStandardization.train(volumes())
    assert "3/3" in capsys.readouterr().err
    np.testing.assert_array_equal(found, want)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    np.testing.assert_array_equal(mj.HistogramStandardization.train(volumes()), want)
    assert capsys.readouterr() == ("", "")
