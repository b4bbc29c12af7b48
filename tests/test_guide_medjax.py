"""What a guide for TorchIO users shows, section by section, in medjax: pure calls, and the key of all that is random.

`test_guide.py` has the same sections on torch_bridge. Each test is one of them, and its docstring says which.
"""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import optax
import pytest
from nibabel.affines import voxel_sizes
from run_guide import write_subjects
from scipy import ndimage

import medjax as mj

pytestmark = pytest.mark.long  # the bridge's guide, which runs through the same, is in every run
STEP = (6, 6, 6)
SHAPE, FIXED, PATCH = (1, 33, 39, 32), (24, 28, 24), 16
KEY = jax.random.key(42)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of five subjects in files."""
    made = tmp_path_factory.mktemp("guide")
    write_subjects(made, 5, STEP)
    return made


@pytest.fixture
def subjects(folder):
    return [
        mj.Subject(
            t1=mj.ScalarImage(folder / f"sub-{i:02d}_T1w.nii.gz"),
            label=mj.LabelMap(folder / f"sub-{i:02d}_seg.nii.gz"),
            subject_id=f"{i:02d}",
            age=40 + i,
        )
        for i in range(1, 6)
    ]


@pytest.fixture
def subject(subjects):
    return subjects[0]


@pytest.fixture
def raw(folder):
    """The first subject as nibabel reads it: voxels of T1 and label, (I, J, K), and the affine."""
    t1, label = (nibabel.load(folder / f"sub-01_{name}.nii.gz") for name in ("T1w", "seg"))
    return t1.get_fdata(), label.get_fdata(), t1.affine


PREPROCESSING = mj.Compose([mj.Resample(7.0), mj.CropOrPad(FIXED), mj.ZNormalization()])
AUGMENTATION = mj.Compose(
    [
        mj.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
        mj.RandomElasticDeformation(max_displacement=5, p=0.5),
        mj.RandomBiasField(p=0.5),
        mj.RandomNoise(std=(0, 0.05), p=0.5),
        mj.RandomFlip(axes=("LR",), flip_probability=0.5),
    ]
)
TRAINING = mj.Compose([PREPROCESSING, AUGMENTATION])
LIGHT = mj.Compose([PREPROCESSING, mj.RandomAffine(degrees=10, p=0.75), mj.RandomNoise(std=(0, 0.05), p=0.5)])
PATCHES = mj.UniformSampler(PATCH)


def same(one, other):
    """Whether two subjects have the same voxels and affines, to the bit."""
    pairs = zip(jax.tree.leaves(one.images), jax.tree.leaves(other.images), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_version_and_devices():
    """Verify GPU support."""
    assert mj.__version__.count(".") == 2
    assert jax.devices()[0].platform in ("cpu", "gpu", "tpu")


def test_images_and_metadata(folder, raw):
    """Subject and image classes."""
    voxels, _, affine = raw
    subject = mj.Subject(
        t1=mj.ScalarImage(folder / "sub-01_T1w.nii.gz"),
        t2=mj.ScalarImage(folder / "sub-01_T2w.nii.gz"),
        label=mj.LabelMap(folder / "sub-01_seg.nii.gz"),
        age=41,
    )
    assert list(subject.images) == ["t1", "t2", "label"] and subject.metadata == {"age": 41}
    assert subject.t1.shape == SHAPE and subject.t1.spacing == (6.0, 6.0, 6.0) and subject.age == 41
    np.testing.assert_array_equal(subject.t1.affine, affine)
    np.testing.assert_array_equal(subject.t1.numpy()[0], voxels)
    np.testing.assert_array_equal(jnp.asarray(subject.t1.data), subject.t1.data)


def test_several_subjects(subjects):
    """Load multiple subjects."""
    dataset = mj.SubjectsDataset(subjects)
    assert len(dataset) == 5 and [subject.subject_id for subject in dataset] == ["01", "02", "03", "04", "05"]
    assert "subject_id='01'" in f"{dataset[0]}"


def test_a_missing_modality(subject):
    """Handle missing modalities."""
    partial = mj.Subject(t1=subject.t1, t2=None, label=subject.label)
    flipped = mj.RandomFlip(axes=0)(partial, KEY)
    assert partial.t2 is None and flipped.t2 is None and list(flipped.images) == ["t1", "label"]


def test_resampling(subject, raw):
    """Resampling."""
    resampled = mj.Resample(9.0)(subject)
    assert resampled.t1.shape == (1, 22, 26, 21)
    np.testing.assert_allclose(voxel_sizes(resampled.t1.affine), 9)
    np.testing.assert_allclose(resampled.t1.center, subject.t1.center, atol=9)
    # Each voxel of the new grid is read where it lies in the old one.
    place = np.linalg.inv(raw[2]) @ resampled.t1.affine @ [10, 11, 12, 1]
    expected = ndimage.map_coordinates(raw[0], place[:3, None], order=1)
    np.testing.assert_allclose(resampled.t1.data[0, 10, 11, 12], expected[0], rtol=1e-3)


def test_cropping_and_padding(subject, raw):
    """Cropping and padding."""
    voxels, label, affine = raw
    cropped = mj.CropOrPad((24, 24, 24))(subject)
    first = np.round(np.linalg.inv(affine) @ cropped.t1.affine[:, 3]).astype(int)[:3]
    np.testing.assert_array_equal(cropped.t1.data[0], voxels[tuple(slice(n, n + 24) for n in first)])
    about_label = mj.CropOrPad((30, 34, 30), mask_name="label")(subject)
    assert about_label.label.numpy().sum() == label.sum()


def test_normalization(subject, raw):
    """Intensity normalization."""
    voxels, label, _ = raw
    inside = voxels[label > 0]
    normalized = mj.ZNormalization(masking_method="label")(subject).t1.data[0]
    np.testing.assert_allclose(normalized, (voxels - inside.mean()) / inside.std(), atol=1e-3, rtol=1e-3)
    low, high = np.percentile(voxels, (1, 99))
    scaled = mj.RescaleIntensity(percentiles=(1, 99), out_min_max=(0, 1))(subject).t1.data[0]
    np.testing.assert_allclose(scaled, (np.clip(voxels, low, high) - low) / (high - low), atol=1e-4)


def test_histogram_standardization(subjects, tmp_path):
    """Histogram standardization."""
    images = [subject.t1 for subject in subjects]
    landmarks = mj.HistogramStandardization.train(images, output_path=tmp_path / "landmarks.npy", progress=False)
    standardize = mj.HistogramStandardization({"t1": landmarks})  # other images are left alone
    again = mj.HistogramStandardization({"t1": tmp_path / "landmarks.npy"})
    for subject in subjects[:2]:
        result = standardize(subject)
        found = np.percentile(result.t1.data, landmarks.percentiles)
        np.testing.assert_allclose(found[[0, 6, -1]], landmarks.landmarks[np.array([0, 6, -1])], atol=0.5)
        assert same(again(subject), result)
    both = standardize(subjects[0].replace(other=subjects[0].t1))
    np.testing.assert_array_equal(both.other.data, subjects[0].t1.data)


def test_spatial_augmentation(subject):
    """Spatial transforms."""
    t = mj.Compose(
        [
            mj.RandomAffine(scales=(0.9, 1.1), degrees=10, translation=5, p=0.75),
            mj.RandomElasticDeformation(num_control_points=7, max_displacement=7.5, locked_borders=2, p=0.5),
            mj.RandomFlip(axes=("LR",), flip_probability=0.5),
        ]
    )
    one, again, other = (t(subject, key) for key in (KEY, KEY, jax.random.key(1)))
    assert one.t1.shape == SHAPE and same(one, again) and not same(one, other)
    np.testing.assert_array_equal(one.t1.affine, subject.t1.affine)
    assert set(np.unique(one.label.data)) == {0, 1}


def test_intensity_augmentation(subject):
    """Intensity transforms."""
    t = mj.Compose(
        {
            "bias": mj.RandomBiasField(coefficients=0.5, p=0.5),
            "noise": mj.RandomNoise(mean=0, std=(0, 0.1), p=0.5),
            "blur": mj.RandomBlur(std=(0, 2), p=0.5),
            "gamma": mj.RandomGamma(log_gamma=(-0.3, 0.3), p=0.5),
        }
    )
    params = t.sample(KEY, subject)  # what is drawn is a value: it can be looked at, and applied again
    result = t(subject, KEY)
    assert same(t.apply(subject, params), result)
    assert np.isfinite(result.t1.data).all()
    np.testing.assert_array_equal(result.label.data, subject.label.data)


def test_mri_artifacts(subject):
    """Medical-specific augmentations."""
    t = mj.Compose(
        [
            mj.RandomMotion(degrees=10, translation=10, num_transforms=2, p=0.25),
            mj.RandomGhosting(num_ghosts=(4, 10), axes=(0, 1, 2), intensity=(0.5, 1), p=0.25),
            mj.RandomSpike(num_spikes=1, intensity=(1, 3), p=0.25),
        ]
    )
    results = [t(subject, jax.random.key(n)) for n in range(6)]
    assert all(result.t1.shape == SHAPE and np.isfinite(result.t1.data).all() for result in results)
    changed = [not np.array_equal(result.t1.data, subject.t1.data) for result in results]
    assert any(changed) and not all(changed)  # by three coins of 0.25
    assert all(same(result, t(subject, jax.random.key(n))) for n, result in enumerate(results[:2]))


def test_a_pipeline_of_preprocessing_and_augmentation(subject):
    """Compose transforms."""
    result = TRAINING(subject, KEY)
    assert result.t1.shape == result.label.shape == (1, *FIXED)
    assert same(result, TRAINING(subject, KEY)) and not same(result, TRAINING(subject, jax.random.key(1)))
    np.testing.assert_allclose(voxel_sizes(result.t1.affine), 7)


def test_a_sliding_window(subject):
    """Grid sampler."""
    sampler = mj.GridSampler(subject, patch_size=PATCH, patch_overlap=4)
    aggregator = mj.GridAggregator(sampler)
    state = aggregator.init(1)
    for patch in sampler:
        i, j, k, *ends = patch[mj.LOCATION]
        np.testing.assert_array_equal(patch.t1.data, subject.t1.data[:, i : ends[0], j : ends[1], k : ends[2]])
        state = aggregator.add(state, patch.t1.data[None], patch[mj.LOCATION][None])
    whole = aggregator.finish(state)
    assert len(sampler) == 27
    np.testing.assert_array_equal(whole.data, subject.t1.data)
    np.testing.assert_array_equal(whole.affine, subject.t1.affine)

    inferred = mj.sliding_window(lambda batch: 2 * batch.t1.data, subject, PATCH, patch_overlap=4, batch_size=8)
    np.testing.assert_allclose(inferred.data, 2 * subject.t1.numpy(), rtol=1e-5)


def test_random_patches(subject):
    """Uniform sampler."""
    for key in jax.random.split(KEY, 3):
        patch = PATCHES(subject, key)
        low, high = np.split(np.asarray(patch[mj.LOCATION]), 2)
        np.testing.assert_array_equal(high - low, PATCH)
        here = (slice(None), *map(slice, low, high))
        np.testing.assert_array_equal(patch.t1.data, subject.t1.data[here])
        np.testing.assert_allclose(patch.t1.affine[:3, 3], (subject.t1.affine @ [*low, 1])[:3], atol=1e-3)


def test_patches_where_there_are_labels(subject):
    """Weighted sampler."""
    patches = mj.WeightedSampler(PATCH, probability_map="label").batch(subject, KEY, 10)
    assert patches.label.shape == (10, 1, PATCH, PATCH, PATCH)
    middle = patches.label.data[:, 0, PATCH // 2, PATCH // 2, PATCH // 2]
    assert np.all(middle == 1)  # the voxel that was drawn


def test_a_queue(subjects):
    """Queue for efficient training."""
    queue = mj.PatchQueue(mj.SubjectsDataset(subjects, LIGHT), PATCHES, 5, KEY, samples_per_volume=10, max_length=20)
    assert len(queue) == 10
    batch, again = next(iter(queue)), next(iter(queue))
    assert batch.t1.shape == (5, 1, PATCH, PATCH, PATCH) and same(batch, again)
    # A patch is a box of its subject, transformed with the key that it names.
    patch = mj.unstack(batch)[0]
    volume = LIGHT(next(s for s in subjects if s.subject_id == patch.subject_id), patch["key"])
    low, high = np.split(np.asarray(patch[mj.LOCATION]), 2)
    np.testing.assert_allclose(patch.t1.data, volume.t1.data[(slice(None), *map(slice, low, high))], atol=2e-3)


def test_a_loader(subjects):
    """Create DataLoader."""
    dataset = mj.SubjectsDataset(subjects, PREPROCESSING)
    batches = list(mj.loader(dataset, 2, KEY))
    assert [batch.t1.shape for batch in batches] == [(2, 1, *FIXED), (2, 1, *FIXED), (1, 1, *FIXED)]
    assert sorted(i for batch in batches for i in batch.subject_id) == ["01", "02", "03", "04", "05"]
    element = mj.unstack(batches[0])[0]
    expected = PREPROCESSING(subjects[int(element.subject_id) - 1])
    np.testing.assert_allclose(element.t1.data, expected.t1.data, atol=1e-4)


def loss_of(weights, batch):
    """Cross entropy of a network of one layer; a pure function of its weights and a batch."""
    scores = jax.lax.conv_general_dilated(batch.t1.data, weights, (1, 1, 1), "SAME")
    return optax.softmax_cross_entropy_with_integer_labels(
        jnp.moveaxis(scores, 1, -1), batch.label.data[:, 0].astype(jnp.int32)
    ).mean()


def test_a_training_loop_with_patches(subjects):
    """Training loop with patches."""
    dataset = mj.SubjectsDataset(subjects, LIGHT)
    queue = mj.PatchQueue(dataset, PATCHES, 5, KEY, samples_per_volume=10, max_length=20)
    weights = 0.1 * jax.random.normal(jax.random.key(0), (2, 1, 3, 3, 3))
    optimizer = optax.sgd(1e-2, momentum=0.9)
    state, losses = optimizer.init(weights), []

    @jax.jit
    def step(weights, state, batch):
        loss, gradient = jax.value_and_grad(loss_of)(weights, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(weights, updates), state, loss

    for batch in queue:
        weights, state, loss = step(weights, state, batch)
        losses.append(float(loss))
    assert len(losses) == len(queue) == 10 and np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_shape_that_divides(subject, raw):
    """Ensure shape divisibility."""
    padded = mj.EnsureShapeMultiple(8)(subject)
    assert padded.t1.spatial_shape == (40, 40, 32)
    assert padded.t1.numpy().sum() == raw[0].sum()


def test_one_hot_labels(subject, raw):
    """One-hot encoding for labels."""
    hot = mj.OneHot(num_classes=3)(subject).label.data
    np.testing.assert_array_equal(hot, np.stack([raw[1] == value for value in range(3)]))


def test_the_largest_component(subject, raw):
    """Keep largest component."""
    cleaned = mj.KeepLargestComponent()(subject).label.data[0]
    found, _ = ndimage.label(raw[1])
    np.testing.assert_array_equal(cleaned > 0, found == 1 + np.argmax(np.bincount(found.ravel())[1:]))


def test_other_labels(subject, raw):
    """Label remapping."""
    remapped = mj.RemapLabels({1: 2, 2: 1, 3: 2})(subject)
    np.testing.assert_array_equal(remapped.label.data[0], 2 * raw[1])


def test_a_subject_is_drawn(subject, tmp_path):
    """Visualize transforms."""
    pytest.importorskip("matplotlib")
    for number, each in enumerate((subject, TRAINING(subject, KEY))):
        each.plot(size=1).savefig(tmp_path / f"{number}.png", dpi=50)
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_a_gallery_of_transforms(subject):
    """Check transform effects."""
    pytest.importorskip("matplotlib")
    figure = mj.plot_transforms(subject, {"Flip": mj.RandomFlip(axes=0), "Blur": mj.RandomBlur(std=(1, 2))}, KEY)
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["as it is", "Flip", "Blur"]


def test_validation(subjects):
    """Validate pipeline."""
    for subject, key in zip(subjects, jax.random.split(KEY, len(subjects)), strict=True):
        images = TRAINING(subject, key).images
        assert all(np.isfinite(image.data).all() for image in images.values())
        assert len({image.shape for image in images.values()}) == 1


def test_offline_preprocessing(subjects, tmp_path):
    """Preprocess dataset offline."""
    for subject in subjects[:2]:
        for name, image in PREPROCESSING(subject).images.items():
            image.save(tmp_path / f"{subject.subject_id}_{name}.nii.gz")
    expected, saved = PREPROCESSING(subjects[1]), nibabel.load(tmp_path / "02_t1.nii.gz")
    np.testing.assert_array_equal(saved.get_fdata(dtype=np.float32), expected.t1.data[0])
    np.testing.assert_allclose(saved.affine, expected.t1.affine, atol=1e-4)
    assert nibabel.load(tmp_path / "02_label.nii.gz").get_data_dtype() == np.uint8


def test_parallel_preprocessing(subjects, tmp_path):
    """Parallel processing: by threads, which reading and computing leave free."""

    def save(subject):
        PREPROCESSING(subject).t1.save(tmp_path / f"{subject.subject_id}.nii.gz")
        return subject.subject_id

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(save, subjects)) == ["01", "02", "03", "04", "05"]
    saved = nibabel.load(tmp_path / "03.nii.gz").get_fdata(dtype=np.float32)
    np.testing.assert_array_equal(saved, PREPROCESSING(subjects[2]).t1.data[0])


def test_a_pipeline_like_nnunets(subject):
    """nnU-Net style preprocessing."""
    t = mj.Compose(
        [
            mj.Resample((7, 7, 7)),
            mj.CropOrPad(FIXED),
            mj.ZNormalization(masking_method="label"),
            mj.RandomAffine(scales=(0.8, 1.2), degrees=15, p=0.5),
            mj.RandomElasticDeformation(max_displacement=5, p=0.3),
            mj.RandomBiasField(p=0.3),
        ]
    )
    result = t(subject, KEY)
    assert result.t1.shape == (1, *FIXED) and same(result, t(subject, KEY))


def test_beside_monai(subject):
    """MONAI compatibility."""
    monai = pytest.importorskip("monai")
    image = mj.CropOrPad(FIXED)(subject).t1
    scaled = monai.transforms.ScaleIntensity(0, 2)(image.numpy().astype(np.float32))
    back = image.replace(data=np.asarray(scaled))
    assert back.data.min() == 0 and back.data.max() == 2 and back.shape == (1, *FIXED)


def test_small_patches_for_little_memory(subjects):
    """Memory issues: no more than `max_length` patches wait, and nothing that was read is kept."""
    dataset = mj.SubjectsDataset(subjects, PREPROCESSING)
    queue = mj.PatchQueue(dataset, mj.UniformSampler(8), 4, KEY, samples_per_volume=4, max_length=8)
    assert queue.order.slots() <= 8 + 4
    assert [batch.t1.shape for batch in queue] == [(4, 1, 8, 8, 8)] * 5
    assert all(subject.t1.held()[0] is None for subject in subjects)


def test_one_transform_after_the_other(subject):
    """Transform debugging."""
    shapes = []
    for t in (mj.Resample(7.0), mj.CropOrPad(FIXED), mj.ZNormalization(), mj.RandomAffine(p=1.0)):
        subject = t(subject, KEY)
        shapes.append(subject.t1.spatial_shape)
    assert shapes == [shapes[0], FIXED, FIXED, FIXED] and shapes[0] != FIXED


def test_images_and_labels_stay_together(subject):
    """Common errors: shapes that differ, and memory that does not suffice."""
    result = mj.Compose([mj.Resample(7.0), mj.CropOrPad(FIXED)])(subject)  # of every image of the subject
    assert {image.spatial_shape for image in result.images.values()} == {FIXED}
    with pytest.raises(ValueError, match="grid"):
        mj.CropOrPad(FIXED)(subject.replace(label=result.label))
    batches = mj.loader(mj.SubjectsDataset([subject], PREPROCESSING), 1, KEY, device=jax.devices("cpu")[0])
    assert [batch.t1.shape for batch in batches] == [(1, 1, *FIXED)]


def test_training_and_validation(subject):
    """Recommended workflow."""
    training, validation = mj.Compose([PREPROCESSING, AUGMENTATION]), PREPROCESSING
    assert training(subject, KEY).t1.shape == validation(subject).t1.shape == (1, *FIXED)
    with pytest.raises(TypeError, match="key"):
        training(subject)
    assert same(validation(subject), validation(subject))


def test_reproducibility(subject):
    """Reproducibility."""
    t = mj.RandomAffine(degrees=10)
    assert same(t(subject, KEY), t(subject, jax.random.key(42)))
    assert not same(t(subject, KEY), t(subject, jax.random.key(43)))
