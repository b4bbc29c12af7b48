"""What a guide for TorchIO users shows, section by section, on torch_bridge: the same calls, in our own code.

`run_guide.py` runs such a guide as it stands. Here each test is one of its blocks, on small subjects of real anatomy.
"""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pytest
import torch
from bridge.shared import time_limit as time_limit
from run_guide import blocks_of, bridged, write_subjects
from torch.utils.data import DataLoader

import torch_bridge as tio

STEP = (6, 6, 6)
SHAPE, FIXED, PATCH = (1, 33, 39, 32), (24, 28, 24), 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of five subjects in files."""
    made = tmp_path_factory.mktemp("guide")
    write_subjects(made, 5, STEP)
    return made


@pytest.fixture
def subjects(folder):
    return [
        tio.Subject(
            t1=tio.ScalarImage(folder / f"sub-{i:02d}_T1w.nii.gz"),
            t2=tio.ScalarImage(str(folder / f"sub-{i:02d}_T2w.nii.gz")),
            label=tio.LabelMap(folder / f"sub-{i:02d}_seg.nii.gz"),
            subject_id=f"{i:02d}",
            age=40 + i,
        )
        for i in range(1, 6)
    ]


@pytest.fixture
def subject(subjects):
    return subjects[0]


def preprocessing():
    return tio.Compose([tio.Resample(7.0), tio.CropOrPad(FIXED), tio.ZNormalization()])


def augmentation():
    return tio.Compose(
        [
            tio.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
            tio.RandomElasticDeformation(max_displacement=5, p=0.5),
            tio.RandomBiasField(p=0.5),
            tio.RandomNoise(std=(0, 0.05), p=0.5),
        ]
    )


PIPELINE = tio.Compose([preprocessing(), augmentation(), tio.RandomFlip(axes=("LR",), flip_probability=0.5)])
SAMPLER = tio.UniformSampler(patch_size=PATCH)


def test_version():
    assert tio.__version__.count(".") == 2


def test_images_and_metadata(subject):
    assert subject.t1.shape == SHAPE and subject.age == 41
    assert subject.t1.spacing == (6.0, 6.0, 6.0)
    assert isinstance(subject.t1.numpy(), np.ndarray) and isinstance(subject.t1.data, torch.Tensor)


def test_several_subjects(subjects):
    dataset = tio.SubjectsDataset(subjects)
    assert len(dataset) == 5 and "subject_id='01'" in f"{dataset[0]}"


def test_a_missing_modality(subject):
    partial = tio.Subject(t1=subject.t1, t2=None, label=subject.label)
    assert partial.t2 is None
    assert tio.RandomFlip()(partial).t2 is None


def test_resampling(subject):
    resampled = tio.Resample(target=9.0)(subject)
    assert resampled.t1.spacing == (9.0, 9.0, 9.0) and resampled.t1.shape == (1, 22, 26, 21)


def test_cropping_and_padding(subject):
    for crop in (tio.CropOrPad(target_shape=(24, 24, 24), mask_name="label"), tio.CropOrPad((24, 24, 24))):
        assert crop(subject).t1.shape == (1, 24, 24, 24)


def test_normalization(subject):
    normalized = tio.ZNormalization(masking_method="label")(subject).t1.data
    inside = normalized[subject.label.data > 0]
    assert abs(inside.mean()) < 1e-4 and abs(inside.std() - 1) < 1e-3
    scaled = tio.RescaleIntensity(percentiles=(1, 99), out_min_max=(0, 1))(subject).t1.data
    assert scaled.min() == 0 and abs(scaled.max() - 1) < 1e-6


def test_histogram_standardization(subjects, tmp_path):
    from torch_bridge.transforms import HistogramStandardization

    landmarks = HistogramStandardization.train([s.t1 for s in subjects], output_path=tmp_path / "landmarks.npy")
    standardized = tio.HistogramStandardization({"t1": landmarks})(subjects[0])
    assert not torch.equal(standardized.t1.data, subjects[0].t1.data)
    assert torch.equal(standardized.t2.data, subjects[0].t2.data)


@pytest.mark.parametrize(
    "t",
    [
        tio.RandomAffine(scales=(0.9, 1.1), degrees=10, translation=5, p=0.75),
        tio.RandomElasticDeformation(num_control_points=7, max_displacement=7.5, locked_borders=2, p=0.5),
        tio.RandomFlip(axes=("LR",), flip_probability=0.5),
        tio.RandomBiasField(coefficients=0.5, p=0.5),
        tio.RandomNoise(mean=0, std=(0, 0.1), p=0.5),
        tio.RandomBlur(std=(0, 2), p=0.5),
        tio.RandomGamma(log_gamma=(-0.3, 0.3), p=0.5),
        tio.RandomMotion(degrees=10, translation=10, num_transforms=2, p=0.25),
        tio.RandomGhosting(num_ghosts=(4, 10), axes=(0, 1, 2), intensity=(0.5, 1), p=0.25),
        tio.RandomSpike(num_spikes=1, intensity=(1, 3), p=0.25),
    ],
    ids=lambda t: type(t).__name__,
)
def test_augmentation(t, subject):
    result = t(subject)
    assert result.t1.shape == SHAPE and torch.isfinite(result.t1.data).all()
    assert set(result.label.data.unique().tolist()) <= {0, 1}


def test_a_pipeline_of_preprocessing_and_augmentation(subject):
    result = PIPELINE(subject)
    assert result.t1.shape == result.label.shape == (1, *FIXED)


def test_a_sliding_window(subject):
    sampler = tio.GridSampler(subject=subject, patch_size=PATCH, patch_overlap=4)
    assert len(sampler) == 27
    aggregator = tio.GridAggregator(sampler)
    for patch in sampler:
        assert patch.t1.shape == (1, PATCH, PATCH, PATCH)
        aggregator.add_batch(patch.t1.data, patch[tio.LOCATION])
    assert torch.equal(aggregator.get_output_tensor(), subject.t1.data)


def test_random_patches(subject):
    for _ in range(3):
        assert SAMPLER(subject).t1.shape == (1, PATCH, PATCH, PATCH)


def test_patches_where_there_are_labels(subject):
    sampler = tio.WeightedSampler(patch_size=PATCH, probability_map="label")
    for _ in range(3):
        assert (sampler(subject).label.data > 0).sum() > 0


def queue(subjects, t, **options):
    dataset = tio.SubjectsDataset(subjects, transform=t)
    given = {"max_length": 100, "samples_per_volume": 10, "sampler": SAMPLER, "num_workers": 4, **options}
    return tio.Queue(subjects_dataset=dataset, shuffle_subjects=True, shuffle_patches=True, **given)


def test_a_queue(subjects):
    patches = queue(subjects, PIPELINE)
    assert len(patches) == 50
    for i, patch in enumerate(patches):
        assert patch.t1.shape == (1, PATCH, PATCH, PATCH)
        if i == 4:
            break


def test_a_data_loader(subjects):
    loader = DataLoader(tio.SubjectsDataset(subjects, transform=preprocessing()), batch_size=2, shuffle=True)
    shapes = [batch["t1"][tio.DATA].shape for batch in loader]
    assert shapes == [(2, 1, *FIXED), (2, 1, *FIXED), (1, 1, *FIXED)]


def test_a_training_loop_with_patches(subjects):
    loader = DataLoader(queue(subjects, PIPELINE, max_length=50, samples_per_volume=5), batch_size=8)
    model = torch.nn.Conv3d(1, 2, kernel_size=3, padding=1)
    criterion, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)
    count = 0
    for batch in loader:
        loss = criterion(model(batch["t1"][tio.DATA]), batch["label"][tio.DATA].long().squeeze(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        count += len(batch["subject_id"])
        assert torch.isfinite(loss)
    assert count == 25


def test_a_shape_that_divides(subject):
    assert all(n % 8 == 0 for n in tio.EnsureShapeMultiple(8)(subject).t1.spatial_shape)


def test_one_hot_labels(subject):
    assert tio.OneHot(num_classes=3)(subject).label.shape == (3, *SHAPE[1:])


def test_the_largest_component(subject):
    cleaned = tio.KeepLargestComponent()(subject).label.data
    assert 0 < cleaned.sum() <= subject.label.data.sum()


def test_other_labels(subject):
    remapped = tio.RemapLabels(remapping={1: 2, 2: 1, 3: 2})(subject).label.data
    assert torch.equal(remapped, 2 * subject.label.data)


drawing = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
"""Of torch's tensors, to NumPy 2."""


