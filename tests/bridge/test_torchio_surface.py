"""What scripts of TorchIO's users reach for beside transforms and loaders, against the installed torchio."""

import pickle
import warnings

import monai.transforms
import numpy as np
import pytest
import torch
import torchio
from bridge.shared import time_limit as time_limit

import torch_bridge as tio

SHAPE = (8, 6, 7)


def pair(**options):
    """The same subject for torchio and for the bridge."""
    generator = torch.Generator().manual_seed(0)
    data, label = torch.rand(1, *SHAPE, generator=generator), torch.zeros(1, *SHAPE)
    label[:, 2:5, 2:4, 3:5], label[:, 5, 4, 4] = 1, 2
    affine = np.diag([2.0, 1.0, 1.5, 1.0])
    return tuple(
        module.Subject(
            t1=module.ScalarImage(tensor=data.clone(), affine=affine, **options),
            label=module.LabelMap(tensor=label.clone(), affine=affine),
            age=4,
        )
        for module in (torchio, tio)
    )


def agree(ours, theirs):
    """Assert that two subjects hold the same images, and other items of the same names."""
    assert sorted(ours) == sorted(theirs)
    for name, image in theirs.get_images_dict(intensity_only=False).items():
        assert type(ours[name]).__name__ == type(image).__name__
        torch.testing.assert_close(ours[name].data, image.data, check_dtype=False)
        np.testing.assert_allclose(ours[name].affine, image.affine, atol=1e-6)


class Added(monai.transforms.MapTransform):
    """Puts a new image, a number and a list into the dictionary."""

    def __call__(self, data):
        return {**data, "new": data["t1"] + 1, "mean": torch.tensor(0.5), "names": ["a"]}


@pytest.mark.parametrize(
    "monai_transform",
    [
        monai.transforms.ScaleIntensityd(keys=["t1"], factor=2.0),
        monai.transforms.SpatialCropd(keys=["t1", "label"], roi_start=[1, 1, 1], roi_end=[5, 5, 6]),
        monai.transforms.ScaleIntensity(factor=2.0),
        monai.transforms.SpatialCrop(roi_start=[2, 0, 1], roi_end=[6, 4, 5]),
        Added(keys=["t1"]),
    ],
    ids=["intensity of one", "crop of both", "intensity of all", "crop of each", "new items"],
)
def test_a_transform_of_monai_does_what_it_does_in_torchio(monai_transform):
    theirs, ours = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torchio.MonaiAdapter(monai_transform)(theirs)
    result = tio.MonaiAdapter(monai_transform)(ours)
    agree(result, expected)
    assert not result.applied_transforms


def test_a_transform_of_monai_that_draws_for_each_image_is_warned_of():
    _, ours = pair()
    with pytest.warns(UserWarning, match="Randomizable"):
        tio.MonaiAdapter(monai.transforms.RandScaleIntensity(factors=0.5, prob=1.0))(ours)
    with pytest.raises(TypeError, match="callable"):
        tio.MonaiAdapter("ScaleIntensity")
    with pytest.raises(TypeError, match="single mapping"):
        tio.MonaiAdapter(type("Two", (Added,), {"__call__": lambda self, data: [data, data]})(keys=["t1"]))(ours)
    with pytest.raises(TypeError, match="Tensor"):
        tio.MonaiAdapter(lambda x: "text")(ours)


WRONG = {
    "text for numbers": lambda module: module.RandomNoise(std="wrong"),
    "None for a size": lambda module: module.RandomElasticDeformation(max_displacement=None),
    "a range upside down": lambda module: module.RandomGamma(log_gamma=(2, 1)),
    "a class for an object": lambda module: module.OneOf({module.RandomFlip: 1}),
    "a number for members": lambda module: module.OneOf(1),
    "a number for labels": lambda module: module.RandomLabelsToImage(used_labels=42),
    "a text for means": lambda module: module.RandomLabelsToImage(mean=["wrong"]),
    "one mean for two labels": lambda module: module.RandomLabelsToImage(label_key="label", mean=[0], std=[0, 1]),
    "a name for names": lambda module: module.RandomAffine(include="t1"),
    "no target": lambda module: module.Resample(None)(pair()[module is tio]),
    "two spacings": lambda module: module.Resample((1, 2))(pair()[module is tio]),
    "no such image": lambda module: module.Resample("missing")(pair()[module is tio]),
    "no such matrix": lambda module: module.Resample(1, pre_affine_name="missing")(pair()[module is tio]),
    "several channels": lambda module: module.OneHot()(module.LabelMap(tensor=torch.ones(2, 3, 3, 3))),
    "an abstract transform": lambda module: module.Transform(),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=list(WRONG))
