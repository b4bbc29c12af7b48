"""Turns by 90 degrees in the planes of the voxel axes."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.arguments import choice, many
from medjax.geometry import Grid, Linear, homogeneous, inverse, matmul, namespace
from medjax.transforms.axes import voxel_axes
from medjax.transforms.spatial.crop_or_pad import check_one_grid
from medjax.transforms.transform import SpatialTransform, abstract, static, transform
from medjax.typing import Key, Params


def planes(name: str, value: Any) -> tuple[int, ...]:
    """Two or three of the voxel axes 0, 1, 2, sorted."""
    return tuple(sorted(voxel_axes(2)(name, value)))


def turn_matrix(first: int, second: int, turns: int) -> np.ndarray:
    """(3, 3), output to input index, of quarter turns from the first axis towards the second, as `numpy.rot90`."""
    matrix = np.eye(3, dtype=np.int32)
    matrix[[first, second]] = matrix[[second, first]]
    matrix[second] *= -1
    return np.linalg.matrix_power(matrix, turns)


def about_middle(matrix: Any, reference: Grid) -> Linear:
    """The world map of a signed permutation (3, 3) of the axes of a grid about its middle."""
    xp = namespace(reference.affine)
    dtype = reference.affine.dtype
    last = xp.where(xp.asarray(matrix).min(1) < 0, reference.shape - 1, 0)
    index = homogeneous(xp.asarray(matrix).astype(dtype), last.astype(dtype))
    return Linear(matmul(reference.affine, index, inverse(reference.affine)))


@abstract
class ExchangedAxes(SpatialTransform):
    """Abstract. Exchanges voxel axes of one size, of images that share a grid."""

    exact = True

    @property
    def exchanged(self) -> Sequence[int]:
        """The voxel axes that may change places."""
        raise NotImplementedError(f"{type(self).__name__} must define exchanged")

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        shape = tuple(int(n) for n in grid.shape) if isinstance(grid.shape, np.ndarray) else grid.fixed
        if shape is not None and len({shape[axis] for axis in self.exchanged}) > 1:
            raise ValueError(
                f"{type(self).__name__} keeps the shape, so the axes {tuple(self.exchanged)} must have one size, got "
                f"shape {shape}; name axes of one size, or put CropOrPad before it"
            )
        return grid

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        check_one_grid(grids, type(self).__name__)


@transform
class Rotate90(ExchangedAxes):
    """Turn the content by quarter turns about the middle of the image: exact, no interpolation.

    axes: the plane, two of the voxel axes 0, 1, 2.
    turns: 0 to 3, from the first axis towards the second, as `numpy.rot90`.
    The turn is one of voxels, whatever the spacing; affines stay.

    Shapes and dtypes stay.  The images must share a grid.  Inverse: exact.
    Raises ValueError for an odd number of turns if the two axes differ in size, and for images on different grids.
    Source: batchgeneratorsv2 0.3.6, `Rot90Transform`.
    """

    axes: Any = static(default=(0, 1), convert=voxel_axes(2, 2))
    turns: int = static(default=1, convert=choice(0, 1, 2, 3))

    @property
    def exchanged(self) -> Sequence[int]:
        """The plane, unless it is turned upside down or not at all."""
        return self.axes if self.turns % 2 else ()

    def move(self, params: Params, reference: Grid) -> Linear:
        first, second = self.axes
        return about_middle(turn_matrix(first, second, self.turns), reference)


@transform
class RandomRotate90(ExchangedAxes):
    """`Rotate90` in the plane of two of `axes`, each pair equally likely, by one of `turns`, each equally likely.

    turns: the quarter turns to draw from, of 0 to 3.
    Drawn once per subject.
    Raises ValueError if a turn is odd and the sizes along `axes` differ, and for images on different grids.
    """

    axes: Any = static(default=(0, 1, 2), convert=planes)
    turns: Sequence[int] = static(default=(0, 1, 2, 3), convert=many(choice(0, 1, 2, 3), least=1))

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        last = {"plane": len(self.axes) * (len(self.axes) - 1) // 2 - 1, "turns": len(self.turns) - 1}
        drawn = {n: ranges.draw_integer(keys.for_name(key, n), np.array([0, k], np.float32)) for n, k in last.items()}
        return {"plane": drawn["plane"], "turns": jnp.asarray(self.turns, jnp.int32)[drawn["turns"]]}

    @property
    def exchanged(self) -> Sequence[int]:
        """All of them, unless no quarter turn may be drawn."""
        return self.axes if any(n % 2 for n in self.turns) else ()

    def move(self, params: Params, reference: Grid) -> Linear:
        planes = combinations(self.axes, 2)
        table = np.array([[turn_matrix(a, b, n) for n in range(4)] for a, b in planes])
        return about_middle(namespace(reference.affine).asarray(table)[params["plane"], params["turns"]], reference)
