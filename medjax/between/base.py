"""The interface of what is done between the elements of a batch: each is given something of a partner.

To add one: subclass `Between`, decorate it with `@between`, declare fields as a transform does, and write `draw_for`
and `give`. What is here pairs the elements, throws their coins, and keeps padding out.
"""

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Int, Shaped

from medjax import keys, ranges
from medjax.errors import needs_key, shown
from medjax.geometry import Grid, check_same_grid
from medjax.image import Image
from medjax.ops import warp
from medjax.ranges import number
from medjax.subject import Subject, batch_size, present_in
from medjax.transforms.call import check_leading
from medjax.transforms.transform import chance, plain, register, static
from medjax.typing import Key, Params

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(static, chance, number))
def between(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass, compared by identity, and a pytree whose numbers are leaves."""
    made = dataclass(frozen=True, eq=False, repr=False)(cls)
    register(made)
    return made


class Pairs(NamedTuple):
    """Two views of an image of a batch: `own` is what each element has, `other` what its partner has.

    both: (B, 1, I, J, K), where a voxel is real in both; None where all are.
    """

    own: Array
    other: Array
    both: Bool[Array, "B 1 I J K"] | None


@dataclass_transform(frozen_default=True, field_specifiers=(static, chance, number))
@dataclass(frozen=True, eq=False, repr=False)
class Between:
    """Abstract. Gives each element of a batch something of another; nothing is changed in place.

    It goes by voxel index: affines, metadata, points and arrays of the batch stay those of each element, also where the
    affines of two differ.

    p: probability that an element is given something, drawn for each element; the number 1 is structure, any other p a
    leaf. Nothing is given between two of which one lacks an image (`medjax.stack(..., missing="zeros")`).
    """

    p: float = chance(default=1.0)

    def __post_init__(self):
        for f in fields(self):
            object.__setattr__(self, f.name, f.metadata["convert"](f.name, getattr(self, f.name)))

    def batch(self, batch: Subject, key: Any) -> Subject:
        """The batch (B, ...) with something of its partner given to each element; the same inside of jit.

        batch: of `medjax.stack` or of a loader.  key: one key, from which all is drawn.
        The partner of each element is its place in a random permutation of the batch, which may be itself.
        """
        return self.apply(batch, self.sample(key, batch))

    def sample(self, key: Any, batch: Subject) -> Params:
        """All that is drawn for a batch: `on` (B,) bool, `partner` (B,) int32, and what this kind draws."""
        check_batch(self, batch)
        if key is None:
            needs_key(type(self).__name__, f"{type(self).__name__}().batch(batch, jax.random.key(0))")
        return compiled_draw(self, keys.as_key(key), batch)

    def apply(self, batch: Subject, params: Params) -> Subject:
        """What `batch` does with these params, exactly; with them targets that are not images are mixed alike."""
        check_batch(self, batch)
        given = compiled_give(self, batch, params)
        return batch.replace(**{name: batch[name].replace(data=data) for name, data in given.items()})

    def replace(self, **changes: Any) -> Self:
        """A copy with other arguments."""
        return type(self)(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})

    def draw_for(self, key: Key, batch: Subject, partner: Int[Array, "B"]) -> Params:
        """What is random beside coins and partners; traced."""
        del key, batch, partner
        return {}

    def give(self, batch: Subject, params: Params) -> dict[str, Array]:
        """The new voxels of images, by name; traced."""
        raise NotImplementedError(f"{type(self).__name__} must define give")

    def check(self, batch: Subject) -> None:
        """Raise a ValueError for a batch that it cannot work on; looks at types and shapes alone."""
        del batch

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f.name}={plain(getattr(self, f.name))!r}' for f in fields(self))})"


def check_batch(b: Between, batch: Any) -> None:
    """Raise an error that says so for what is no batch, or not one for `b`."""
    if not isinstance(batch, Subject):
        raise TypeError(f"batch must be a Subject, as medjax.stack(subjects) makes, got {shown(batch)}")
    check_leading(batch, 1)
    if not batch.images:
        raise ValueError(f"{type(b).__name__}: the batch has no images")
    b.check(batch)


def check_one_grid(b: Between, batch: Subject) -> None:
    """Raise a ValueError unless the images of each element share a grid."""
    check_same_grid({name: Grid(i.affine, i.spatial_shape) for name, i in batch.images.items()}, type(b).__name__)


@jax.jit
def compiled_draw(b: Between, key: Key, batch: Subject) -> Params:
    """`sample`, compiled."""
    size = batch_size(batch)
    on = ranges.coin(keys.for_name(key, "coin"), jnp.asarray(b.p, jnp.float32), (size,))
    partner = random.permutation(keys.for_name(key, "partner"), size).astype(jnp.int32)
    for flag in present_in(batch).values():
        on &= flag == of_partner(jnp.asarray(flag), partner)
    return {"on": on, "partner": partner, **b.draw_for(key, batch, partner)}


@jax.jit
def compiled_give(b: Between, batch: Subject, params: Params) -> dict[str, Array]:
    """`apply`, compiled."""
    return b.give(batch, params)


def pairs_of(image: Image, partner: Int[Array, "B"]) -> Pairs:
    """The voxels of each element and of its partner."""
    own = jnp.asarray(image.data)
    return Pairs(own, of_partner(own, partner), None if is_whole(image) else mask_of(*shared(image, partner), image))


def of_partner(x: Shaped[Array, "B ..."], partner: Int[Array, "B"]) -> Shaped[Array, "B ..."]:
    """What the partner of each element has, split over devices as it is where their axes are explicit."""
    sharding = jax.typeof(x).sharding
    return x.at[partner].get(out_sharding=sharding if sharding.mesh.are_all_axes_explicit else None)


def is_whole(image: Image) -> bool:
    """Whether all voxels of a batch of images are real."""
    return image.extent is None and image.full is None


def real_box(image: Image) -> tuple[Int[Array, "B 3"], Int[Array, "B 3"]]:
    """The box [low, high) of each element that is real: what is neither padding nor beyond the grid it is a box of."""
    size = len(image.data)
    low = jnp.zeros((size, 3), jnp.int32)
    high = jnp.broadcast_to(jnp.asarray(image.size, jnp.int32), (size, 3))
    if image.full is not None:
        offset = jnp.asarray(image.offset, jnp.int32)
        low, high = jnp.maximum(low, -offset), jnp.minimum(high, jnp.asarray(image.full, jnp.int32) - offset)
    return low, high


def shared(image: Image, partner: Int[Array, "B"]) -> tuple[Int[Array, "B 3"], Int[Array, "B 3"]]:
    """The box [low, high) of each element that is real in its partner too."""
    low, high = real_box(image)
    return jnp.maximum(low, of_partner(low, partner)), jnp.minimum(high, of_partner(high, partner))


def mask_of(low: Int[Array, "B 3"], high: Int[Array, "B 3"], image: Image) -> Bool[Array, "B 1 I J K"]:
    """The voxels of the box [low, high) of each element."""
    return jax.vmap(partial(warp.within, image.spatial_shape))(low, high)[:, None]


def mixed(own: Float[Array, "B C I J K"], other: Float[Array, "B C I J K"], share: Array) -> Float[Array, "B C I J K"]:
    """(1 - share) own + share other; where the share is 0 or 1, or both are one, bit by bit what is there."""
    return jnp.where(share == 0, own, jnp.where(share == 1, other, own + share * (other - own)))


def laid(values: Shaped[Array, "B"]) -> Shaped[Array, "B 1 1 1 1"]:
    """A number of each element, in a shape that goes with voxels."""
    return values.reshape(-1, 1, 1, 1, 1)
