"""Middle slices of images in world orientation, labels in colour over intensities; drawn by matplotlib."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.errors import needs_extra
from medjax.geometry import world_axes
from medjax.image import Image

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The world axis that a plane is cut across."""


def figure(rows: int, columns: int, size: float) -> tuple[Any, np.ndarray]:
    """A matplotlib Figure and its axes (rows, columns), without any global state."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        needs_extra("matplotlib", "plot", "a picture")
    made = Figure(figsize=(size * columns, size * rows), layout="constrained")
    axes = made.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        ax.axis("off")
    return made, axes


def slice_of(image: Image, plane: str) -> tuple[np.ndarray, float]:
    """The middle slice of the first channel as rows from top (anterior or superior) and columns, and its aspect."""
    axes, signs = world_axes(np.asarray(image.affine, np.float64))
    data = np.transpose(image.numpy()[0], axes)
    data = data[tuple(slice(None, None, 1 if sign > 0 else -1) for sign in signs)]
    spacing = np.asarray(image.spacing)[axes]
    across = PLANES[plane]
    first, second = (axis for axis in range(3) if axis != across)
    section = np.take(data, data.shape[across] // 2, axis=across)
    return section.T[::-1], spacing[second] / spacing[first]


def draw(ax: Any, images: Mapping[str, Image], name: str, plane: str, title: str = "") -> None:
    """One of some images on an axes, with the first label map over it where their grids agree."""
    image = images[name]
    section, aspect = slice_of(image, plane)
    ax.set_title(title, fontsize=8)
    if image.is_label:
        ax.imshow(section, cmap="tab10", vmin=0, vmax=9, aspect=aspect, interpolation="nearest")
        return
    ax.imshow(section, cmap="gray", aspect=aspect)
    labels = next((i for i in images.values() if i.is_label), None)
    if labels is not None and labels.spatial_shape == image.spatial_shape:
        over, _ = slice_of(labels, plane)
        ax.imshow(
            np.ma.masked_equal(over, 0),
            cmap="tab10",
            vmin=0,
            vmax=9,
            alpha=0.35,
            aspect=aspect,
            interpolation="nearest",
        )


def plot_images(images: Mapping[str, Image], *, size: float = 2.5) -> Any:
    """The three middle slices of every image, a row an image; returns a matplotlib Figure.

    size: inches of a slice.
    Raises ImportError without the `plot` extra.
    """
    made, axes = figure(len(images), 3, size)
    for row, name in zip(axes, images, strict=True):
        for ax, plane in zip(row, PLANES, strict=True):
            draw(ax, images, name, plane, f"{name}, {plane}")
    return made
