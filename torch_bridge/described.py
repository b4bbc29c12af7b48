"""What an image says of its grid: shape, spacing, axes and their names."""

import math
from typing import Any

import numpy as np

import medjax as mj
from medjax import geometry

OPPOSITE = dict(zip("LRPAISTBDV", "RLAPSIBTVD", strict=True))
"""Letters of the ends of axes; top, bottom, dorsal and ventral for pictures and animals."""


class Described:
    """Abstract. Questions about the grid of an image, and about the memory of its voxels."""

    _source: mj.Image
    affine: Any
    shape: tuple[int, ...]
    data: Any

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """(I, J, K), without reading voxels."""
        i, j, k = self.shape[-3:]
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        return self._source.spacing

    @property
    def origin(self) -> tuple[float, float, float]:
        """World position of the centre of the first voxel, mm."""
        return self._source.origin

    @property
    def direction(self) -> tuple[float, ...]:
        """Unit vectors of the voxel axes as the columns of a matrix, nine numbers row by row."""
        return tuple(float(v) for v in np.ravel(self._source.direction))

    @property
    def orientation(self) -> tuple[str, str, str]:
        """Directions in which the voxel axes run, as ('R', 'A', 'S')."""
        return geometry.orientation(self.affine)

    @property
    def orientation_str(self) -> str:
        """The same in one word, as 'RAS'."""
        return "".join(self.orientation)

    @property
    def bounds(self) -> np.ndarray:
        """World positions of the centres of the first and of the last voxel, (2, 3), mm."""
        return self._source.bounds

    def get_bounds(self) -> tuple[tuple[float, float], ...]:
        """Where the outer faces of the first and of the last voxel lie along R, A and S, mm: three pairs."""
        ends = np.array([[-0.5] * 3, np.array(self.spatial_shape) - 0.5])
        first, last = (ends @ self.affine[:3, :3].T + self.affine[:3, 3]).tolist()
        return tuple(zip(first, last, strict=True))

    def get_center(self, lps: bool = False) -> tuple[float, float, float]:
        """World position of the middle of the grid, mm, along R, A, S, or along L, P, S."""
        r, a, s = self._source.center
        return (-r, -a, s) if lps else (r, a, s)

    def get_spacing_string(self) -> str:
        """The voxel size as text."""
        return "(" + ", ".join(f"{s:.2f}" for s in self.spacing) + ")"

    def is_2d(self) -> bool:
        """Whether there is one slice."""
        return self.shape[-1] == 1

    def check_is_2d(self) -> None:
        """Raise a RuntimeError unless there is one slice."""
        if not self.is_2d():
            raise RuntimeError(f"the image must be 2D, one slice, got shape {self.spatial_shape}")

    @property
    def width(self) -> int:
        """How many columns a 2D image has."""
        self.check_is_2d()
        return self.spatial_shape[0]

    @property
    def height(self) -> int:
        """How many rows a 2D image has."""
        self.check_is_2d()
        return self.spatial_shape[1]

    def axis_name_to_index(self, axis: str) -> int:
        """The axis, -3 to -1, along which 'Left', 'Superior' or another direction lies; its first letter counts."""
        if not isinstance(axis, str):
            raise ValueError(f"axis must be a name such as 'Left', got {axis!r}")
        letter = axis[0].upper()
        if letter in "TB":
            return -2
        codes = self.orientation
        return codes.index(letter if letter in codes else self.flip_axis(letter)) - 3

    @staticmethod
    def flip_axis(axis: str) -> str:
        """The letter of the opposite direction: 'L' to 'R'."""
        found = OPPOSITE.get(axis[0].upper())
        if found is None:
            raise ValueError(f"axis must begin with one of {', '.join(OPPOSITE)}, got {axis!r}")
        return found

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.data.element_size()

    @property
    def memory(self) -> int:
        """Bytes of the voxels."""
        return math.prod(self.shape) * self.itemsize

    def set_check_nans(self, check_nans: bool) -> None:
        """Say whether NaN is to be warned of when voxels come."""
        self.check_nans = check_nans

    def to_ras(self) -> Any:
        """The image with its voxel axes along R, A and S as nearly as can be; itself if they are."""
        if self.orientation_str == "RAS":
            return self
        axes, signs = geometry.world_axes(self.affine)
        turned = np.eye(4)[:, [*axes, 3]]
        for world, axis in enumerate(axes):
            if signs[world] < 0:
                turned[axis, world], turned[axis, 3] = -1, self.spatial_shape[axis] - 1
        data = self.data.permute(0, *(int(axis) + 1 for axis in axes))
        data = data.flip([world + 1 for world in range(3) if signs[world] < 0])
        return self.like(data.contiguous(), self.affine @ turned)  # pyright: ignore
