import math

import jax
import numpy as np
import pytest

import medjax as mj
from medjax.io import memory
from medjax.transforms import buckets

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"])
def test_in_order_is_the_same_array_with_the_last_axis_contiguous(dtype):
    array = (RNG.normal(size=(2, 7, 6, 5)) * 100).astype(dtype)
    for view in (array, array.transpose(0, 3, 2, 1), array[:, ::-1, ::2], array.transpose(3, 1, 0, 2)):
        found = buckets.in_order(view)
        assert isinstance(found, np.ndarray) and found.flags.c_contiguous and found.dtype == dtype
        np.testing.assert_array_equal(found, view)
    assert buckets.in_order(array) is array


def test_in_order_without_a_cpu_platform(monkeypatch):
    monkeypatch.setattr(buckets, "cpu", lambda: None)
    view = np.arange(24).reshape(1, 4, 3, 2).transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(buckets.in_order(view), view)


def test_padded_is_aligned_and_knows_its_extent():
    image = mj.ScalarImage(RNG.integers(0, 9, (1, 5, 6, 7)).astype(np.int16).transpose(0, 3, 2, 1))
    wide = buckets.padded(image, (8, 8, 8))
    assert wide.data.ctypes.data % memory.ALIGNMENT == 0 and wide.extent.tolist() == [7, 6, 5]
    np.testing.assert_array_equal(wide.data[:, :7, :6, :5], image.data)
    assert not wide.data[:, 7:].any() and not wide.data[:, :, 6:].any() and not wide.data[..., 5:].any()


def test_a_batch_is_taken_by_jax_without_a_copy():
    images = [mj.ScalarImage(np.full((1, 4, 5, 6), n, np.int16)) for n in range(3)]
    for shape in (None, (8, 8, 8), {"a": (4, 9, 6)}):
        batch = mj.stack([mj.Subject(a=image) for image in images], shape=shape).a
        assert batch.data.flags.c_contiguous and (batch.extent is None) == (shape is None)
        assert jax.device_put(batch.data).unsafe_buffer_pointer() == batch.data.ctypes.data
        np.testing.assert_array_equal(batch.data[:, 0, 3, 4, 5], [0, 1, 2])


def test_a_batch_keeps_the_order_of_a_file_in_memory():
    image = mj.ScalarImage(np.zeros((1, 6, 5, 4), np.int16).transpose(0, 3, 2, 1))
    batch = mj.stack([mj.Subject(a=image)] * 2).a.data
    assert batch.shape == (2, 1, 4, 5, 6) and batch.transpose(0, 1, 4, 3, 2).flags.c_contiguous


def test_stack_names_an_image_that_is_larger_than_its_shape():
    subject = mj.Subject(a=mj.ScalarImage(np.zeros((1, 4, 5, 6))))
    with pytest.raises(ValueError, match=r"smaller than a of shape \(4, 5, 6\)"):
        mj.stack([subject], shape=(4, 5, 5))


def test_a_bucket_is_at_most_half_as_long_again_and_never_more_than_can_be_counted():
    draw = np.random.default_rng(3)
    for shape in draw.integers(1, 700, (300, 3)).tolist():
        for grown, most in ((buckets.bucket(shape), 1.5), (buckets.rounded(shape), 16)):
            assert all(n <= m <= (max(n * most, 8) if most < 2 else n + 15) for n, m in zip(shape, grown))
            assert all(m == 1 for n, m in zip(shape, grown) if n == 1)
    assert len({buckets.bucket((n, 1, 1)) for n in range(1, 1025)}) == 18
    assert buckets.bucket((1025, 1025, 513)) == (1536, 1536, 768) and math.prod((1536, 1536, 768)) < 2**31
    for shape in ((1030, 1500, 1300), (2047, 1023, 1025)):
        assert math.prod(shape) < 2**31 and buckets.bucket(shape) == shape and math.prod(buckets.rounded(shape)) < 2**31


def test_more_voxels_than_can_be_counted_are_refused_before_they_are_touched():
    image = mj.ScalarImage.of(np.broadcast_to(np.uint8(0), (1, 2048, 1024, 1024)), np.eye(4))
    with pytest.raises(ValueError, match="image 'image' has shape .*2147483648 voxels: at most 2147483647"):
        mj.Flip(0)(image)
    small = mj.ScalarImage(np.zeros((1, 4, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="the result has shape .*2000, 2000, 2000.* at most 2147483647"):
        mj.Resample(0.002)(small)
