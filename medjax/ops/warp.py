"""Read a volume at other coordinates: one flat gather per corner, so that XLA fuses the whole warp into one loop.

Coordinates are voxel indices of the input, centres at integers. As in ITK, a point is inside where
-0.5 <= c < n - 0.5 on each axis, the edge is repeated in the outer half voxel, and ties of nearest go up; outside is
`fill`. Both tests have a slack of 2^-10 voxel, so that rounding never decides an exact tie.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from medjax.ops import axis, passes
from medjax.typing import Shape3

SLACK = 2.0**-10
INTERPOLATIONS = ("nearest", "linear", "cubic")
EDGES = ("edge", "reflect", "symmetric", "wrap")
EDGE_OF = {"linear_ramp": "edge"}
"""Paddings that change what another one repeats."""
Coordinates: TypeAlias = tuple[Array, Array, Array]


def indices(shape: Shape3, dtype: Any) -> Coordinates:
    """Indices of every voxel of a grid: three arrays of `shape`."""
    i, j, k = (jax.lax.broadcasted_iota(jnp.int32, shape, axis).astype(dtype) for axis in range(3))
    return i, j, k


@jax.jit
def map_coordinates(matrix: Array, coordinates: Coordinates) -> Coordinates:
    """A 4x4 matrix applied to every point; of the type of the matrix."""
    i, j, k = (c.astype(matrix.dtype) for c in coordinates)
    x, y, z = (matrix[r, 0] * i + matrix[r, 1] * j + matrix[r, 2] * k + matrix[r, 3] for r in range(3))
    return x, y, z


def fold(index: Array, low: Array, high: Array, edge: str) -> Array:
    """Bring indices, whole or fractional, into [low, high): repeat the edge, mirror or wrap, as numpy.pad."""
    last = high - 1
    if edge == "edge":
        return jnp.clip(index, low, last)
    if edge == "wrap":
        return low + jnp.mod(index - low, high - low)
    half = 1 if edge == "symmetric" else 0  # symmetric repeats the edge voxel, reflect does not
    period = jnp.maximum(2 * (last - low) + 2 * half, 1)
    inside = jnp.mod(index - low, period)
    return low + jnp.minimum(inside, jnp.maximum(period - half - inside, 0))


def corners_of(shape: Shape3) -> Coordinates:
    """Indices of the eight outer voxels of a grid."""
    i, j, k = jnp.asarray(list(product(*((0, n - 1) for n in shape))), jnp.int32).T
    return i, j, k


def ramp(shape: Shape3, low: Array, high: Array, dtype: Any) -> Array:
    """1 in the box [low, high), and from its faces linearly to 0 at the outermost voxel of each axis (`numpy.pad`)."""
    factors = []
    for index, size, first, end in zip(indices(shape, dtype), shape, low, high, strict=True):
        before, after = first.astype(dtype), (size - end).astype(dtype)
        rising = jnp.where(index < before, index / jnp.maximum(before, 1), 1)
        left = size - 1 - index
        factors.append(rising * jnp.where(left < after, left / jnp.maximum(after, 1), 1))
    return factors[0] * factors[1] * factors[2]


def within(shape: Shape3, low: Int[Array, "3"], high: Int[Array, "3"]) -> Bool[Array, "I J K"]:
    """Whether the voxels of a grid lie in the box [low, high)."""
    i, j, k = ((index >= low[a]) & (index < high[a]) for a, index in enumerate(indices(shape, jnp.int32)))
    return i & j & k


def inside(coordinates: Coordinates, extent: Array) -> Array:
    """Whether points lie in the volume, by ITK's rule with the slack."""
    tests = [
        (c >= -0.5 - SLACK) & (c < n.astype(c.dtype) - (0.5 + SLACK)) for c, n in zip(coordinates, extent, strict=True)
    ]
    return tests[0] & tests[1] & tests[2]


def take(data: Num[Array, "C I J K"], index: Coordinates, extent: Array) -> Num[Array, "C X Y Z"]:
    """Voxels at whole indices, clamped to the volume."""
    channels, _, rows, columns = data.shape
    i, j, k = (jnp.clip(c, 0, n - 1) for c, n in zip(index, extent, strict=True))
    flat = data.reshape(channels, -1)
    return flat.at[:, (i * rows + j) * columns + k].get(mode="promise_in_bounds")


