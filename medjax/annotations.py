"""What is known of a subject in world millimetres beside its images: landmarks and gradient directions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from medjax import io
from medjax.arguments import as_floats, entries
from medjax.errors import shown
from medjax.geometry import direction, is_traced, matmul, namespace, nearest_rotation
from medjax.metadata import Box, carried, leading_axes


class Annotation:
    """Abstract. Vectors (N, 3) along R, A, S, and a label for each as metadata; an immutable pytree."""

    __slots__ = ("labels", "xyz")
    xyz: Float[Any, "N 3"]
    labels: Any

    def __init__(self, xyz: Any, labels: Any = None):
        vectors = as_floats("xyz", xyz)
        if vectors.ndim != 2 or vectors.shape[1] != 3:
            raise ValueError(f"xyz must have shape (N, 3), got {vectors.shape}")
        rows = None if labels is None else entries(labels)
        if labels is not None and (rows is None or len(rows) != len(vectors)):
            raise ValueError(f"labels must hold one for each of {len(vectors)} rows of xyz, got {shown(labels)}")
        self._fill(vectors, rows)

    def _fill(self, xyz: Any, labels: Any) -> None:
        object.__setattr__(self, "xyz", xyz)
        object.__setattr__(self, "labels", labels)

    @classmethod
    def of(cls, xyz: Any, labels: Any = None) -> Self:
        """These leaves, unchecked: arrays may be traced or batched."""
        made = object.__new__(cls)
        made._fill(xyz, labels)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: use replace({name}=...)")

    def replace(self, xyz: Any) -> Self:
        """A copy with other vectors and the same labels."""
        return self.of(xyz, self.labels)

    @property
    def leading(self) -> tuple[int, ...] | None:
        """The axes of a batch, () for those of one subject; None where JAX has put something else in their place."""
        return leading_axes(self.xyz, 2)

    def __len__(self) -> int:
        return self.xyz.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(xyz: {tuple(self.xyz.shape)}, labels: {self.labels})"

    def __getstate__(self) -> dict[str, Any]:
        return {"xyz": self.xyz, "labels": self.labels}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._fill(**state)


class Points(Annotation):
    """Positions in world mm, RAS+, (N, 3) float32: landmarks, or the corners of boxes (`Points.of_box`).

    Spatial transforms take them along with the first image of the subject, elastic ones by fixed-point inversion.
    Raises ValueError for any other shape.
    """

    __slots__ = ()

    @classmethod
    def of_box(cls, low: Any, high: Any) -> "Points":
        """The eight corners of the box from `low` (3,) to `high` (3,), world mm."""
        corners = as_floats("low", low), as_floats("high", high)
        if any(corner.shape != (3,) for corner in corners):
            raise ValueError(f"low and high must be three numbers each, got {low!r} and {high!r}")
        xp = namespace(*corners)
        return cls(xp.stack(xp.meshgrid(*xp.stack(corners, 1), indexing="ij"), -1).reshape(8, 3))

    def box(self) -> tuple[Any, Any]:
        """The least and the greatest coordinates, (3,) each: the box around the points as they lie now."""
        return self.xyz.min(-2), self.xyz.max(-2)


class Directions(Annotation):
    """Directions in the world, RAS+, (N, 3) float32, as the b-vectors of a diffusion series; zero vectors stay zero.

    Spatial transforms turn them with the first image of the subject: by the rotation, or reflection, nearest to the
    linear map (finite strain; Alexander et al., IEEE TMI 2001). Elastic transforms leave them: no single turn is right.
    """

    __slots__ = ()

    @classmethod
    def from_fsl(cls, bvecs: Any, image: Any) -> "Directions":
        """From FSL's b-vectors: along voxel axes, the first reversed if the determinant of the affine is positive.

        bvecs: (3, N), or (N, 3); or the path of a text file of them.  image: the series, or its affine (4, 4).
        Raises FileNotFoundError, and ValueError for a file that holds no three rows.
        """
        bvecs = io.fsl.read_bvecs(Path(bvecs).expanduser()) if isinstance(bvecs, (str, Path)) else bvecs
        vectors, affine = precise(bvecs, affine_of(image))
        vectors = vectors.T if vectors.ndim == 2 and vectors.shape[0] == 3 and vectors.shape[1] != 3 else vectors
        return cls(matmul(vectors * fsl_signs(affine), direction(affine).T))

    def to_fsl(self, image: Any) -> Any:
        """FSL's b-vectors, (3, N), for an image, or an affine (4, 4)."""
        vectors, affine = precise(self.xyz, affine_of(image))
        along = namespace(affine).linalg.inv(direction(affine))
        return (matmul(vectors, along.T) * fsl_signs(affine)).T


