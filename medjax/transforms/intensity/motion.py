"""Motion: a head that moves while the lines of k-space are recorded, one after the other."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import keys, ranges
from medjax.affine_map import affine_map, rotation
from medjax.arguments import flag, traced, vector, whole
from medjax.geometry import Grid, homogeneous, inverse, matmul
from medjax.image import Image
from medjax.ops import fourier, warp
from medjax.ranges import Range, leaf, uniform
from medjax.transforms.axes import Axis, axes_of, axis_of
from medjax.transforms.intensity.kspace import LineArtefact, along, by_channel, channels, draw_axis, unpadded
from medjax.transforms.sampling import fill_value, interpolation
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params, Volume

JITTER = 0.3  # of the time between two movements
LPS = np.asarray([-1, -1, 1])


def times_of(name: str, value: Any) -> Any:
    """Ascending numbers from 0 to 1, (N,)."""
    array = vector(low=0.0, high=1.0)(name, value)
    if not traced(array) and np.any(array[1:] < array[:-1]):
        raise ValueError(f"{name} must ascend, got {np.asarray(array).tolist()}")
    return array


def segments(times: Array, n: Array, legacy: bool) -> tuple[Array, Array]:
    """The first line of each movement's segment of k-space, and the line after its last: (N,), (N,) int32.

    Times cut the n lines into N + 1 segments, number k recorded after k movements. The one that holds frequency 0 stays
    unmoved, and its movement is given segment 0. `legacy` finds it as TorchIO does: the first whose end is after 1/2.
    """
    cuts = jnp.floor(times * n.astype(times.dtype)).astype(jnp.int32)
    central = (times <= 0.5).sum(dtype=jnp.int32) if legacy else (cuts <= n // 2).sum(dtype=jnp.int32)
    ends = jnp.concatenate([jnp.zeros_like(cuts[:1]), cuts, n[None]])
    number = jnp.arange(1, len(times) + 1, dtype=jnp.int32)
    number = jnp.where(number == central, 0, number)
    return ends[number], ends[number + 1]


def movement(degrees: Array, translation: Array, grid: Grid, legacy: bool) -> Array:
    """Index of the moved volume to index of the volume, (4, 4)."""
    if legacy:
        flip = jnp.asarray(LPS, degrees.dtype)
        matrix = homogeneous(rotation(jnp.deg2rad(degrees * flip)), translation * flip)
    else:
        rigid = {"scales": jnp.ones_like(degrees), "shears": jnp.zeros(6, degrees.dtype)}
        rigid |= {"degrees": degrees, "translation": translation}
        matrix = affine_map(rigid, grid, "image", "world").matrix
    return matmul(inverse(grid.affine), matrix, grid.affine)


@abstract
class Movements(LineArtefact):
    """Abstract. Takes lines from moved volumes: x + sum of C_m (x_m - x), C_m the circulant matrix of segment m.

    One movement after the other, so that memory does not grow with them.
    """

    legacy: bool = static(default=False, convert=flag, kw_only=True)

    image_interpolation = "linear"  # a field of both, in its place among the others: not annotated here

    @property
    def absolute(self) -> bool:
        """Whether it turns about the world's origin."""
        return self.legacy

    def apply_to(self, image: Image, params: Params) -> Image:
        data, extent = unpadded(image)
        grid = Grid(jnp.asarray(image.affine).astype(data.dtype), extent)
        fill = fill_value(image, "channel minimum", data.dtype)
        fill = fill[:, None] if self.per_channel else fill
        method = self.image_interpolation

        def change(x: Volume, params: Params) -> Volume:
            degrees, shift, times = (
                jnp.asarray(params[n]).astype(x.dtype) for n in ("degrees", "translation", "times")
            )
            matrices = jax.vmap(partial(movement, grid=grid, legacy=self.legacy))(degrees, shift)

            axis = self.line_axis(image, params)
            n = extent[axis]

            @jax.checkpoint
            def step(total: tuple[Volume, ...], operands: tuple[Array, ...]) -> tuple[tuple[Volume, ...], None]:
                matrix, low, high = operands
                points = warp.map_coordinates(matrix, warp.indices(image.spatial_shape, x.dtype))
                there = warp.sample(
                    x, points, extent=extent, interpolation=method, is_label=False, dtype=x.dtype, fill=params["fill"]
                )

                def lines(change: Volume, a: int) -> tuple[Volume, ...]:
                    line = jnp.arange(change.shape[a], dtype=jnp.int32)
                    parts = fourier.circulant(((line >= low) & (line < high)).astype(x.dtype), n)
                    return tuple(fourier.multiply(change, a, part) for part in parts[: len(total)])

                return tuple(t + more for t, more in zip(total, along(axis, lines, there - x), strict=True)), None

            start = (x, jnp.zeros_like(x)) if self.magnitude else (x,)
            total = jax.lax.scan(step, start, (matrices, *segments(times, n, self.legacy)))[0]
            return fourier.modulus(*total) if self.magnitude else total[0]

        return image.replace(data=by_channel(change, data, {**params, "fill": fill}, self.per_channel))


