"""Among MONAI's loaders and transforms: batches, caches, random states, the way back, crops by ratio."""

import copy

import monai
import nibabel
import numpy as np
import pytest
import torch
from bridge.shared import tensors
from bridge.shared import time_limit as time_limit
from conftest import OBLIQUE, blobs
from monai.data import CacheDataset, DataLoader, MetaTensor, PersistentDataset, decollate_batch, list_data_collate
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Flip,
    Flipd,
    Invertd,
    LoadImaged,
    Orientationd,
    RandFlip,
    RandFlipd,
    Randomizable,
    SaveImaged,
    ScaleIntensity,
    ScaleIntensityd,
    Spacingd,
)

import medjax as mj
import torch_bridge as tio

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::FutureWarning:monai")

SHAPE = (12, 14, 10)
KEYS = ["image", "label"]


@pytest.fixture(autouse=True)
def seeded_as_monai_draws():
    """MONAI's shared generator begins with the machine's entropy."""
    Randomizable.R.seed(0)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("nifti"), []
    for i in range(3):
        data = torch.from_numpy(blobs(SHAPE, i))[None]
        names = {"image": folder / f"image{i}.nii.gz", "label": folder / f"label{i}.nii.gz"}
        affine = OBLIQUE @ np.diag([1, 1, 1 + i, 1])
        tio.ScalarImage(tensor=data, affine=affine).save(names["image"])
        tio.LabelMap(tensor=(data > 0.5).byte(), affine=affine).save(names["label"])
        found.append({name: str(path) for name, path in names.items()})
    return found


def loads():
    """What every script of MONAI's users begins with; its labels are floats."""
    return [LoadImaged(KEYS), EnsureChannelFirstd(KEYS), Orientationd(KEYS, "RAS", labels=None)]


@pytest.fixture(scope="module")
def batch(paths):
    return list_data_collate([Compose(loads())(one) for one in paths])


def test_augment_takes_what_monais_loader_collates(batch):
    augment = tio.Augment(tio.RandomFlip(axes=(0, 1, 2)), seed=2, labels=["label"])
    result = augment(batch)
    for name in KEYS:
        before, after = batch[name], result[name]
        assert isinstance(after, MetaTensor) and after.is_batch and after.dtype == before.dtype
        assert after.meta["filename_or_obj"] == before.meta["filename_or_obj"]
        assert after.applied_operations == before.applied_operations and after.spatial_ndim == before.spatial_ndim
        for i, element in enumerate(decollate_batch(after)):
            assert (
                element.affine.shape == (4, 4) and element.meta["filename_or_obj"] == before.meta["filename_or_obj"][i]
            )
            torch.testing.assert_close(after[i].affine, element.affine)
    # They are the bridge's own results for subjects of the same voxels.
    images = {n: {"image": tio.ScalarImage, "label": tio.LabelMap}[n] for n in KEYS}
    subjects = [
        tio.Subject(
            {n: cls(tensor=batch[n][i].as_tensor(), affine=batch[n][i].affine.numpy()) for n, cls in images.items()}
        )
        for i in range(3)
    ]
    expected = tio.Augment(tio.RandomFlip(axes=(0, 1, 2)), seed=2)(torch.utils.data.default_collate(subjects))
    for name in KEYS:
        assert torch.equal(result[name].as_tensor(), expected[name].data)
        np.testing.assert_allclose(np.asarray(result[name].affine), expected[name].affine, atol=1e-6)


def test_the_affine_and_the_spacing_follow(batch):
    result = tio.Augment(mj.Compose([mj.Resample(2.0), mj.CropOrPad(8)]), labels=["label"])(batch)
    spacing = np.linalg.norm(np.asarray(result["image"].affine)[:, :3, :3], axis=-2)
    np.testing.assert_allclose(spacing, 2, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(result["image"].meta["pixdim"])[:, 1:4], 2, rtol=1e-5)
    one = MetaTensor(torch.rand(2, 1, 8, 8, 8))  # its affine is one for all, and stays so
    assert tio.Augment(tio.RandomNoise())({"image": one})["image"].affine.shape == (4, 4)


def test_lists_of_dictionaries_are_batches(batch):
    elements = decollate_batch(batch)
    augment = lambda: tio.Augment(tio.RandomAffine(degrees=20), seed=5, labels=["label"])  # noqa: E731
    results, expected = augment()(elements), augment()(batch)
    for i, result in enumerate(results):
        assert isinstance(result["image"], MetaTensor) and result["image"].shape == (1, *SHAPE)
        for name in KEYS:
            assert torch.equal(result[name].as_tensor(), expected[name][i].as_tensor())
    # Those that do not stack get the same draws, one after the other.
    mixed = [{n: t.as_tensor()[..., :9] if i else t.as_tensor() for n, t in e.items()} for i, e in enumerate(elements)]
    noise = tio.RandomNoise(std=(0, 1))
    together = tio.Augment(noise, labels=["label"])([{n: t.as_tensor() for n, t in e.items()} for e in elements])
    apart = tio.Augment(noise, labels=["label"])(mixed)
    assert apart[1]["image"].shape == (1, 12, 14, 9) and torch.equal(apart[0]["image"], together[0]["image"])


