"""Axes of a volume by number, or of the world by name."""

from typing import Any

import jax.numpy as jnp

from medjax.arguments import Convert, choice, many
from medjax.errors import shown
from medjax.geometry import world_axes

ENDS = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
WORLD_AXES = {
    name: world
    for world, (low, high) in enumerate(ENDS)
    for name in (low, high, low[0], high[0], low[0] + high[0], high[0] + low[0])
}
"""Names of the world axes R, A, S: 'left', 'L', 'LR', ..., in lower case."""
VOXEL_AXES = {"width": 0, "height": 1, "depth": 2}
Axis = int | str

voxel_axis = choice(0, 1, 2)
named_axis = choice(0, 1, 2, *WORLD_AXES, **VOXEL_AXES)


def axis_of(name: str, value: Any) -> Axis:
    """One voxel axis 0, 1, 2, or the anatomical name of one, as it was written."""
    found = named_axis(name, value.lower() if isinstance(value, str) else value)
    return str(value) if isinstance(found, str) else found


def voxel_axes(least: int = 1, most: int = 3) -> Convert:
    """The converter of a tuple of voxel axes, none twice, in their order."""

    def convert(name: str, value: Any) -> tuple[int, ...]:
        found = many(voxel_axis, distinct=True)(name, value)
        if not least <= len(found) <= most:
            count = f"{least}" if least == most else f"{least} to {most}"
            raise ValueError(f"{name} must be {count} of the axes 0, 1, 2, got {shown(value)}")
        return found

    return convert


axes_of = many(axis_of, least=1, distinct=True)
"""Voxel axes 0, 1, 2 and anatomical names, mixed as one likes; one alone needs no tuple."""


def along_voxels(axis: Axis, affine: Any) -> Any:
    """The voxel axis that a name stands for, traced; an index as it is."""
    return world_axes(jnp.asarray(affine))[0][WORLD_AXES[axis.lower()]] if isinstance(axis, str) else axis