def corners(coordinates: Coordinates) -> list[tuple[Coordinates, Array]]:
    """The eight voxels around each point with their linear weights."""
    below = [jnp.floor(c) for c in coordinates]
    above = [c - b for c, b in zip(coordinates, below, strict=True)]
    base = [b.astype(jnp.int32) for b in below]
    result = []
    for bits in product((0, 1), repeat=3):
        parts = [f if bit else 1 - f for f, bit in zip(above, bits, strict=True)]
        i, j, k = (b + bit for b, bit in zip(base, bits, strict=True))
        result.append(((i, j, k), parts[0] * parts[1] * parts[2]))
    return result


def nearest(data: Array, coordinates: Coordinates, extent: Array) -> Array:
    """The nearest voxel, ties up; keeps the dtype."""
    i, j, k = (jnp.floor(c + (0.5 + SLACK)).astype(jnp.int32) for c in coordinates)
    return take(data, (i, j, k), extent)


def linear(data: Array, coordinates: Coordinates, extent: Array, dtype: Any) -> Array:
    """Linear interpolation, axis within axis, so that equal voxels give their value exactly.

    Integers are gathered as they are and converted after.
    """
    channels, _, rows, columns = data.shape
    flat = data.reshape(channels, -1)
    below = [jnp.floor(c) for c in coordinates]
    i, j, k = ((c - b).astype(dtype)[None] for c, b in zip(coordinates, below, strict=True))
    ends = [
        [jnp.clip(b.astype(jnp.int32) + bit, 0, n - 1) * stride for bit in (0, 1)]
        for b, n, stride in zip(below, extent, (rows * columns, columns, 1), strict=True)
    ]

    def at(a: int, b: int, c: int) -> Array:
        index = ends[0][a] + ends[1][b] + ends[2][c]
        return flat.at[:, index].get(mode="promise_in_bounds").astype(dtype)

    def between(low: Array, high: Array, fraction: Array) -> Array:
        return low + fraction * (high - low)

    lines = [[between(at(a, b, 0), at(a, b, 1), k) for b in (0, 1)] for a in (0, 1)]
    planes = [between(low, high, j) for low, high in lines]
    return between(planes[0], planes[1], i)