def test_a_pipeline_is_cached_where_monais_transforms_are(paths, tmp_path):
    still = tio.as_monai(tio.Resample(2.0), KEYS, labels=["label"])
    moving = tio.as_monai(tio.RandomNoise(std=(0.5, 1)), "image")
    assert isinstance(moving, Randomizable) and not isinstance(still, Randomizable)
    steps = Compose([*loads(), still, moving])
    expected = Compose([*loads(), still])(paths[0])["image"]
    for dataset in (
        CacheDataset(paths, steps, num_workers=None, progress=False), PersistentDataset(paths, steps, tmp_path, track_meta=True)
    ):  # fmt: skip
        first, second = dataset[0]["image"], dataset[0]["image"]
        assert first.shape == expected.shape and not torch.equal(first, second)
        assert len(first.applied_operations) == len(expected.applied_operations) + 1
    assert torch.equal(dataset._cachecheck(paths[0])["image"], expected)


def test_the_random_state_repeats_it(paths):
    data = Compose(loads())(paths[0])
    steps = lambda: Compose([tio.as_monai(tio.RandomAffine(degrees=20), KEYS, labels=["label"])])  # noqa: E731
    first, second, other = (steps().set_random_state(seed=seed)(data)["image"] for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_of_monai_repeat_by_their_seed(paths, workers):
    found = []
    for _ in range(2):
        monai.utils.set_determinism(7)
        steps = Compose([*loads(), tio.as_monai(tio.RandomNoise(std=(0.5, 1)), "image")])
        found.append(
            [
                b["image"].as_tensor()
                for b in DataLoader(monai.data.Dataset(paths, steps), batch_size=2, num_workers=workers)
            ]
        )
    monai.utils.set_determinism(None)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    "t",
    [tio.RandomFlip(axes=(0, 1), flip_probability=1.0), tio.Compose([tio.Resample(0.7), tio.RandomAffine(degrees=5)])],
)
def test_it_can_be_inverted_by_compose_and_by_invertd(paths, t):
    steps = Compose([*loads(), tio.as_monai(t, KEYS, labels=["label"]), ScaleIntensityd("image")])
    given, data = Compose(loads()[:2])(paths[1]), steps(paths[1])
    predicted = {**copy.deepcopy(data), "pred": MetaTensor(data["label"].as_tensor().clone())}  # inverting eats records
    back = steps.inverse({n: data[n] for n in KEYS})
    inverted = Invertd("pred", steps, orig_keys="image", nearest_interp=True)(predicted)["pred"]
    for found in (back["label"], inverted):
        assert found.shape == given["label"].shape
        torch.testing.assert_close(found.affine, given["label"].affine, atol=1e-4, rtol=0)
        inside = (slice(None), *[slice(2, -2)] * 3)
        agree = (found.as_tensor()[inside] == given["label"].as_tensor()[inside]).double().mean()
        assert agree == 1 if isinstance(t, tio.RandomFlip) else agree > 0.95
        assert set(found.unique().tolist()) <= {0, 1}


def test_what_cannot_be_inverted_says_so(paths):
    crop = tio.as_monai(tio.RandomCrop(8, label_name="label"), KEYS, labels=["label"])
    data = Compose([*loads(), crop])(paths[0])
    with pytest.raises(RuntimeError, match="placed itself by voxels"):
        crop.inverse(data)
    flip = tio.as_monai(tio.Compose([tio.Flip(0), lambda subject: subject]), KEYS, labels=["label"])
    data = flip(Compose(loads())(paths[0]))
    with pytest.raises(RuntimeError, match="steps in torch"):
        flip.inverse(data)


def test_missing_keys_and_arrays():
    data = {"image": blobs(SHAPE, 0)[None], "age": 3}
    with pytest.raises(KeyError, match="label"):
        tio.as_monai(tio.Flip(0), KEYS)(data)
    result = tio.as_monai(tio.Flip(0), KEYS, labels=["label"], allow_missing_keys=True)(data)
    assert isinstance(result["image"], MetaTensor) and result["age"] == 3
    np.testing.assert_array_equal(result["image"].numpy(), Flip(0)(data["image"]))
    with pytest.raises(ValueError, match="two axes"):
        tio.as_monai(tio.Flip(0), "image")({"image": torch.rand(1, 8, 8)})


