"""The adapters: medjax's transforms, with tensors in and out and keys from torch."""

import inspect
import pickle

import jax
import numpy as np
import pytest
import torch
from bridge.shared import tensors, voxels
from bridge.shared import time_limit as time_limit

import medjax as mj
import torch_bridge as tio
from medjax.transforms.transform import REGISTRY
from torch_bridge.transforms import OVERRIDDEN

PUBLIC = [name for name in REGISTRY if getattr(mj, name, None) is REGISTRY[name] and name != "Lambda"]
CASES = {
    "Compose": lambda m: m.Compose([m.RandomAffine(degrees=10), m.RandomNoise(std=(0, 1)), m.RandomFlip(axes=("LR",))]),
    "OneOf": lambda m: m.OneOf({m.RandomGamma(): 2, m.RandomBiasField(): 1}),
    "Resample": lambda m: m.Compose([m.Resample(1.0), m.CropOrPad((16, 16, 16)), m.ZNormalization()]),
    "RemapLabels": lambda m: m.RemapLabels({2: 1}),
    "OneHot": lambda m: m.OneHot(num_classes=3),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_every_transform_is_there_as_a_subclass(name):
    cls, parent = getattr(tio, name), REGISTRY[name]
    assert cls is getattr(tio.transforms, name) and issubclass(cls, parent)
    assert (cls.__doc__ == parent.__doc__ or name in OVERRIDDEN) and pickle.loads(pickle.dumps(cls)) is cls
    given = list(inspect.signature(cls).parameters)
    assert name in OVERRIDDEN or given == [
        *inspect.signature(parent).parameters,
        "copy",
        "keys",
        "parse_input",
        "label_keys",
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_medjaxs_for_the_same_key(name):
    key, subject = jax.random.key(3), tensors()
    inner = subject.as_medjax()
    inner = inner.replace(label=inner.label.replace(data=inner.label.data.astype(np.int32)))
    result, expected = CASES[name](tio)(subject, key), CASES[name](mj)(inner, key)
    for n, image in expected.images.items():
        np.testing.assert_array_equal(result[n].numpy(), np.asarray(image.data))
        np.testing.assert_array_equal(result[n].affine, image.affine)
        assert isinstance(result[n], tio.LabelMap if n == "label" else tio.ScalarImage)


@pytest.mark.parametrize("name", CASES)
def test_it_pickles_and_round_trips_through_its_configuration(name):
    t, subject = CASES[name](tio), tensors()
    expected = voxels(t(subject, 1))
    for other in (pickle.loads(pickle.dumps(t)), tio.from_config(tio.to_config(t))):
        assert type(other) is type(t) and repr(other) == repr(t)
        for n, array in voxels(other(subject, 1)).items():
            np.testing.assert_array_equal(array, expected[n])


def test_keys_come_from_torchs_generator():
    t, subject = tio.RandomNoise(), tensors()
    torch.manual_seed(4)
    first, second = t(subject).t1.data, t(subject).t1.data
    torch.manual_seed(4)
    assert torch.equal(t(subject).t1.data, first) and not torch.equal(first, second)
    state = torch.get_rng_state()
    t(subject, 3)
    tio.Flip(axes=0)(subject)
    tio.ZNormalization()(subject)
    assert torch.equal(torch.get_rng_state(), state), "a key was drawn that was not needed"


def test_an_integer_is_a_seed():
    t, subject = tio.RandomNoise(), tensors()
    assert torch.equal(t(subject, 7).t1.data, t(subject, jax.random.key(7)).t1.data)
    assert not torch.equal(t(subject, 7).t1.data, t(subject, 8).t1.data)


def test_torchios_arguments_are_taken():
    subject = tensors()
    result = tio.RandomNoise(std=(1, 1), copy=False, keep={"t1": "before"}, include=["t1"])(subject)
    assert torch.equal(result.before.data, subject.t1.data) and not torch.equal(result.t1.data, subject.t1.data)
    assert torch.equal(result.t2.data, subject.t2.data)
    with pytest.raises(TypeError, match="std_dev"):
        tio.RandomNoise(std_dev=1)


def test_every_kind_of_input_comes_back_as_it_was():
    subject, t = tensors(), tio.Flip(axes=0)
    expected = subject.t1.data.flip(1)
    assert torch.equal(t(subject).t1.data, expected)
    assert isinstance(t(subject.t1), tio.ScalarImage) and torch.equal(t(subject.t1).data, expected)
    assert torch.equal(t(subject.t1.data), expected)
    array = t(subject.t1.numpy())
    assert isinstance(array, np.ndarray) and np.array_equal(array, expected)
    both = t({"t1": subject.t1.data, "label": subject.label.data}, labels=["label"])
    assert torch.equal(both["t1"], expected) and both["label"].dtype == torch.int64
    assert isinstance(t(subject.as_medjax().t1), mj.ScalarImage)
    with pytest.raises(TypeError, match="list"):
        t([1, 2])


def test_draws_are_replayed_and_inverted():
    t, subject = tio.Compose([tio.RandomFlip(axes=(0, 1), flip_probability=1), tio.RandomNoise()]), tensors()
    params = t.sample(3, subject)
    assert torch.equal(t.apply(subject, params).t1.data, t(subject, 3).t1.data)
    back = t.invert(t(subject, 3), params, like=subject)
    torch.testing.assert_close(back.t1.data, subject.t1.data, atol=1e-5, rtol=1e-5)


def test_a_batch_is_transformed_as_a_batch():
    subject = tensors(age=3)
    batch = torch.utils.data.default_collate([subject, tensors(1, age=4)])
    keys = jax.random.split(jax.random.key(0), 2)
    result = tio.RandomNoise().batch(batch, keys)
    assert isinstance(result, tio.Batch) and result.age.tolist() == [3, 4]
    torch.testing.assert_close(result.t1.data[0], tio.RandomNoise()(subject, keys[0]).t1.data)


@pytest.mark.parametrize(
    "name, ours",
    [("DivisiblePad", "EnsureShapeMultiple"), ("Standardize", "ZNormalization"),
     ("RandomNoize", "RandomNoise")],
)  # fmt: skip
def test_unknown_names_are_answered_with_ours(name, ours):
    for module in (tio, tio.transforms):
        with pytest.raises(AttributeError, match=ours):
            getattr(module, name)


def test_landmarks_are_learned_from_images_and_paths(tmp_path):
    images = [tensors(i).t1 for i in range(3)]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.nii.gz")
    lazy = [tio.ScalarImage(tmp_path / f"{i}.nii.gz") for i in range(3)]
    train = tio.transforms.HistogramStandardization.train
    one = train(images, output_path=tmp_path / "landmarks.npy", progress=False)
    for other in (lazy, [tmp_path / f"{i}.nii.gz" for i in range(3)]):
        np.testing.assert_allclose(np.asarray(train(other, progress=False)), np.asarray(one), rtol=1e-5)
    assert lazy[0]._tensor is None
    for landmarks in (one, tmp_path / "landmarks.npy"):
        result = tio.HistogramStandardization({"t1": landmarks})(tensors())
        assert torch.isfinite(result.t1.data).all() and result.t1.data.max() > 90


def test_distributed_ranks_draw_differently(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    found = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        torch.manual_seed(0)
        found.append(tio.RandomNoise()(tensors()).t1.data)
    assert not torch.equal(*found)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_medjax_builds_without_arguments_is_built_here(name):
    try:
        expected = REGISTRY[name]()
    except (TypeError, ValueError):
        return
    if name == "LabelsToImage":  # TorchIO's own must be told labels, means and deviations
        return
    made = getattr(tio, name)()
    assert name in OVERRIDDEN or repr(made) == repr(expected)
