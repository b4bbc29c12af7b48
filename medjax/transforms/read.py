"""A fused run is read here: each image gathered once, through the map from an index of the new grid to one of the old.

An output voxel i reads the input at A_in^-1 . T1 ... Tn . A_out . i. Which grids and moves those are says `place.py`,
which interpolation and fill an image gets `sampling.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from medjax import geometry
from medjax.errors import needs_concrete
from medjax.geometry import Linear
from medjax.image import Image
from medjax.ops import axis, warp
from medjax.transforms import moves, sampling
from medjax.transforms.place import DEFORMED, NOTHING_DONE, Known, Place, Step, cost_back, linear_part, way_back
from medjax.transforms.program import asked_of
from medjax.transforms.sampling import Fill, Sampling
from medjax.typing import Shape3, working


def dtype_after(dtype: DTypeLike, label: bool, interpolates: bool) -> np.dtype:
    """The dtype of an image after a run that may interpolate or not, whatever was drawn."""
    return np.dtype(dtype) if label or not interpolates else working(dtype)


def read(image: Image, steps: Sequence[Step], begin: Place, end: Place, known: Known | None = None) -> Image:
    """The image on the grid of `end`, gathered once.

    known: the shape of the array, worked out by the host, and whether all of it is real. Without it the grid must have
    a static shape, or the run must keep the one that is there.
    """
    reshaped = any(step.spatial.reshapes for step in steps)
    out = end.grid.fixed or (known[0] if known else None if reshaped else image.spatial_shape)
    if out is None:
        needs_concrete(
            f"the shape after {', '.join(type(s.transform).__name__ for s in steps)}",
            "end the run with a fixed shape, as CropOrPad((160, 192, 160)), or call the transform outside of jit",
        )
    whole = end.grid.fixed is not None or (known is not None and known[1])
    data = read_data(image, *asked_of(steps), begin, end, out)
    return type(image).of(data, end.grid.affine, None if whole else end.grid.shape)


def read_back(
    image: Image, steps: Sequence[Step], begin: Place, end: Place, known: Known, interpolation: str | None
) -> Image:
    """The image on the grid of `begin`, from where a run has brought it: the run's map inverted, gathered once.

    interpolation: instead of the run's own; labels have theirs where it would make values that are no labels. What the
    run cut off is 0.
    """
    asked, interpolates = asked_of(steps)
    label = interpolation if interpolation in sampling.LABEL_INTERPOLATIONS else asked.label
    back = Sampling(interpolation or asked.image, label, fill=0.0, label_fill=0.0)
    there = Place(end.grid, None, None, begin.label)
    here = Place(begin.grid, None, None, begin.label, way_back(end.moves), cost_back(begin, end))
    data = read_data(image, back, interpolates, there, here, known[0])
    return type(image).of(data, begin.grid.affine, None if known[1] else begin.grid.shape)


class Reading(NamedTuple):
    """What the branches of one reading share.

    out: shape of the result.  dtype: of the result.  method: interpolation.  outside: fill, or how the image goes on.
    edge: how a padding continues the image, or None.
    """

    image: Image
    begin: Place
    end: Place
    out: Shape3
    dtype: np.dtype
    method: str
    outside: Fill | None
    edge: str | None
    antialias: bool

    def data(self) -> Array:
        """Asked for in the branch that reads it (see `ElementVoxels`)."""
        return jnp.asarray(self.image.data)

    def lines(self) -> list[Array]:
        """The indices of the new grid that are read along each axis: those of a padding are folded into the image."""
        axes = [jnp.arange(n, dtype=jnp.int32) for n in self.out]
        if self.edge is None:
            return axes
        return [
            warp.fold(v, low, high, self.edge) for v, low, high in zip(axes, self.end.low, self.end.high, strict=True)
        ]

    def voxels(self) -> warp.Coordinates:
        """The same for every voxel."""
        i, j, k = (jax.lax.broadcast_in_dim(v, self.out, (along,)) for along, v in enumerate(self.lines()))
        return i, j, k

    def fill(self, dtype: np.dtype) -> Array:
        """The (C,) values outside of the image."""
        return sampling.fill_value(self.image, self.outside, dtype)


def read_data(image: Image, asked: Sampling, interpolates: bool, begin: Place, end: Place, out: Shape3) -> Array:
    """The voxels of `read`: one branch for each cost that the run can have."""
    label = image.is_label
    fill, pad = (asked.label_fill, asked.label_pad) if label else (asked.fill, asked.pad)
    edge = warp.EDGE_OF.get(pad, pad) if pad in (*warp.EDGES, *warp.EDGE_OF) else None
    reading = Reading(
        image, begin, end, out, dtype_after(image.dtype, label, interpolates),
        method=(asked.label if label else asked.image) or ("nearest" if label else "linear"),
        outside=pad if fill is None and edge is None else fill, edge=edge,
        antialias=not label and bool(asked.antialias),
    )  # fmt: skip
    return padded(branched(reading, interpolates), reading, pad)


def branched(reading: Reading, interpolates: bool) -> Array:
    """The voxels by the cheapest branch that what was drawn allows."""
    image, end = reading.image, reading.end
    branches: list[Callable[[], Array]] = [partial(indexed, reading)]
    cost, moved = end.cost, any(not isinstance(move, Linear) for move in end.moves)
    if interpolates:
        branches.append(partial(linear, reading))
    if reading.edge is None and moves.is_halved(end):
        branches += [by_products(reading), partial(deformed, reading, turned=True)]
        cost = jnp.where((cost == DEFORMED) & ~moves.runs_along(end, reading.out), DEFORMED + 1, cost)
    elif moved:
        branches.append(partial(deformed, reading))
    first = 1
    if image.spatial_shape == reading.out:
        first = 0
        branches.insert(0, lambda: copy_of(reading.data(), cost != NOTHING_DONE).astype(reading.dtype))
    chosen = jnp.clip(cost, first, len(branches) + first - 1) - first
    # Differentiated, a switch saves what any branch needs in every branch: nothing is saved, so that cost follows p.
    branches = [jax.checkpoint(branch) for branch in branches]
    if len(branches) == 1:
        return branches[0]()
    alone = image.is_label and reading.method == "nearest" and not moved
    if not interpolates or alone:  # a card has read voxels one by one sooner than the host knows whether it must
        return jax.lax.platform_dependent(cpu=lambda: jax.lax.switch(chosen, branches), default=branches[-1])
    return jax.lax.switch(chosen, branches)


def sample(reading: Reading, coordinates: warp.Coordinates, within: Array) -> Array:
    """The image at coordinates; within: whether all of them lie in the volume, so that no fill is needed."""
    image, dtype, extent = reading.image, reading.dtype, reading.begin.grid.shape
    # The statistics of a fill are a pass over the volume.
    blank = jnp.zeros_like(within, dtype, (image.shape[0],))
    value = jax.lax.cond(within, lambda: blank, lambda: reading.fill(dtype))
    source = reading.data()
    if reading.antialias:
        source = axis.gaussian_blur(
            source.astype(dtype), antialiasing(reading.begin, reading.end).astype(dtype), extent=extent
        )
    return warp.sample(
        source, coordinates, extent=extent, interpolation=reading.method, is_label=image.is_label,
        dtype=dtype, fill=value, edge=reading.outside if reading.outside in warp.EDGES else None,
    )  # fmt: skip


def indexed(reading: Reading) -> Array:
    """Voxels as they are, where the map takes each to one."""
    matrix = jnp.round(matrix_of(reading)).astype(jnp.int32)
    extent, fill = reading.begin.grid.shape, reading.fill(reading.dtype)
    return warp.reindex(reading.data(), matrix, reading.lines(), extent=extent, fill=fill)


def linear(reading: Reading) -> Array:
    """Through a matrix alone."""
    matrix = matrix_of(reading)
    ends = warp.map_coordinates(matrix, warp.corners_of(reading.out))
    within = warp.inside(ends, reading.begin.grid.shape).all()
    return sample(reading, warp.map_coordinates(matrix, reading.voxels()), within)


def matrix_of(reading: Reading) -> Array:
    """From an index of the new grid to one of the old, where nothing deforms.

    Where nothing was drawn no rounding of affines far from the origin must move a voxel.
    """
    matrix = linear_part(reading.begin, reading.end)
    return jnp.where(reading.end.cost == NOTHING_DONE, jnp.eye(4, dtype=matrix.dtype), matrix)


def deformed(reading: Reading, turned: bool = False) -> Array:
    """Through any moves; turned: the new grid is known to run along no axes of control points."""
    points = moves.deform(reading.end, reading.out, reading.voxels(), plain=reading.edge is None, turned=turned)
    coordinates = warp.map_coordinates(geometry.inverse(reading.begin.grid.affine), points)
    return sample(reading, coordinates, warp.inside(coordinates, reading.begin.grid.shape).all())


def by_products(reading: Reading) -> Callable[[], Array]:
    """The branch of one elastic move along whose axes the new grid runs: a field that is never stored."""
    begin, end, out = reading.begin, reading.end, reading.out
    weights = moves.halved(begin, end, out)[2]  # an operand of the switch, or every voxel would compute them

    def along() -> Array:
        matrix, half, _ = moves.halved(begin, end, out)
        steps = moves.summed(jax.lax.optimization_barrier(half), weights)
        reach = jnp.abs(half).max((1, 2, 3))
        ends = warp.map_coordinates(matrix, warp.corners_of(out))
        within = jnp.stack([warp.inside(moves.added(ends, side * reach), begin.grid.shape) for side in (-1, 1)])
        return sample(reading, moves.added(warp.map_coordinates(matrix, reading.voxels()), steps), within.all())

    return along


def padded(values: Array, reading: Reading, pad: Fill | None) -> Array:
    """The voxels that were read, and what a padding puts around the image."""
    end, out, dtype = reading.end, reading.out, reading.dtype
    if pad in warp.EDGE_OF:
        ramp = warp.ramp(out, end.low, end.high, working(dtype))
        return (values.astype(ramp.dtype) * ramp[None]).astype(dtype)
    if pad is None or reading.edge is not None:
        return values
    shown = [
        (v >= low) & (v < high) for v, low, high in zip(warp.indices(out, jnp.int32), end.low, end.high, strict=True)
    ]
    value = sampling.fill_value(reading.image, pad, dtype)
    return jnp.where((shown[0] & shown[1] & shown[2])[None], values, value[:, None, None, None])


def copy_of(data: Array, never: Array) -> Array:
    """The data, written anew, for a branch of a conditional; `never` is False, but not known to be.

    Of a branch that gives its argument back XLA makes one that copies before the conditional, whichever is taken.
    """
    return jnp.where(never, jnp.zeros((), data.dtype), data)


def antialiasing(begin: Place, end: Place) -> Array:
    """Standard deviation, in voxels along each input axis, of the Gaussian that a coarser grid is smoothed with first.

    (k^2 - 1) / (8 ln 2) is the variance that takes a voxel's width at half maximum to k voxels.
    """
    step = geometry.matmul(geometry.inverse(begin.grid.affine), end.grid.affine)[:3, :3]
    coarser = jnp.maximum((step**2).sum(1) - 1, 0)
    return jnp.where(coarser > 0, jnp.sqrt(jnp.where(coarser > 0, coarser, 1) / (8 * np.log(2))), 0)
