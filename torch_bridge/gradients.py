"""A pipeline as a function inside autograd, and in torch.func."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import torch

import medjax as mj
from medjax import keys
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.bridge import as_key, draw_key
from torch_bridge.dlpack import Owners, lent, to_torch


def differentiable(pipeline: mj.Transform) -> Callable[..., torch.Tensor]:
    """A pipeline as a function inside autograd: `f(tensor, key)`, a tensor (C, I, J, K) to the transformed one.

    Of a batch (B, C, I, J, K) each element is transformed by a key of its own, as `pipeline.batch(tensor, key)` does.
    Gradients reach the tensor, and gradients of gradients. What is drawn is constant: the same key gives the same map.
    `torch.func.grad` and its like take it; under `torch.func.vmap` all elements get the same draw. `torch.compile`
    calls it as it is.
    key: a `jax.random.key`, an integer as a seed, or None to draw one from torch's default generator if one is needed.
    The result has the tensor's type; float64 is computed in float64. Compiled once for each shape.
    Raises TypeError for a tensor of whole numbers, and for a pipeline whose result has a shape that depends on values;
    ValueError for other axes; RuntimeError in a forked child.
    """

    def function(tensor: torch.Tensor, key: Any = None) -> torch.Tensor:
        if not tensor.is_floating_point():
            raise TypeError(f"gradients are of fractions, got a tensor of {tensor.dtype}")
        if tensor.ndim not in (4, 5):
            raise ValueError(f"a tensor is (C, I, J, K) or (B, C, I, J, K), got shape {tuple(tensor.shape)}")
        if forked.in_child():
            raise RuntimeError("a forked child runs no JAX: start workers by spawn or forkserver")
        key = draw_key() if key is None and is_random(pipeline) else as_key(key)
        program = value if tensor.ndim == 4 else values
        return Function.apply(program, pipeline, key, tensor)[0]  # pyright: ignore

    return untraced(function)


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that torch.compile calls as it is, between what it compiles; torch's compiler is imported here."""
    return torch.compiler.disable(function, reason="JAX computes it, which has a compiler of its own")


def value(t: mj.Transform, key: Any, x: jax.Array) -> tuple[jax.Array]:
    """The result for a bare array, by what the key draws; traced."""
    params = mj.Transform.sample(t, key, x)
    return (mj.Transform.apply(t, x, params).astype(x.dtype),)


def values(t: mj.Transform, key: Any, x: jax.Array) -> tuple[jax.Array]:
    """The same for a batch, each element by the key of its place."""
    each = None if key is None else keys.as_keys(key, len(x))
    return jax.vmap(partial(value, t), in_axes=(None if each is None else 0, 0))(each, x)


@cache
def pullback(program: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The program of the gradients of another, which has `count` inputs; it takes them and then the cotangents."""

    def gradients(t: mj.Transform, key: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        _, pull = jax.vjp(partial(program, t, key), *arrays[:count])
        return pull(arrays[count:])

    return gradients


@cache
def mapped(program: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """The program over the first axis of those arrays whose axis is 0, with one key for all."""

    def many(t: mj.Transform, key: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vmap(partial(program, t, key), in_axes=axes)(*arrays)

    return many


@cache
def compiled(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program, compiled."""
    return jax.jit(program)


class Function(torch.autograd.Function):
    """A program of JAX as a function of torch, whose gradient is such a function again."""

    @staticmethod
    def forward(program: Callable[..., Any], t: Any, key: Any, *tensors: torch.Tensor) -> Any:  # pyright: ignore
        """The results of the program, in memory of their own."""
        owners = Owners(tensors)
        with jax.enable_x64(any(tensor.dtype == torch.float64 for tensor in tensors)):
            results = jax.block_until_ready(compiled(program)(t, key, *(lent(tensor.detach()) for tensor in tensors)))
        return tuple(owners.own(to_torch(result).to(tensors[0].device)) for result in results)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the gradients need."""
        del output
        ctx.program, t, key, *tensors = inputs
        ctx.rest = t, key
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """The gradients with respect to the tensors."""
        inputs = ctx.saved_tensors
        gradients = Function.apply(pullback(ctx.program, len(inputs)), *ctx.rest, *inputs, *cotangents)
        return None, None, None, *gradients  # pyright: ignore

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], program: Any, t: Any, key: Any, *tensors: Any) -> Any:
        """All at once, for torch.func.vmap."""
        del info
        dims = in_dims[3:]
        first = [tensor if dim is None else tensor.movedim(dim, 0) for tensor, dim in zip(tensors, dims, strict=True)]
        axes = tuple(None if dim is None else 0 for dim in dims)
        results: Any = Function.apply(mapped(program, axes), t, key, *first)
        return results, (0,) * len(results)
