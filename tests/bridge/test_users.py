"""Transforms of the user's own, in torch, and the modules in which TorchIO keeps its names."""
# ruff: noqa: NPY002

import importlib
import pickle
import random

import numpy as np
import pytest
import torch
from bridge.shared import tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import DataLoader

import torch_bridge as tio


class Times(tio.IntensityTransform):
    """Intensities times a number."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.args_names = factor, ["factor"]

    def apply_transform(self, subject):
        for image in self.get_images(subject):
            image.set_data(image.data * self.factor)
        return subject


class Drawn(tio.RandomTransform):
    """Adds a number that torch, NumPy and Python draw."""

    def apply_transform(self, subject):
        subject.t1.data += torch.rand(1) + random.random() + np.random.rand()
        return subject


class Flagged(tio.RandomFlip):
    """medjax's flip, and an item of the user's."""

    def __init__(self, value=1, **kwargs):
        super().__init__(axes=(0,), **kwargs)
        self.value = value

    def apply_transform(self, subject):
        subject = super().apply_transform(subject)
        subject["flag"] = self.value
        return subject


class Turned(tio.RandomAffine):
    """medjax's affine with an argument of the user's, and no body."""

    def __init__(self, extra, **kwargs):
        super().__init__(degrees=(3, 3), **kwargs)
        self.extra = extra


def small(i=0):
    return tensors(i, (6, 8, 4), number=i)


def test_a_transform_in_torch_does_what_it_says_to_whatever_it_gets():
    subject, t = small(), Times(3)
    expected = 3 * subject.t1.data
    result = t(subject)
    assert torch.equal(result.t1.data, expected) and torch.equal(result.label.data, subject.label.data)
    assert not torch.equal(subject.t1.data, expected) and repr(t) == "Times(factor=3)"
    assert torch.equal(t(subject.t1).data, expected) and torch.equal(t(subject.t1.data), expected)
    np.testing.assert_array_equal(t(subject.t1.numpy()), expected)
    both = Times(3, include=["a"])({"a": subject.t1.data, "b": subject.t1.data, "c": "x"})
    assert torch.equal(both["a"], expected) and torch.equal(both["b"], subject.t1.data) and both["c"] == "x"
    assert torch.equal(Times(3, p=0)(subject).t1.data, subject.t1.data)
    assert torch.equal(Times(3, keep={"t1": "before"})(subject).before.data, subject.t1.data)
    assert torch.equal(Times(3, exclude=["t1"])(subject).t1.data, subject.t1.data)
    with pytest.raises(RuntimeError, match="include"):
        t({"a": subject.t1.data})
    with pytest.raises(ValueError, match="include or exclude"):
        Times(3, include=["t1"], exclude=["t2"])
    with pytest.raises(TypeError, match="must return a Subject"):
        tio.Compose([lambda x: None])(subject)


def test_every_transform_is_of_torchios_classes():
    assert isinstance(tio.RandomFlip(), tio.SpatialTransform) and issubclass(tio.RandomNoise, tio.IntensityTransform)
    assert issubclass(tio.RandomAffine, tio.transforms.augmentation.RandomTransform)
    assert isinstance(tio.Compose([]), tio.Transform) and issubclass(tio.RemapLabels, tio.LabelTransform)
    assert tio.RandomNoise(p=0.25).probability == 0.25 and tio.RandomNoise().name == "RandomNoise"


def test_steps_in_torch_stand_among_compiled_ones():
    subject = small()
    t = tio.Compose([Times(2), tio.Flip(axes=0), lambda s: s, tio.Compose([Times(5)]), Flagged(7, flip_probability=1)])
    result = t(subject)
    assert torch.equal(result.t1.data, 10 * subject.t1.data) and result.flag == 7
    assert "Times(factor=2)  in torch" in repr(t)
    assert torch.equal(Turned(4)(subject, 1).t1.data, tio.RandomAffine(degrees=(3, 3))(subject, 1).t1.data)
    one = tio.OneOf([Times(2), Times(4)])
    factors = {round(float((one(subject).t1.data / subject.t1.data).nanmean())) for _ in range(20)}
    assert factors == {2, 4}
    assert torch.equal(tio.Compose([Times(2)], p=0.0)(subject).t1.data, subject.t1.data)


@pytest.mark.parametrize("t", [
    tio.Compose([Drawn(), tio.RandomFlip(axes=(0, 1)), Drawn(p=0.5)]),
    tio.Compose([Times(2), tio.OneOf([Drawn(), tio.Flip(axes=0)])]),
    Drawn(),
])  # fmt: skip
def test_what_a_step_draws_is_the_same_with_any_number_of_workers(t):
    dataset = tio.SubjectsDataset([small(i) for i in range(4)], t)

    def epochs(workers):
        torch.manual_seed(5)
        loader = DataLoader(dataset, batch_size=2, num_workers=workers)
        return [batch["t1"][tio.DATA] for _ in range(2) for batch in loader]

    alone, many = epochs(0), epochs(2)
    assert all(torch.equal(a, b) for a, b in zip(alone, many, strict=True))
    assert not torch.equal(alone[0], alone[2])
    loaders = [tio.SubjectsLoader(dataset, 2, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    for a, b in zip(*loaders, strict=True):
        assert torch.equal(a["t1"][tio.DATA], b["t1"][tio.DATA])


def test_drawing_in_a_step_leaves_the_generators_alone():
    subject, t = small(), tio.Compose([Drawn(), tio.Flip(axes=0)])
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    t(subject, 3)
    found = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    assert found == (torch.rand(1).item(), random.random(), np.random.rand())
    assert torch.equal(t(subject, 3).t1.data, t(subject, 3).t1.data)


def test_a_local_class_reaches_the_loop_from_workers():
    class Local(tio.Transform):
        def apply_transform(self, subject):
            subject["seen"] = 1
            return subject

    dataset = tio.SubjectsDataset([small(i) for i in range(2)], tio.Compose([tio.RandomFlip(), Local()]))
    assert next(iter(DataLoader(dataset, batch_size=2, num_workers=1)))["seen"].tolist() == [1, 1]


def test_functions_may_be_written_in_torch_or_for_jax():
    subject = small()
    in_torch = tio.ZNormalization(masking_method=lambda x: x > x.float().mean())(subject)
    traced = tio.ZNormalization(masking_method=lambda x: x > x.mean())(subject)
    torch.testing.assert_close(in_torch.t1.data, traced.t1.data)
    doubled = tio.Lambda(lambda x: x.float().mul(2), types_to_apply=[tio.INTENSITY])(subject)
    assert torch.equal(doubled.t1.data, 2 * subject.t1.data) and torch.equal(doubled.label.data, subject.label.data)
    with pytest.raises(ValueError, match="must return a tensor"):
        tio.Lambda(lambda x: x[0])(subject)


def test_subclasses_pickle_and_take_attributes():
    t = pickle.loads(pickle.dumps(tio.Compose([Turned(4), Flagged(2)])))
    assert t[0].extra == 4 and t[1].value == 2
    t = tio.RandomSwap()
    t.patch_size = np.array((2, 2, 2))
    assert tuple(t.patch_size) == (2, 2, 2)


MODULES = [
    "data",
    "data.dataset",
    "data.image",
    "data.inference",
    "data.inference.aggregator",
    "data.io",
    "data.loader",
    "data.queue",
    "data.sampler",
    "data.sampler.weighted",
    "data.subject",
    "utils",
    "constants",
    "types",
    "datasets",
    "transforms.transform",
    "transforms.augmentation.intensity.random_bias_field",
    "transforms.augmentation.spatial.random_affine",
    "transforms.preprocessing.spatial.to_canonical",
    "transforms.preprocessing.intensity.z_normalization",
    "transforms.lambda_transform",
    "transforms.preprocessing.intensity.normalization_transform",
    "transforms.fourier",
]


@pytest.mark.parametrize("name", MODULES)
def test_torchios_modules_are_there_with_their_classes(name):
    torchio = pytest.importorskip("torchio")
    ours, theirs = importlib.import_module(f"torch_bridge.{name}"), importlib.import_module(f"torchio.{name}")
    for word, item in vars(theirs).items():
        if isinstance(item, type) and item.__module__ == theirs.__name__ and hasattr(tio, word):
            assert getattr(ours, word) is getattr(tio, word), word
    assert tio.inference.GridSampler is tio.GridSampler and tio.sampler.UniformSampler is tio.UniformSampler
    assert tio.io.read_image is tio.data.io.read_image
    assert all(getattr(tio, n) == getattr(torchio, n) for n in ("INTENSITY", "LABEL", "LOCATION", "NUM_SAMPLES"))