def test_scripts_catch_what_they_caught(call):
    with pytest.raises(Exception) as theirs:
        call(torchio)
    kind = ValueError if theirs.type is AssertionError else theirs.type  # of `assert` statements
    with pytest.raises(kind) as ours:
        call(tio)
    assert str(ours.value) and not isinstance(ours.value, AssertionError)


def test_members_of_a_compose_are_a_list_that_may_be_changed():
    flip, pad = tio.Flip(0), tio.Pad(1)
    compose = tio.Compose([flip])
    assert compose.transforms == [flip] and tio.Compose({"a": flip, "b": pad}).transforms == [flip, pad]
    image = tio.ScalarImage(tensor=torch.arange(24.0).reshape(1, 2, 3, 4))
    assert compose(image).shape == (1, 2, 3, 4)
    compose.transforms.append(pad)
    assert compose(image).shape == (1, 4, 5, 6)
    compose.transforms.insert(0, lambda subject: subject)
    compose.transforms += [tio.Crop(1)]
    torch.testing.assert_close(compose(image).data, image.data.flip(1))
    compose.transforms.remove(pad)
    assert [t.name for t in compose.transforms[1:]] == ["Flip", "Crop"]


def test_members_are_the_same_after_pickling():
    compose = pickle.loads(pickle.dumps(tio.Compose([tio.Flip(0), tio.OneOf([tio.Flip(1), tio.Flip(2)])])))
    assert [t.name for t in compose.transforms] == ["Flip", "OneOf"]
    assert [t.name for t in compose.transforms[1].transforms] == ["Flip", "Flip"]


@pytest.mark.parametrize(
    "name, args", [("UniformSampler", (3,)), ("WeightedSampler", ((3, 4, 3), "label")),
                   ("LabelSampler", (3, "label")), ("LabelSampler", (3, None, {0: 1, 1: 2, 2: 1, 5: 3}))],
    ids=["uniform", "weighted", "any label", "labels"],
)  # fmt: skip
def test_a_sampler_tells_its_probabilities_and_cuts(name, args):
    theirs, ours = pair()
    expected, sampler = getattr(torchio.data, name)(*args), getattr(tio.data, name)(*args)
    torch.testing.assert_close(sampler.get_probability_map(ours), expected.get_probability_map(theirs).float())
    patch = sampler.extract_patch(ours, (1, 2, 3))
    reference = torchio.data.UniformSampler(args[0]).extract_patch(theirs, (1, 2, 3))
    assert patch[tio.LOCATION].tolist() == reference[torchio.LOCATION].tolist()
    torch.testing.assert_close(patch.t1.data, reference.t1.data)
    np.testing.assert_allclose(patch.t1.affine, reference.t1.affine)


def test_a_sampler_without_a_place_is_abstract():
    for call in (lambda s: s(pair()[1], 2), lambda s: s.get_probability_map(pair()[1])):
        with pytest.raises(NotImplementedError):
            call(tio.data.sampler.RandomSampler(1))


def test_landmarks_are_learned_with_masks(tmp_path):
    paths, masks = [], []
    for i in range(3):
        for made, data in ((paths, 100 * np.random.default_rng(i).random((1, 9, 9, 9))), (masks, None)):
            path = tmp_path / f"{i}_{len(made)}_{data is None}.nii.gz"
            data = (np.random.default_rng(i + 9).random((1, 9, 9, 9)) > 0.5).astype(np.uint8) if data is None else data
            torchio.ScalarImage(tensor=data.astype(np.float32)).save(path)
            made.append(path)
    for options in ({"mask_path": masks}, {"mask_path": masks[0]}, {"masking_function": lambda x: x > 20}, {}):
        options["progress"] = False
        expected = torchio.HistogramStandardization.train(paths, **options)
        np.testing.assert_allclose(tio.HistogramStandardization.train(paths, **options), expected, rtol=1e-5)
        assert tio.train_histogram is tio.HistogramStandardization.train
    tio.HistogramStandardization.train(paths, output_path=tmp_path / "found.txt", progress=False)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "found.txt"), expected, rtol=1e-5)
    torch.save({"t1": torch.from_numpy(expected)}, tmp_path / "found.pt")
    np.testing.assert_allclose(
        tio.HistogramStandardization(tmp_path / "found.pt").landmarks_dict["t1"], expected, rtol=1e-6
    )
    with pytest.raises(ValueError, match="mask_path"):
        tio.HistogramStandardization.train(paths, mask_path=masks[:2])


def test_a_matrix_before_the_affine_is_taken_up():
    matrix = np.eye(4)
    matrix[:3, 3] = 10, -2, 0.5
    theirs, ours = pair(before=matrix)
    expected = torchio.Resample((2, 1, 1.5), pre_affine_name="before")(theirs)
    agree(tio.Resample((2, 1, 1.5), pre_affine_name="before")(ours), expected)


