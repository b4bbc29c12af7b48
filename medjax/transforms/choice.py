"""Transforms of which some are chosen for each subject; a batch pays for what was chosen."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys, ranges
from medjax.arguments import interval, maybe, traced, vector
from medjax.ranges import Range, leaf
from medjax.transforms.compose import Group, members
from medjax.transforms.run import Element
from medjax.transforms.transform import Transform, always, transform
from medjax.typing import Key, Params


def whole_range(name: str, value: Any) -> Any:
    """A pair of whole numbers of at least 0, low <= high, from one or two, as floats."""
    return np.array(interval()(name, value), np.float32)


@transform
class OneOf(Group):
    """One of several transforms, drawn for each subject.

    transforms: a sequence, each equally likely, or a dictionary {transform: weight}; weights need not sum to 1.
    The p of the one that is chosen still applies.  p: probability that any is.
    Raises ValueError for weights that are negative, all 0, or not one for each.  Source: TorchIO 1.2.1.
    """

    transforms: Sequence[Transform] | Mapping[Transform, float] = leaf(default=(), convert=members)
    p: float = always(default=1.0)
    weights: Any = leaf(default=None, convert=maybe(vector(low=0.0, least=0)), kw_only=True)

    random = True
    chooses: ClassVar[bool] = True

    def __post_init__(self):
        if isinstance(self.transforms, Mapping):
            object.__setattr__(self, "weights", list(self.transforms.values()))
        super().__post_init__()
        if not self.members:
            raise ValueError("transforms is empty: there is nothing to choose from")
        weights: Any = np.ones(len(self), np.float32) if self.weights is None else self.weights
        if weights.shape != (len(self),):
            raise ValueError(f"weights must hold one number for each of {len(self)} transforms, got {weights}")
        if not traced(weights) and not np.sum(weights) > 0:
            raise ValueError(f"weights must not all be 0, got {np.asarray(weights).tolist()}")
        object.__setattr__(self, "weights", weights)

    @property
    def members(self) -> tuple[Transform, ...]:
        """The transforms to choose from."""
        return cast(tuple[Transform, ...], self.transforms)

    def choose(self, key: Key | None, element: Element | None) -> Params:
        del element
        if key is None:
            return {"chosen": jnp.int32(0)}
        ends = jnp.cumsum(jnp.asarray(self.weights))
        unit = random.uniform(keys.for_name(key, "chosen"), (), ends.dtype)
        return {"chosen": jnp.minimum((unit * ends[-1] >= ends).sum(dtype=jnp.int32), len(self) - 1)}

    def taken(self, choice: Params, index: int) -> Any:
        return choice["chosen"] == index


@transform
class SomeOf(Group):
    """Several of the transforms, drawn for each subject without repetition, in the order in which they are given.

    num: how many, or (low, high), each number from low to high equally likely.  p: probability that any is applied.
    Raises ValueError for a num beyond how many there are.
    """

    transforms: Sequence[Transform] = leaf(default=(), convert=members)
    num: Range = leaf(default=1, convert=whole_range)
    p: float = always(default=1.0)

    random = True
    chooses: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not traced(self.num) and self.num[1] > len(self):
            raise ValueError(f"num={np.asarray(self.num).tolist()} exceeds the {len(self)} transforms there are")

    @property
    def members(self) -> tuple[Transform, ...]:
        """The transforms to choose from."""
        return cast(tuple[Transform, ...], self.transforms)

    def choose(self, key: Key | None, element: Element | None) -> Params:
        del element
        if key is None:
            return {"taken": jnp.zeros(len(self), bool)}
        order = random.permutation(keys.for_name(key, "order"), len(self)).astype(jnp.int32)
        return {"taken": order < ranges.draw_integer(keys.for_name(key, "num"), self.num)}

    def taken(self, choice: Params, index: int) -> Any:
        return choice["taken"][index]


@transform
class LastElements(Group):
    """In a batch the last elements get one transform and the others another, as nnU-Net oversamples foreground.

    transforms: the one of the last elements, and that of the others.  fraction: element i of a batch of B is one of the
    last if i >= round(B (1 - fraction)).  Alone, and under a `vmap` of one's own, an element has no place in a batch:
    it is one of the last with probability `fraction`.  p: probability that any is applied.
    Raises ValueError unless there are two transforms.  Source: nnunetv2 `nnUNetDataLoader`.
    """

    transforms: Sequence[Transform] = leaf(default=(), convert=members)
    fraction: float = ranges.number(default=0.33, low=0.0, high=1.0)
    p: float = always(default=1.0)

    random = True
    chooses: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if len(self) != 2:
            raise ValueError(
                f"transforms must be two, that of the last elements and that of the others, got {len(self)}"
            )

    @property
    def members(self) -> tuple[Transform, ...]:
        """The transform of the last elements, and that of the others."""
        return cast(tuple[Transform, ...], self.transforms)

    def choose(self, key: Key | None, element: Element | None) -> Params:
        fraction = jnp.asarray(self.fraction)
        if element is not None:
            index, size = element
            return {"last": index.astype(jnp.float32) >= jnp.round(size * (1 - fraction))}
        if key is None:
            return {"last": jnp.asarray(False)}
        return {"last": ranges.coin(keys.for_name(key, "last"), fraction)}

    def taken(self, choice: Params, index: int) -> Any:
        return choice["last"] == (index == 0)
