"""A batch over several devices: each runs the elements that it holds, and no voxel passes between them.

A loop over an axis that is split is refused by JAX where the mesh has explicit axes, and elsewhere XLA gathers the
whole axis on every device first. So the loop is handed to each device as a program of its own: by `shard_map` where it
is known how the batch is split, and where only XLA knows, inside of a user's jit, by a rule that it asks.
"""

import zlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.core import eval_jaxpr
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, PyTree

from medjax import keys
from medjax.typing import Tracer

Function: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""Of a tree that all elements share and of one with a leading axis of elements; each result has that axis too."""


def alike(*operands: PyTree) -> tuple[PyTree, ...]:
    """These trees, every leaf varying over each axis of a `shard_map` that any leaf varies over.

    JAX refuses a conditional one branch of which varies and the other not, and a loop whose state comes to vary: so a
    subject that is everywhere the same and a key that is not cannot meet. What is made on the way is made from these.
    """
    leaves, tree = jax.tree.flatten(operands)
    axes = frozenset().union(*map(varying, leaves))
    lacking = [tuple(axes - varying(leaf)) for leaf in leaves]
    return tree.unflatten([jax.lax.pcast(x, a, to="varying") if a else x for x, a in zip(leaves, lacking, strict=True)])


def varying(leaf: ArrayLike) -> frozenset[Hashable]:
    """The axes of a `shard_map` that an array varies over."""
    aval: Any = jax.typeof(leaf)
    return aval.vma if hasattr(aval, "vma") else aval.mat.varying  # the name that JAX has given it since


def by_devices(function: Function, shared: PyTree, batch: PyTree, split: NamedSharding | None = None) -> PyTree:
    """function(shared, batch), every device running it on the elements that it holds.

    It must give an element the same whatever others it is given with. split: how a batch is split, where an automatic
    mesh has done it and the caller knows; explicit axes are seen here.
    """
    split = split or explicit_split((shared, batch), batch)
    if split is not None:
        return in_mesh(function, shared, batch, split)
    inside = jax.sharding.get_abstract_mesh().manual_axes  # of the user's own shard_map
    if inside or jax.device_count() == 1 or jax.default_backend() == "tpu":  # for which XLA asks no rule: issue 38196
        return function(shared, batch)
    return partitioned(function, shared, batch)


def explicit_split(operands: PyTree, batch: PyTree) -> NamedSharding | None:
    """How the leading axis of a batch is split, if any operand is split along explicit axes, of this axis or others."""
    shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(operands)]
    mesh = next((s.mesh for s in shardings if any(part is not None for part in s.spec)), None)
    if mesh is None:
        return None
    parts = (jax.typeof(leaf).sharding.spec[0] for leaf in jax.tree.leaves(batch))
    return NamedSharding(mesh, PartitionSpec(next((part for part in parts if part is not None), None)))


@contextmanager
def on_no_mesh(leaves: Sequence[Array]) -> Iterator[Sequence[Array | jax.ShapeDtypeStruct]]:
    """Outlines of arrays, and tracing, without explicit axes, which would be written into a program for one element.

    Where there are none, the arrays themselves.
    """
    if not any(AxisType.Explicit in jax.typeof(leaf).sharding.mesh.axis_types for leaf in leaves):
        yield leaves
        return
    with jax.sharding.use_abstract_mesh(AbstractMesh((), ())):
        yield [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in map(jax.typeof, leaves)]


def in_mesh(function: Function, shared: PyTree, batch: PyTree, split: NamedSharding) -> PyTree:
    """`by_devices` where it is known how the batch is split; what is split along another axis is brought together."""
    along, everywhere = PartitionSpec(split.spec[0]), PartitionSpec()
    mesh = split.mesh
    if AxisType.Explicit in mesh.axis_types:
        shared = jax.reshard(shared, NamedSharding(mesh, everywhere))
        batch = jax.reshard(batch, NamedSharding(mesh, along))
    # Unchecked, for a function of the user's may mix what varies over devices with what does not: it is right anyway,
    # since every result has the axis of elements.
    run = jax.shard_map(
        function,
        mesh=mesh,
        in_specs=(everywhere, along),
        out_specs=along,
        axis_names=set(mesh.axis_names) - set(mesh.manual_axes),
        check_vma=False,
    )
    return run(shared, batch)


def partitioned(function: Function, shared: PyTree, batch: PyTree) -> PyTree:
    """`by_devices` where XLA alone knows how the batch is split, if it is: it is given a rule to partition the call by.

    Where one device runs it, and where it is differentiated, the call is the function itself. So it is where it calls
    the host, whose functions XLA would let go of (jax pull request 23620), and where it closes over what is traced.
    """
    operands, restore = keys.in_words((shared, batch))
    first, last = len(jax.tree.leaves(shared)), len(operands)
    restores = []

    def local(*words: Array) -> list[Array]:
        """Of what one device holds; what comes after the operands is not read."""
        result, back = keys.in_words(function(*restore(words[:last])))
        restores.append(back)
        return result

    traced = jax.make_jaxpr(local)(*operands)

    def plain(*words: Array) -> list[Array]:
        return eval_jaxpr(traced.jaxpr, words[last : last + len(traced.consts)], *words[:last])

    if calls_host(traced.jaxpr) or any(isinstance(value, Tracer) for value in traced.consts):
        return restores[0](plain(*operands, *traced.consts))
    # The call names its function by an address, which another may have had: a cache of programs must tell them apart.
    words = [*operands, *traced.consts, np.uint32(zlib.crc32(str(traced.jaxpr).encode()))]

    def split_of(arguments: Sequence[Any]) -> tuple[NamedSharding, NamedSharding]:
        """How XLA would split the elements, and no split at all."""
        sharding = next(a.sharding for a in arguments[first:last])
        splits = (a.sharding.spec[0] for a in arguments[first:last] if a.sharding.spec)
        along = PartitionSpec(next((part for part in splits if part is not None), None))
        return NamedSharding(sharding.mesh, along), NamedSharding(sharding.mesh, PartitionSpec())

    def infer(mesh: Any, arguments: Sequence[Any], results: Sequence[Any]) -> list[NamedSharding]:
        return [split_of(arguments)[0]] * len(results)

    def partition(mesh: Any, arguments: Sequence[Any], results: Sequence[Any]) -> tuple[Any, ...]:
        along, everywhere = split_of(arguments)
        inputs = tuple(along if first <= i < last else everywhere for i in range(len(words)))
        return along.mesh, local, [along] * len(results), inputs

    call = custom_partitioning(plain)
    call.def_partition(partition, infer, sharding_rule=partial(rule_of, first, last))
    # The call itself can neither be mapped nor differentiated: then it is the function.
    mapped = custom_vmap(call)

    @mapped.def_vmap
    def _(size: int, batched: list[bool], *words: Array) -> tuple[list[Array], list[bool]]:
        result = jax.vmap(plain, [0 if b else None for b in batched], axis_size=size)(*words)
        return result, [True] * len(result)

    run = jax.custom_jvp(mapped)
    run.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))
    return restores[0](run(*words))


def rule_of(first: int, last: int, mesh: Any, operands: Sequence[Any], results: Sequence[Any]) -> SdyShardingRule:
    """That operands `first` to `last`, and all results, are split together along their leading axis, no other axis."""
    del mesh
    whole = []

    def axes(value: Any, of_elements: bool) -> ArrayMapping:
        own = [f"whole{len(whole) + n}" for n in range(value.rank - of_elements)]
        whole.extend(own)
        return ArrayMapping(*(["elements"] if of_elements else []), *own)

    inputs = tuple(axes(value, first <= i < last) for i, value in enumerate(operands))
    outputs = tuple(axes(value, True) for value in results)
    return SdyShardingRule(inputs, outputs, need_replication_factors=tuple(whole))


def calls_host(jaxpr: Jaxpr) -> bool:
    """Whether a program, or one inside of it, calls a function of the host."""

    def inner(value: Any) -> bool:
        if isinstance(value, (tuple, list)):
            return any(map(inner, value))
        if isinstance(value, ClosedJaxpr):
            return calls_host(value.jaxpr)
        return isinstance(value, Jaxpr) and calls_host(value)

    return any("callback" in e.primitive.name or any(map(inner, e.params.values())) for e in jaxpr.eqns)
