"""A subject preprocessed, and the way back: where the voxels of its own grid lie on the preprocessed one."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import numpy as np

from medjax import geometry
from medjax.data.nnunet_preprocess import NNUNetPreprocess, region, transposed
from medjax.data.nnunet_resize import separate
from medjax.geometry import Linear
from medjax.image import Image, ScalarImage
from medjax.patches.samplers import bare
from medjax.subject import Subject
from medjax.transforms.checks import check_subject
from medjax.transforms.host import compiled_draw, followed, on_host, outline, start_all
from medjax.transforms.inverse import keepers_of, located, origin
from medjax.transforms.near import brought_near, taken_back
from medjax.transforms.place import Place, Record, advance, is_spatial, linear_part
from medjax.transforms.program import flatten, flatten_params, is_random, reads, runs_of
from medjax.transforms.transform import Transform
from medjax.typing import Matrix, Shape3

Pipeline: TypeAlias = Transform | NNUNetPreprocess


class Reach(NamedTuple):
    """A grid on the way: the map from an index of the native grid to one of it, and its shape."""

    matrix: Matrix
    shape: Shape3


class Way(NamedTuple):
    """The way back.

    native: the image on whose grid the result lies.  matrix: (4, 4) float64, an index of the native grid to one of the
    preprocessed; None if the way is no such map.  reaches: the grids that a voxel must lie in to have been seen.
    nearest: the axis of the preprocessed grid along which the nearest plane counts.  points: where the native voxels
    lie, (3, I, J, K) float32, where there is no matrix; -1 is outside.
    """

    native: Image
    matrix: Matrix | None
    reaches: tuple[Reach, ...] = ()
    nearest: int | None = None
    points: Callable[[], np.ndarray] | None = None


def prepared(pipeline: Pipeline, subject: Subject) -> tuple[Subject, Way]:
    """The preprocessed subject, and the way back from the grid of its first scalar image.

    Raises ValueError for a pipeline that draws.
    """
    if isinstance(pipeline, NNUNetPreprocess):
        ready = pipeline(subject)
        return ready, way_of_nnunet(pipeline, subject, grid_of(ready)[1])
    if is_random(pipeline):
        raise ValueError(
            f"pipeline must do the same whenever it is called, but something in {type(pipeline).__name__} is random"
        )
    check_subject(pipeline, subject)
    t, near, offset = brought_near(pipeline, bare(subject))
    params = compiled_draw(t, None, outline(near))
    record: Record = {}
    ready = taken_back(on_host(t, near, params, record), offset)
    steps = flatten(t)
    turns = located(steps, flatten_params(t, params), record)
    turns = [jax.device_get(turn) if is_spatial(step.transform) else turn for step, turn in zip(steps, turns)]
    last = grid_of(ready)[0]
    keepers = keepers_of(steps, turns, [last])
    native = subject[origin(last, keepers, -1)]

    matrix: Matrix | None = np.eye(4)
    reaches: list[Reach] = []
    for run, begin, end in followed(steps, runs_of(steps), turns, start_all(near), advance):
        name = origin(last, keepers, run[0])
        if not reads(steps, run):
            continue
        matrix = None if matrix is None else onward(matrix, begin[name], end[name])
        if matrix is None:
            break
        i, j, k = (int(n) for n in end[name].grid.shape)
        reaches.append(Reach(matrix, (i, j, k)))

    def points() -> np.ndarray:
        """By the way back of coordinates, which are 1 more than they are: what no voxel shows is 0."""
        shape = grid_of(ready)[1].spatial_shape
        lines = np.meshgrid(*(np.arange(1, n + 1, dtype=np.float32) for n in shape), indexing="ij")
        image = ScalarImage(np.stack(lines), np.asarray(grid_of(ready)[1].affine, np.float64))
        given = Transform.invert(pipeline, Subject(prediction=image), params, like=subject, interpolation="linear")
        return given["prediction"].numpy() - 1

    return ready, Way(native, matrix, tuple(reaches), points=points if matrix is None else None)


def grid_of(subject: Subject) -> tuple[str, Image]:
    """The first scalar image of a subject, or if it has none the first image, with its name."""
    images = subject.images
    name = next((name for name, image in images.items() if not image.is_label), next(iter(images)))
    return name, images[name]


def onward(matrix: Matrix, begin: Place, end: Place) -> Matrix | None:
    """The map from an index of the native grid to one of the grid after a run, if the run has no other than linear."""
    if not all(isinstance(move, Linear) for move in end.moves):
        return None
    return geometry.matmul(geometry.inverse(np.asarray(linear_part(begin, end), np.float64)), matrix)


def way_of_nnunet(pipeline: NNUNetPreprocess, subject: Subject, ready: Image) -> Way:
    """The way back through nnU-Net's preprocessing, which the affines tell."""
    native = grid_of(subject)[1]
    turned = transposed(native, pipeline.transpose)
    low, high = region(ready, turned)
    old = geometry.spacing(np.asarray(turned.affine, np.float64))
    # The box is cut along faces of voxels; affines, of files too, hold that only nearly.
    step = np.asarray(ready.spatial_shape) / (high - low)
    matrix = geometry.homogeneous(np.diag(step), (0.5 - low) * step - 0.5) @ np.eye(4)[[*pipeline.transpose, 3]]
    return Way(native, matrix, (Reach(matrix, ready.spatial_shape),), separate(pipeline.target(old), old))
