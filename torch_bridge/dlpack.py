"""Voxels between torch and JAX, in the memory where they lie wherever that is right.

JAX counts on nobody writing to its arrays, torch users write to tensors. So a tensor is lent to JAX for the length of a
call that waits for its result, and an array becomes a tensor for good: whoever makes it one gives it up.
"""

from collections.abc import Iterable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch

from medjax.io import gate

NARROW = {torch.int64: torch.int32, torch.uint64: torch.uint32, torch.float64: torch.float32}
"""What JAX holds in 32 bits unless `jax_enable_x64` is set."""
SIGNED = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}
"""Unsigned types with which torch cannot compute, and the type that an image of them gets, as in TorchIO."""


def to_jax(tensor: torch.Tensor, *, copy: bool = False) -> jax.Array:
    """A tensor as an array, on its device.

    The array lies in the memory of the tensor, which must not be written to while the array is in use; `copy=True`
    ends that. One copy is made of a tensor that is not contiguous, of one on a CPU that does not begin on a 64-byte
    boundary, and of int64, uint64 and float64, which become 32 bits wide unless `jax_enable_x64` is set.
    Raises ValueError for a number that 32 bits cannot hold, and for a tensor that autograd follows.
    """
    tensor = narrowed(detached(tensor), None).contiguous()
    array = jnp.from_dlpack(tensor)
    return jnp.array(array, copy=True) if copy else array


def to_torch(array: jax.Array | np.ndarray, *, copy: bool = False) -> torch.Tensor:
    """An array as a tensor, on its device; waits until the array is there.

    The tensor lies in the memory of the array, which must not be used any more once the tensor is written to;
    `copy=True` ends that. One copy is made of NumPy arrays of a foreign byte order or that may not be written to, and
    of unsigned integers of 16 bits and more, which become int32 or int64: torch cannot compute with them. Where torch
    has no GPU, arrays on one are copied to the host.
    """
    if isinstance(array, jax.Array) and next(iter(array.devices())).platform != "cpu" and not torch.cuda.is_available():
        return to_torch(np.array(array))  # this torch has no GPU
    if isinstance(array, jax.Array):
        tensor = torch.from_dlpack(jax.block_until_ready(array))
        if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64):
            return tensor.to(torch.int32 if tensor.dtype == torch.uint16 else torch.int64)
        return tensor.clone() if copy else tensor
    if array.dtype.type is ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return tensor.clone() if copy else tensor
    native = array.dtype.newbyteorder("=")
    array = array.astype(SIGNED.get(native, native), copy=copy)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def lent(tensor: torch.Tensor, labels: bool | None = None) -> jax.Array | np.ndarray:
    """A tensor as medjax takes it: a view of its memory, for a call that waits for its result.

    On a CPU a NumPy one, which medjax pads to few shapes and brings to the device; it starts no backend.
    labels: whether it holds labels, None if that is not known; see `narrowed`.
    """
    tensor = narrowed(detached(tensor), labels)
    if tensor.device.type == "cuda" and jax.default_backend() == "gpu":
        return jnp.from_dlpack(tensor.contiguous())
    tensor = tensor.cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def detached(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without its history. Raises ValueError where that would cut a gradient without a word."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "this tensor requires a gradient, which a transform does not pass on: torch_bridge.differentiable(pipeline)"
            " does; or give tensor.detach()"
        )
    return tensor.detach()


def narrowed(tensor: torch.Tensor, labels: bool | None) -> torch.Tensor:
    """The tensor in a type that JAX has, by the rule of `medjax.io.narrowed`.

    labels: whether it holds labels, which must not become others; where they do not fit, intensities become float32.
    None, not known: whole numbers that do not fit are refused.
    Raises ValueError for a number that does not survive, and for complex numbers.
    """
    if tensor.is_complex():
        raise ValueError(f"a tensor of {tensor.dtype} holds no voxels: give the magnitude, or two real channels")
    config: Any = jax.config
    if tensor.dtype not in NARROW or config.jax_enable_x64 or not tensor.numel():
        return tensor
    narrow = NARROW[tensor.dtype]
    if narrow.is_floating_point:
        small = tensor.to(narrow)
        lost = small.isinf() & ~tensor.isinf()
        if labels:
            lost |= (small.to(tensor.dtype) != tensor) & (tensor.trunc() == tensor)
        if lost.any():
            refuse(tensor[lost][0].item(), tensor.dtype)
        return small
    limits = torch.iinfo(narrow)
    low, high = extremes(tensor)
    if low < limits.min or high > limits.max:
        if labels is False:
            return tensor.to(torch.float32)
        refuse(low if low < limits.min else high, tensor.dtype)
    return tensor.to(narrow)


def refuse(value: Any, dtype: torch.dtype) -> NoReturn:
    """Raise the ValueError of a number that 32 bits do not hold."""
    gate.refuse(value, dtype, "a tensor")


def extremes(tensor: torch.Tensor) -> tuple[int, int]:
    """The least and the greatest of whole numbers."""
    if tensor.dtype == torch.uint64:
        values = tensor.cpu().numpy()
        return int(values.min()), int(values.max())
    low, high = torch.aminmax(tensor)
    return int(low), int(high)


def restored(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """A result in the type of what it was made of, if both are fractions, or whole numbers that were narrowed."""
    if dtype is None or dtype == tensor.dtype:
        return tensor
    fractions = dtype.is_floating_point and tensor.dtype.is_floating_point
    whole = dtype in NARROW and not dtype.is_floating_point and tensor.dtype == NARROW[dtype]
    return tensor.to(dtype) if fractions or whole else tensor


class Owners:
    """Which memory is taken: `own(tensor)` is a tensor whose memory nothing that was owned before it shares."""

    def __init__(self, taken: Iterable[torch.Tensor] = ()):
        self._spans = [span(tensor) for tensor in taken]

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, or its clone if its memory is taken; then that is taken too."""
        begin, end = span(tensor)
        if any(begin < other_end and other_begin < end for other_begin, other_end in self._spans):
            tensor = tensor.clone()
        self._spans.append(span(tensor))
        return tensor


def span(tensor: torch.Tensor) -> tuple[int, int]:
    """First address of a tensor's memory, and the one after its last."""
    if tensor.device.type not in ("cpu", "cuda"):
        return 0, 0
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()