def test_the_way_back_of_what_changes_shapes():
    _, ours = pair()
    for t in (tio.Pad((1, 2, 0, 1, 3, 0)), tio.Transpose(), tio.Compose([tio.Pad(1), tio.OneHot()])):
        assert t.is_invertible()
        back = t.inverse()(t(ours))
        agree(back, ours)
    assert tio.Crop(1).inverse()(tio.Crop(1)(ours)).shape == ours.shape
    agree(tio.OneHot()(ours).apply_inverse_transform(), ours)


def test_options_of_scikit_learn_that_change_nothing_are_taken():
    tio.PCA(pca_kwargs={"random_state": 0, "svd_solver": "full"})
    with pytest.raises(ValueError, match="whiten"):
        tio.PCA(pca_kwargs={"whiten": False})


def test_a_transform_tells_hydra_how_to_make_it_again():
    config = tio.Compose([tio.RandomFlip(axes=(0, 1)), tio.CropOrPad(4), tio.RandomNoise(p=0.5)]).to_hydra_config()
    flip, crop, noise = config["transforms"]
    assert config["_target_"].endswith(".Compose") and flip["_target_"].endswith(".RandomFlip")
    assert flip["axes"] == [0, 1] and noise["p"] == 0.5
    given = {name: value for name, value in crop.items() if name != "_target_"}
    image = tio.ScalarImage(tensor=torch.rand(1, *SHAPE))
    assert getattr(tio, crop["_target_"].rpartition(".")[2])(**given)(image).shape == (1, 4, 4, 4)


def test_matrices_are_the_files_of_torchio(tmp_path):
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] += torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4
    for suffix in (".tfm", ".h5", ".txt"):
        path, other = tmp_path / f"ours{suffix}", tmp_path / f"theirs{suffix}"
        tio.io.write_matrix(matrix, path)
        torchio.data.io.write_matrix(matrix, other)
        for read in (tio.io.read_matrix, torchio.data.io.read_matrix):
            for each in (path, other):
                torch.testing.assert_close(read(each).double(), matrix, atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match="tfm"):
        tio.io.read_matrix(tmp_path / "matrix.npy")


def test_small_helpers_say_what_torchios_say(monkeypatch):
    import SimpleITK as sitk

    for text in ("None", "1", "1.5", "(1, 3, 5)", "[1,3]", "test"):
        assert tio.utils.guess_type(text) == torchio.utils.guess_type(text)
    assert tio.utils.normalize_path("~/x") == torchio.utils.normalize_path("~/x")
    monkeypatch.setenv("SITK_SHOW_COMMAND", "/usr/bin/viewer")
    assert tio.utils.guess_external_viewer() == torchio.utils.guess_external_viewer()
    image = sitk.GetImageFromArray(np.zeros(SHAPE))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-10.0, 20.0, 5.0))
    image.SetDirection((-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    expected = torchio.data.io.get_ras_affine_from_sitk(image)
    np.testing.assert_allclose(tio.io.get_ras_affine_from_sitk(image), expected)


def test_pictures_are_those_of_torchio(tmp_path):
    import matplotlib.pyplot as plt
    from PIL import Image

    data = 255 * torch.rand(3, 6, 8, 1, generator=torch.Generator().manual_seed(0))
    ours, theirs = tio.ScalarImage(tensor=data), torchio.ScalarImage(tensor=data)
    np.testing.assert_array_equal(np.asarray(ours.as_pil()), np.asarray(theirs.as_pil()))
    volumes = [module.ScalarImage(tensor=data[:1].expand(1, 6, 8, 5).clone()) for module in (tio, torchio)]
    for axis in range(3):
        frames = []
        for name, volume in zip(("ours", "theirs"), volumes, strict=True):
            volume.to_gif(axis, 1, tmp_path / f"{name}.gif")
            with Image.open(tmp_path / f"{name}.gif") as gif:
                frames.append((gif.n_frames, gif.size))
        assert frames[0] == frames[1]
    with plt.rc_context({"backend": "agg"}):
        volumes[0].hist(show=False)
        plt.close("all")
    with pytest.raises(RuntimeError, match="2D"):
        volumes[0].as_pil()


def test_data_sets_of_torchio_come_as_the_bridges():
    theirs, _ = pair()

    class Made(torchio.SubjectsDataset):
        """As those that torchio downloads."""

        def __init__(self, root, download=False):
            super().__init__([theirs, theirs])

    dataset = tio.datasets.delegated(Made)("folder", download=True, transform=tio.Crop(1))
    assert isinstance(dataset, tio.SubjectsDataset) and len(dataset) == 2
    assert dataset[1].t1.shape == (1, 6, 4, 5) and dataset[1].age == 4
