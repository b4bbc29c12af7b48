"""Voxels between torch and JAX: where they are shared, what is copied, what is refused, and who may write."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from bridge.shared import files, tensors, voxels
from bridge.shared import time_limit as time_limit

import torch_bridge as tio
from medjax import io
from torch_bridge import dlpack

SHARED = [torch.float32, torch.float16, torch.bfloat16, torch.int16, torch.int32, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", SHARED)
def test_memory_is_shared_both_ways(dtype):
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    array = tio.to_jax(tensor)
    assert array.unsafe_buffer_pointer() == tensor.data_ptr()
    back = tio.to_torch(array)
    assert back.data_ptr() == tensor.data_ptr() and back.dtype == dtype
    assert torch.equal(back, tensor)
    assert tio.to_torch(array, copy=True).data_ptr() != tensor.data_ptr()
    assert tio.to_jax(tensor, copy=True).unsafe_buffer_pointer() != tensor.data_ptr()


def test_tensors_that_are_not_contiguous_are_copied():
    tensor = torch.arange(24.0).reshape(2, 3, 4)[:, ::2]
    np.testing.assert_array_equal(tio.to_jax(tensor), tensor.numpy())
    flipped = np.arange(6.0)[::-1]
    assert torch.equal(tio.to_torch(flipped), torch.tensor([5.0, 4, 3, 2, 1, 0], dtype=torch.float64))


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**40])
def test_whole_numbers_that_32_bits_cannot_hold_are_refused(value):
    tensor = torch.tensor([[[[0, value]]]])
    with pytest.raises(ValueError, match=str(value)):
        tio.to_jax(tensor)
    subject = tio.Subject(label=tio.LabelMap(tensor=tensor))
    with pytest.raises(ValueError, match=str(value)):
        tio.Flip(axes=0)(subject)


def test_fractions_that_32_bits_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="too large"):
        tio.to_jax(torch.tensor([1e300], dtype=torch.float64))
    assert np.isinf(tio.to_jax(torch.tensor([torch.inf], dtype=torch.float64)))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int16, torch.float64, torch.bfloat16])
def test_indexing_keeps_the_type(dtype):
    tensor = torch.arange(2 * 3 * 4).reshape(1, 2, 3, 4).to(dtype)
    cls = tio.ScalarImage if dtype.is_floating_point else tio.LabelMap
    flipped = tio.Flip(axes=(0, 2))(tio.Subject(image=cls(tensor=tensor))).image.data
    assert flipped.dtype == dtype
    assert torch.equal(flipped, tensor.flip(1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fractions_come_back_in_their_type(dtype):
    image = tio.ScalarImage(tensor=torch.rand(1, 8, 8, 8).to(dtype))
    assert tio.RandomNoise()(image).data.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_unsigned_numbers_become_signed(dtype):
    image = tio.ScalarImage(tensor=np.full((1, 2, 2, 2), 60000, dtype))
    assert image.data.dtype == (torch.int32 if dtype == np.uint16 else torch.int64)
    assert image.data.max() == 60000


def test_a_gradient_is_not_cut_without_a_word():
    tensor = torch.ones(1, 2, 2, 2, requires_grad=True)
    with pytest.raises(ValueError, match="differentiable"):
        tio.RandomNoise()(tensor)
    with torch.no_grad():
        tio.RandomNoise()(tensor)


PIPELINES = {
    "gated out": lambda: tio.RandomNoise(p=0),
    "nothing": lambda: tio.Compose([]),
    "flip": lambda: tio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
    "crop": lambda: tio.Crop(0),
    "the same shape": lambda: tio.CropOrPad((20, 24, 16)),
    "the same spacing": lambda: tio.Resample((1, 2, 1.5)),
    "one image": lambda: tio.RandomNoise(include=["t1"]),
    "kept": lambda: tio.RandomNoise(include=["t1"], keep={"t1": "before", "t2": "other"}),
    "kept and gated out": lambda: tio.RandomNoise(p=0, keep={"t1": "before"}),
    "labels": lambda: tio.RemapLabels({2: 1}),
    "moved": lambda: tio.Compose([tio.RandomAffine(), tio.RandomNoise(p=0.5)]),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_every_tensor_of_a_result_may_be_written_to(name):
    t, subject = PIPELINES[name](), tensors()
    subject.third = tio.ScalarImage(tensor=subject.t1.data.clone(), affine=subject.t1.affine)
    before = voxels(subject)
    lent = {n: tio.to_jax(image.data, copy=True) for n, image in subject.get_images_dict(intensity_only=False).items()}
    result, again = t(subject, 1), t(subject, 1)
    expected = voxels(result)
    for image in result.get_images_dict(intensity_only=False).values():
        image.data.fill_(7)
        others = {n: i for n, i in result.get_images_dict(intensity_only=False).items() if i is not image}
        for n, other in others.items():
            assert other.data.data_ptr() != image.data.data_ptr(), n
    for n, array in voxels(again).items():
        np.testing.assert_array_equal(array, expected[n])
    for n, array in voxels(subject).items():
        np.testing.assert_array_equal(array, before[n])
        np.testing.assert_array_equal(array, np.asarray(lent[n]).astype(array.dtype))
    for n, array in voxels(t(subject, 1)).items():
        np.testing.assert_array_equal(array, expected[n])


def test_an_input_may_be_written_to_right_after_a_call():
    subject = tensors(shape=(64, 64, 64))
    t = tio.Compose([tio.RandomAffine(), tio.RandomBlur()])
    expected = voxels(t(subject, 0))
    result = t(subject, 0)
    for image in subject.get_images_dict(intensity_only=False).values():
        image.data.fill_(9)
    for name, array in voxels(result).items():
        np.testing.assert_array_equal(array, expected[name])


def test_the_tensors_of_a_batch_may_be_written_to(tmp_path):
    subjects = files(tmp_path)
    dataset = tio.SubjectsDataset(subjects, tio.RandomFlip(axes=0))
    one, other = dataset[0], dataset[1]
    batch = torch.utils.data.default_collate([one, other])
    expected = batch.t1.data.clone()
    several = batch.unstacked()
    assert torch.equal(several[1].t1.data, expected[1])
    batch.t1.data[0] = 5
    assert torch.equal(batch.t1.data[1], expected[1])
    alone = copy.deepcopy(dataset[0])
    alone.t1.data.fill_(3)
    assert not torch.equal(dataset[0].t1.data, alone.t1.data)


def test_what_others_keep_is_not_written_to():
    array = jnp.arange(24, dtype=jnp.float32).reshape(1, 2, 3, 4)
    kept = np.ones((1, 2, 3, 4), np.float32)
    for image in (tio.ScalarImage(tensor=array), tio.ScalarImage("kept", reader=lambda path: kept, verify_path=False)):
        image.data.fill_(0)
    assert jax.device_get(array).max() == 23 and kept.all()


# -- the gate, as medjax has it


VALUES = {
    torch.int64: [0, 2**31 - 1, 2**31, -(2**31) - 1, 2**40, 16777217],
    torch.uint64: [0, 2**31, 2**32 - 1, 2**32, 2**64 - 1],
    torch.float64: [0, 0.1, 2.0**24 + 1, 2.0**24 + 2, 3.4e38, 3.5e38, float("inf"), float("nan")],
}


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("dtype, value", [(d, v) for d, values in VALUES.items() for v in values], ids=str)
def test_tensors_are_narrowed_by_the_rule_of_medjax(dtype, value, labels):
    tensor = torch.tensor([1, value, 0], dtype=dtype).reshape(1, 3, 1, 1)
    try:
        expected = io.narrowed(tensor.numpy(), "it", labels)
    except ValueError:
        with pytest.raises(ValueError, match="renumber"):
            dlpack.narrowed(tensor, labels)
        return
    found = dlpack.narrowed(tensor, labels).numpy()
    assert found.dtype == (np.float32 if expected.dtype == np.float64 else expected.dtype)
    np.testing.assert_array_equal(found, expected.astype(found.dtype))


def test_labels_of_64_bits_are_refused_and_intensities_are_not(tmp_path):
    tensor = torch.tensor([0, 2**40]).reshape(1, 2, 1, 1)
    flip = tio.Flip(axes=0)
    assert torch.equal(flip(tio.ScalarImage(tensor=tensor)).data, tensor.flip(1).float())
    assert torch.equal(flip(tensor), tensor.flip(1).float())
    assert torch.equal(flip({"a": tensor})["a"], tensor.flip(1).float())
    for call in (lambda: flip(tio.LabelMap(tensor=tensor)), lambda: flip({"a": tensor}, labels=["a"])):
        with pytest.raises(ValueError, match=str(2**40)):
            call()
    odd = torch.tensor([0.0, 2.0**24 + 1], dtype=torch.float64).reshape(1, 2, 1, 1)
    with pytest.raises(ValueError, match="16777217"):
        flip(tio.LabelMap(tensor=odd))
    # In a file: the tensor is what is stored, whatever JAX makes of it later.
    tio.LabelMap(tensor=tensor).save(tmp_path / "a.nii")
    image = tio.LabelMap(tmp_path / "a.nii")
    assert torch.equal(image.data, tensor)
    with pytest.raises(ValueError, match=str(2**40)):
        flip(tio.LabelMap(tmp_path / "a.nii"))


@pytest.mark.parametrize("make", [tio.ScalarImage, tio.LabelMap])
def test_tensors_that_are_no_voxels_are_refused(make):
    cube = torch.zeros(1, 2, 2, 2)
    for tensor in (cube.to(torch.complex64), cube.to_sparse()):
        with pytest.raises(ValueError, match="tensor must hold real numbers"):
            make(tensor=tensor)
        with pytest.raises(ValueError, match="tensor must hold real numbers"):
            make(tensor=cube).set_data(tensor)
    with pytest.raises(ValueError, match="no voxels"):
        make(tensor=cube[:, :0])
    with pytest.raises(ValueError, match="complex64"):
        tio.Flip(axes=0)(cube.to(torch.complex64))
    for dtype in ("c8", "O", [("R", "u1"), ("G", "f4")]):
        with pytest.raises(ValueError, match="tensor is of dtype"):
            make(tensor=np.zeros((1, 2, 2, 2), dtype))
    for dtype in (">i2", ">f4", "g", "u4"):
        assert torch.equal(make(tensor=np.ones((1, 2, 2, 2), dtype)).data.double(), torch.ones(1, 2, 2, 2).double())


def test_a_tensor_without_an_affine_beside_an_image_with_one_is_warned_of():
    subject = tensors()
    affine = np.diag([1, 1, 1, 1.0]) + 3 * np.eye(4, k=3)
    subject = tio.Subject(
        t1=tio.ScalarImage(tensor=subject.t1.data, affine=affine), seg=tio.LabelMap(tensor=subject.label.data)
    )
    collated = torch.utils.data.default_collate
    for given in (subject, copy.deepcopy(subject), collated([tio.SubjectsDataset([subject])[0]] * 2)):
        with pytest.warns(UserWarning, match="seg was given without an affine"):
            (tio.Flip(axes=0) if isinstance(given, tio.Subject) else tio.Flip(axes=0).batch)(given)