@jax.jit
def cubic(distance: Array) -> Array:
    """The cubic B-spline B3 at a distance >= 0."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = jnp.maximum(2 - distance, 0) ** 3 / 6
    return jnp.where(distance < 1, near, far)


def spline(data: Array, coordinates: Coordinates, extent: Array, dtype: Any) -> Array:
    """Cubic B-spline interpolation, mirrored about the edge voxels: `scipy.ndimage`, order 3, mode 'mirror'."""
    channels, _, *strides = data.shape
    flat = axis.spline_coefficients(data.astype(dtype), extent).reshape(channels, -1)
    first = [jnp.floor(c).astype(jnp.int32) - 1 for c in coordinates]
    place = {"first": first, "coordinates": coordinates, "extent": extent, "strides": tuple(strides)}
    return passes.over_planes(lambda flat, a: spline_plane(flat, jnp.int32(a), **place), flat)


@partial(jax.jit, static_argnames="strides")  # traced once for all planes
def spline_plane(
    flat: Float[Array, "N"],
    a: Array,
    first: Sequence[Array],
    coordinates: Coordinates,
    extent: Array,
    strides: tuple[int, int],
) -> Array:
    """The 16 taps of `spline` in one plane; strides: rows and columns of the volume."""
    rows, columns = strides

    def along(of: int, tap: Array | int) -> tuple[Array, Array]:
        """Index and weight of a tap along an axis."""
        index = first[of] + tap
        weight = cubic(jnp.abs(coordinates[of] - index.astype(coordinates[of].dtype))).astype(flat.dtype)
        return fold(index, jnp.int32(0), extent[of], "reflect"), weight

    def line(i: Array, b: int) -> Array:
        j, v = along(1, b)
        start = (i * rows + j) * columns
        taps = [(start + k, w) for k, w in (along(2, c) for c in range(4))]
        return v * sum(w * passes.at(flat, index) for index, w in taps)

    i, u = along(0, a)
    return u * sum(line(i, b) for b in range(4))


def vote(data: Array, coordinates: Coordinates, extent: Array) -> Array:
    """The label with the largest sum of linear weights over the eight corners, the smallest label on ties.

    Equal to the argmax of the linearly interpolated one-hot map, at a cost that does not depend on how many labels
    there are; it keeps the dtype.
    """
    around = [(take(data, index, extent), weight) for index, weight in corners(coordinates)]
    best, score = around[0][0], jnp.full((), -1, around[0][1].dtype)
    for label, _ in around:
        total = sum(jnp.where(other == label, weight[None], 0) for other, weight in around)
        better = (total > score) | ((total == score) & (label < best))
        best, score = jnp.where(better, label, best), jnp.where(better, total, score)
    return best


def sample(
    data: Num[Array, "C I J K"],
    coordinates: Coordinates,
    *,
    extent: Array,
    interpolation: str,
    is_label: bool,
    dtype: Any,
    fill: Array,
    edge: str | None = None,
) -> Num[Array, "C X Y Z"]:
    """Read `data` at points (three arrays of the output's shape), giving `dtype`.

    extent: (3,) int32, how much of the volume is real. fill: (C,) for points outside; `edge` instead folds them in.
    interpolation: 'nearest', 'cubic', or 'linear', which for labels is the vote of the eight corners.
    """
    if edge is not None:
        zero = jnp.zeros((), coordinates[0].dtype)
        i, j, k = (fold(c, zero, n.astype(c.dtype), edge) for c, n in zip(coordinates, extent, strict=True))
        coordinates = (i, j, k)
    if interpolation == "nearest":
        values = nearest(data, coordinates, extent).astype(dtype)
    elif interpolation == "cubic":
        values = spline(data, coordinates, extent, dtype)
    elif is_label:
        values = vote(data, coordinates, extent).astype(dtype)
    else:
        values = linear(data, coordinates, extent, dtype)
    if edge is not None:
        return values
    return jnp.where(inside(coordinates, extent)[None], values, fill.astype(dtype)[:, None, None, None])


def reindex(
    data: Num[Array, "C I J K"],
    matrix: Array,
    voxels: Sequence[Array],
    *,
    extent: Array,
    fill: Array,
) -> Num[Array, "C X Y Z"]:
    """Read voxels through a signed permutation with whole offsets, int32 (4, 4): exact, in the dtype of `fill` (C,).

    voxels: the indices of the new grid that are read along each of its axes, (X,), (Y,) and (Z,).
    Lines of the last axis that stay whole, forwards or backwards, are read as lines, at the speed of a copy.
    """
    channels, planes, rows, columns = data.shape
    filler = fill[:, None, None, None]

    def index_of(last: Array) -> tuple[Coordinates, Array]:
        """The voxels that are read, for these of the last axis, and whether they are there."""
        i, j, k = map_coordinates(matrix, (voxels[0][:, None, None], voxels[1][None, :, None], last[None, None]))
        tests = [(c >= 0) & (c < n) for c, n in zip((i, j, k), extent, strict=True)]
        return (i, j, k), tests[0] & tests[1] & tests[2]

    def by_voxel() -> Array:
        index, within = index_of(voxels[2])
        return jnp.where(within[None], take(data, index, extent).astype(fill.dtype), filler)

    def by_line(step: int) -> Array:
        (i, j, _), within = index_of(voxels[2][:1])
        line = jnp.clip(i, 0, planes - 1) * rows + jnp.clip(j, 0, rows - 1)
        lines = data.reshape(channels, planes * rows, columns).at[:, line[..., 0]].get(mode="promise_in_bounds")
        return jnp.where(within[None], lines[..., ::step].astype(fill.dtype), filler)

    if voxels[2].shape[0] != columns:
        return by_voxel()
    last, whole = matrix[2, 2] * voxels[2] + matrix[2, 3], jnp.arange(columns, dtype=jnp.int32)
    lined = (matrix[:2, 2] == 0).all() & (extent[2] == columns)
    ahead, back = lined & (last == whole).all(), lined & (last == whole[::-1]).all()
    branches = [by_voxel, partial(by_line, 1), partial(by_line, -1)]
    chosen = jnp.where(ahead, 1, jnp.where(back, 2, 0))
    # A card reads voxels that lie in lines as fast as lines, and sooner than the host has seen that they do.
    return jax.lax.platform_dependent(cpu=lambda: jax.lax.switch(chosen, branches), default=by_voxel)