@transform
class Motion(Movements):
    """Compose k-space of a volume that moves rigidly N times while it is recorded, line after line along one axis.

    The times cut the n planes of the shifted spectrum across the axis into N + 1 segments at floor(times n). Segment k
    is that of the volume after movement k, positions being relative to the volume itself, not to each other; the one
    that holds frequency 0 is not moved, and segment 0 takes its place. What is returned is the real part.

    degrees: (N, 3), rotations about the world axes, as in `Affine`.
    translation: (N, 3) mm.
    times: (N,), ascending, from 0 to 1.
    image_interpolation: 'nearest', 'linear' or 'cubic' (B-spline; 'bspline' means the same); beyond the image lies the
    least voxel of each channel.
    axis: voxel axis 0, 1, 2 that lines are recorded along, or an anatomical name ('LR', 'A', ...).
    legacy: TorchIO's movements: about the world's origin instead of the middle of the image, in LPS, and reversed,
    output to input; and its unmoved segment, the first that ends after time 1/2, which may miss frequency 0 by a line.
    magnitude: the absolute value instead of the real part, as scanners show.

    All channels move alike.  Shapes: (C, I, J, K) -> same, float32.  An axis of one voxel stays as it is.
    Computed without a 3-D transform: x + sum of C_k (x_k - x), with C_k a circulant matrix along the axis.
    Raises ValueError for rows that do not match and times that do not ascend.
    Source: Shaw et al., "MRI k-space motion artefact augmentation", MIDL 2019; TorchIO 1.2.1.
    """

    degrees: Any = leaf(convert=vector((None, 3)))
    translation: Any = leaf(convert=vector((None, 3)))
    times: Any = leaf(convert=times_of)
    image_interpolation: str = static(default="linear", convert=interpolation)
    axis: Axis = static(default=2, convert=axis_of, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        counts = [len(getattr(self, name)) for name in ("degrees", "translation", "times")]
        if len(set(counts)) > 1:
            raise ValueError(f"degrees, translation and times must have one row a movement each, got {counts}")

    def draw(self, key: Key, grid: Grid) -> Params:
        return {name: jnp.asarray(getattr(self, name)) for name in ("degrees", "translation", "times")}


@transform
class RandomMotion(Movements):
    """`Motion` by random movements at random times, drawn for each image.

    degrees, translation (mm): uniform for each movement and world axis; x is (-x, x).
    num_transforms: N; structure.
    Times are k / (N + 1), k = 1 .. N, each shifted by up to 0.3 / (N + 1), uniformly.
    axes: voxel axes and anatomical names of which one is drawn, those of one voxel left out.
    per_channel: drawn for each channel, so for each volume of a series.
    The rest is as in `Motion`.
    Source: TorchIO 1.2.1, which crashes for some N (48, 97, ...) and knows axis 2 alone.
    """

    degrees: Range = uniform(default=10.0)
    translation: Range = uniform(default=10.0)
    num_transforms: int = static(default=2, convert=whole(low=1))
    image_interpolation: str = static(default="linear", convert=interpolation)
    axes: Any = static(default=2, convert=axes_of, kw_only=True)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape, count = channels(grid, self.per_channel), self.num_transforms
        drawn = {
            name: ranges.draw(keys.for_name(key, name), getattr(self, name), (*shape, count, 3))
            for name in ("degrees", "translation")
        }
        if self.legacy:  # a slice only turns about the third axis, and stays in its plane
            flat = jnp.asarray(grid.shape)[2] == 1
            for name, still in (("degrees", (True, True, False)), ("translation", (False, False, True))):
                drawn[name] = jnp.where(flat & np.asarray(still), 0, drawn[name])
        middle = np.arange(1, count + 1)[:, None] + np.asarray([[-JITTER, JITTER]])
        drawn["times"] = ranges.draw(keys.for_name(key, "times"), (middle / (count + 1)).astype(np.float32), shape)
        return {**drawn, "axis": draw_axis(keys.for_name(key, "axis"), self.axes, grid, shape)}