def test_crops_by_ratio_are_around_labels_as_often_as_asked():
    label = torch.zeros(1, 24, 24, 24)
    label[0, 12, 12, 12] = 1
    image = torch.arange(24.0**3).reshape(1, 24, 24, 24)
    t = tio.as_monai(tio.crop_by_ratio(5, "label", pos=3, neg=1), KEYS, labels=["label"], num_samples=60)
    samples = t.set_random_state(seed=0)({"image": image, "label": label, "age": 1})
    assert len(samples) == 60 and all(s["image"].shape == (1, 5, 5, 5) and s["age"] == 1 for s in samples)
    around = [bool(s["label"][0, 2, 2, 2]) for s in samples]
    assert 36 <= sum(around) <= 54  # 45 of 60, within three standard deviations
    assert [s["image"].meta["patch_index"] for s in samples[:2]] == [0, 1]
    corner = samples[0]["image"].affine[:3, 3].long().tolist()
    assert samples[0]["image"][0, 0, 0, 0] == image[0, *corner]
    with pytest.raises(ValueError, match="num_samples"):
        tio.as_monai(tio.Flip(0), "image", num_samples=2)


def test_dictionary_transforms_of_monai_move_labels_with_images():
    subject = tensors(age=4)
    t = tio.from_monai(Compose([RandFlipd(["t1", "label"], prob=1.0, spatial_axis=0), ScaleIntensityd("t1", 0, 2)]))
    result = t(subject)
    assert torch.equal(result.label.data, subject.label.data.flip(1)) and result.t1.data.max() == 2 and result.age == 4
    assert isinstance(result.label, tio.LabelMap) and torch.equal(subject.label.data, tensors().label.data)
    np.testing.assert_allclose(
        result.label.affine,
        np.asarray(Flipd("x", 0)({"x": MetaTensor(subject.label.data, affine=torch.from_numpy(OBLIQUE))})["x"].affine),
    )
    back = tio.from_monai(ScaleIntensity(0, 2))(subject)
    assert back.t1.data.max() == 2 and torch.equal(back.label.data, subject.label.data)
    with pytest.raises(TypeError, match="leave label where it is.*Flipd"):
        tio.from_monai(Flip(0))(subject)
    with pytest.raises(TypeError, match="draw anew.*RandFlipd"):
        tio.from_monai(RandFlip(prob=0.5), include=["t1", "label"])(subject)
    assert torch.equal(tio.from_monai(Flip(0), include=["t1"])(subject).t1.data, subject.t1.data.flip(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_script_of_a_monai_user(paths, tmp_path, workers):
    # Its random transforms replaced, nothing else: read, cached, cropped by ratio, trained, inferred, inverted, saved.
    fixed = Compose([*loads(), Spacingd(KEYS, 1.2, mode=("bilinear", "nearest")), ScaleIntensityd("image")])
    drawn = tio.Compose([tio.RandomAffine(degrees=10), tio.crop_by_ratio(8, "label", pos=2, neg=1), tio.RandomNoise()])
    augment = tio.as_monai(drawn, KEYS, labels=["label"], num_samples=2)
    train = CacheDataset(paths, Compose([*fixed.transforms, augment]), num_workers=None, progress=False)
    torch.manual_seed(0)
    network = monai.networks.nets.UNet(3, 1, 2, channels=(4, 8), strides=(2,))
    loss = monai.losses.DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters())
    for batch in DataLoader(train, batch_size=2, num_workers=workers):
        assert batch["image"].shape[1:] == batch["label"].shape[1:] == (1, 8, 8, 8)
        assert set(batch["label"].unique().tolist()) <= {0, 1}
        value = loss(network(batch["image"]), batch["label"])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    after = Compose([
        Invertd("pred", fixed, orig_keys="image", nearest_interp=True),
        SaveImaged("pred", output_dir=tmp_path, separate_folder=False, print_log=False),
    ])  # fmt: skip
    for batch in DataLoader(monai.data.Dataset(paths, fixed), batch_size=1, num_workers=workers):
        with torch.no_grad():
            logits = monai.inferers.sliding_window_inference(batch["image"], (8, 8, 8), 4, network)
        batch["pred"] = logits.argmax(1, keepdim=True)
        for one in decollate_batch(batch):
            after(one)
    for i, one in enumerate(paths):
        saved, given = nibabel.load(tmp_path / f"image{i}_trans.nii.gz"), nibabel.load(one["image"])
        assert saved.shape == given.shape
        np.testing.assert_allclose(saved.affine, given.affine, atol=1e-4)
