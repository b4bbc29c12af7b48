import numpy as np
import pytest

from medjax.io import memory


@pytest.mark.parametrize("make", [memory.empty, memory.zeros])
@pytest.mark.parametrize("shape", [(), (4, 3), (1,), (3, 5, 7), (2, 1, 33, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_arrays_begin_on_a_boundary(make, shape, dtype):
    array = make(shape, np.dtype(dtype))
    assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous and array.flags.writeable
    assert array.ctypes.data % memory.ALIGNMENT == 0
    if make is memory.zeros:
        assert not array.any()