@pytest.fixture
def axes():
    """Axes of matplotlib that show on no screen."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2)
    yield axes
    plt.close(figure)


@drawing
def test_a_slice_is_drawn(subject, axes):
    augmented = tio.RandomElasticDeformation(max_displacement=5)(subject)
    for ax, each in zip(axes, (subject, augmented), strict=True):
        ax.imshow(each.t1.data[0, :, :, each.t1.shape[-1] // 2].T, cmap="gray", origin="lower")


@drawing
def test_a_gallery_of_transforms(subject, axes):
    for ax, t in zip(axes, (lambda x: x, tio.RandomMotion()), strict=True):
        ax.imshow(t(subject).t1.data[0, :, :, 10].T)


def test_validation(subjects):
    for subject in subjects:
        images = PIPELINE(subject).get_images_dict(intensity_only=False)
        assert not any(torch.isnan(image.data).any() or torch.isinf(image.data).any() for image in images.values())
        assert len({image.shape for image in images.values()}) == 1


def test_offline_preprocessing(subjects, tmp_path):
    for subject in subjects[:2]:
        for name, image in preprocessing()(subject).get_images_dict(intensity_only=False).items():
            image.save(tmp_path / f"{subject.subject_id}_{name}.nii.gz")
    assert nibabel.load(tmp_path / "02_label.nii.gz").shape == FIXED


def saved(subject, t, folder):
    """One subject in a process of a pool."""
    t(subject).t1.save(Path(folder) / f"{subject.subject_id}.nii.gz")
    return subject.subject_id


def test_parallel_preprocessing(subjects, tmp_path):
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as executor:
        futures = [executor.submit(saved, subject, preprocessing(), tmp_path) for subject in subjects]
        assert [future.result(timeout=60) for future in futures] == ["01", "02", "03", "04", "05"]
    expected = preprocessing()(subjects[2]).t1
    torch.testing.assert_close(tio.ScalarImage(tmp_path / "03.nii.gz").data, expected.data)


def test_a_pipeline_like_nnunets(subject):
    t = tio.Compose(
        [
            tio.Resample(target=(7, 7, 7)),
            tio.CropOrPad(target_shape=FIXED),
            tio.ZNormalization(masking_method="label"),
            tio.RandomAffine(scales=(0.8, 1.2), degrees=15, p=0.5),
            tio.RandomElasticDeformation(max_displacement=5, p=0.3),
            tio.RandomBiasField(p=0.3),
        ]
    )
    assert t(subject).t1.shape == (1, *FIXED)


def test_a_tensor_for_monai(subject):
    tensor = preprocessing()(subject).t1.data
    assert isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu"


def test_a_small_queue_costs_nothing_before_it_is_used(subjects):
    before = psutil.Process().memory_info().rss
    small = queue(subjects, PIPELINE, max_length=20, samples_per_volume=5)
    assert len(small) == 25 and psutil.Process().memory_info().rss - before < 2e7


def test_one_transform_after_the_other(subject):
    for t in (tio.Resample(7.0), tio.CropOrPad(FIXED), tio.ZNormalization(), tio.RandomAffine(p=1.0)):
        subject = t(subject)
        assert t.__class__.__name__ in ("Resample", "CropOrPad", "ZNormalization", "RandomAffine")
    assert subject.t1.shape == (1, *FIXED)


def test_a_loader_with_options(subjects):
    loader = DataLoader(tio.SubjectsDataset(subjects, preprocessing()), batch_size=1, pin_memory=False)
    assert next(iter(loader))["t1"][tio.DATA].shape == (1, 1, *FIXED)


def test_pipelines_of_pipelines(subject):
    assert tio.Compose([preprocessing(), augmentation()])(subject).t1.shape == preprocessing()(subject).t1.shape


def test_reproducibility(subject):
    t, results = tio.RandomAffine(degrees=10), []
    for _ in range(2):
        torch.manual_seed(42)
        results.append(t(subject).t1.data)
    assert torch.equal(*results) and not torch.equal(t(subject).t1.data, results[0])


def test_the_script_finds_blocks_and_fails_with_them(tmp_path):
    text = "# One\n```python\nfrom torchio.x import y\n```\n```bash\n# no\n```\n## Two\n```python\nimport torchio as t\n```\n"
    assert [heading for heading, _ in blocks_of(text)] == ["One", "Two"]
    assert [bridged(block) for _, block in blocks_of(text)] == [
        "from torch_bridge.x import y\n",
        "import torch_bridge as t\n",
    ]
    (tmp_path / "guide.md").write_text("```python\nprint('first')\n```\n```python\nwhile True: pass\n```\n")
    command = [sys.executable, str(Path(__file__).parent / "run_guide.py"), str(tmp_path / "guide.md"), "--limit", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "first" in done.stdout and "Timeout" in done.stderr