def dicom_gradients(
    source: str | Path | Sequence[str | Path], series: str | None = None
) -> tuple[Float[np.ndarray, "C"], Directions]:
    """b-values (C,), s/mm^2, and gradient directions of a DICOM diffusion series, one of each for each channel.

    source, series: as `ScalarImage` takes them. Directions are in the world, RAS+, and zero where a volume has none
    (b = 0, or a mean over directions); the b-values are their labels too. They are no metadata of the image, since they
    turn with it: put them into the subject, `Subject(dwi=ScalarImage(source), gradients=directions)`, and spatial
    transforms take them along; `TemporalCrop` cuts them with the series.

    Raises: ImportError without pydicom; ValueError for a series without b-values, for GE's, whose directions are not
        along the axes of the patient, and as `ScalarImage` does.
    """
    bvals, directions = io.dicom.gradients(io.dicom.as_paths(source), series)
    return bvals, Directions(directions, bvals.tolist())


def fsl_gradients(path: str | Path) -> tuple[Float[np.ndarray, "C"], Directions]:
    """b-values (C,), s/mm^2, and gradient directions of a series in a file, from the `.bval` and `.bvec` beside it.

    path: of the volume; `dwi.nii.gz` has `dwi.bval` and `dwi.bvec` (or `.bvals`, `.bvecs`). Directions are in the
    world, RAS+, and zero where a volume has none; the b-values are their labels too. In a subject,
    `Subject(dwi=ScalarImage(path), gradients=directions)`, spatial transforms take them along and `TemporalCrop` cuts
    them with the series, labels and all.

    Raises: FileNotFoundError; ValueError, naming the file, unless both hold one entry for each of C volumes.
    """
    path = Path(path).expanduser()
    header = io.read_header(path)
    files = io.fsl.beside(path, "bval"), io.fsl.beside(path, "bvec")
    bvals, bvecs = io.fsl.read_bvals(files[0]), io.fsl.read_bvecs(files[1])
    for file, count in zip(files, (len(bvals), bvecs.shape[1]), strict=True):
        if count != header.shape[0]:
            raise ValueError(f"{file} has {count} entries, but {path} has {header.shape[0]} volumes")
    return bvals, Directions(Directions.from_fsl(bvecs, header.affine).xyz, bvals.tolist())


def save_fsl_gradients(path: str | Path, bvals: Any, directions: Directions, image: Any) -> None:
    """Write the `.bval` and `.bvec` files that belong beside a series.

    path: of the volume, to which an image is saved too.  bvals: (C,), s/mm^2.  directions: as they lie in the world
    now.  image: the series as it is saved, or its affine: b-vectors are along its axes.
    Raises ValueError unless there are as many b-values as directions.

    >>> image.save("out/dwi.nii.gz")
    >>> mj.save_fsl_gradients("out/dwi.nii.gz", subject.gradients.labels, subject.gradients, image)
    """
    path, values = Path(path).expanduser(), np.asarray(bvals, np.float64)
    if values.shape != (len(directions),):
        raise ValueError(f"bvals must be {len(directions)} numbers, one for each direction, got shape {values.shape}")
    io.fsl.write_numbers(path.with_name(io.fsl.stem(path) + ".bval"), values)
    io.fsl.write_numbers(path.with_name(io.fsl.stem(path) + ".bvec"), np.asarray(directions.to_fsl(image)))


def affine_of(image: Any) -> Any:
    """The affine of an image, or the affine itself; images stand above this module, which cannot name them."""
    return getattr(image, "affine", image)


def precise(*arrays: Any) -> tuple[Any, ...]:
    """Arrays in float64 on the host; in float32 if any is traced."""
    if is_traced(*arrays):
        return tuple(jnp.asarray(array, jnp.float32) for array in arrays)
    return tuple(np.asarray(array, np.float64) for array in arrays)


def fsl_signs(affine: Any) -> Any:
    """FSL reverses the first axis of images that are not stored radiologically; (1, 3)."""
    xp = namespace(affine)
    radiological = xp.linalg.det(affine[:3, :3]) <= 0
    return xp.where(radiological, xp.ones((1, 3), affine.dtype), xp.asarray([[-1, 1, 1]], affine.dtype))


def turned(directions: Any, linear: Any) -> Any:
    """Directions (N, 3) carried by a linear map of the world, output to input (3, 3)."""
    return matmul(namespace(linear).asarray(directions).astype(linear.dtype), nearest_rotation(linear))


def register_annotation(cls: type[Annotation]) -> None:
    """Make a kind of annotation a pytree."""

    def flatten(item: Annotation):
        return (item.xyz,), Box(item.labels, item.leading)

    def flatten_with_keys(item: Annotation):
        children, box = flatten(item)
        return ((jax.tree_util.GetAttrKey("xyz"), *children),), box

    def unflatten(box: Box, children: tuple[Any, ...]) -> Annotation:
        return cls.of(children[0], carried(box, children, leading_axes(children[0], 2)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


register_annotation(Points)
register_annotation(Directions)
