"""A stretch of a series."""

from typing import Any

import jax
import jax.numpy as jnp
import nibabel
import numpy as np

from medjax import keys, ranges
from medjax.arguments import real, traced, whole
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ranges import leaf
from medjax.subject import Subject
from medjax.transforms.place import included
from medjax.transforms.transform import IntensityTransform, abstract, certain, static, transform
from medjax.typing import Key, Params

nib: Any = nibabel  # its type hints know less than it does
OF_EACH_VOLUME = ("bvals", "EchoTime")
"""Metadata that, where they are tuples, hold an entry for each volume."""


@abstract
class Shorter(IntensityTransform):
    """Abstract. Keeps `length` time points from a start."""

    p: float = static(default=1.0, convert=certain, kw_only=True)

    length = 1  # a field of both, in its place among the others: not annotated here

    def channels(self, count: int) -> int:
        return self.length

    def volumes(self, params: Params) -> Any:
        return params["start"] + np.arange(self.length)

    def check_length(self, subject: Subject, start: int) -> None:
        """Raise a ValueError for a series that is too short."""
        last = start + self.length
        for name, image in subject.images.items():
            if included(self, name, image.is_label) and last > image.shape[-4]:
                count = image.shape[-4]
                raise ValueError(f"{name} has {count} time points, but {last} are needed for length {self.length}")

    def apply_to(self, image: Image, params: Params) -> Image:
        if self.length > image.shape[0]:
            raise ValueError(f"length {self.length} is more than the {image.shape[0]} time points of an image")
        start = jnp.asarray(params["start"])
        return image.replace(data=jax.lax.dynamic_slice_in_dim(image.data, start, self.length))

    def retime(self, metadata: dict[str, Any], params: Params) -> dict[str, Any]:
        """A NIfTI header's toffset moves by start TR, both in its unit of time; TR and the times of slices stay.

        Of what DICOM tells of each volume the stretch is kept.
        """
        taken = self.volumes(params)
        each = {name: metadata[name] for name in OF_EACH_VOLUME if isinstance(metadata.get(name), tuple)}
        metadata = metadata | {name: tuple(values[i] for i in taken) for name, values in each.items()}
        header: Any = metadata.get("header")
        if not isinstance(header, nib.Nifti1Header) or len(header.get_data_shape()) != 4:
            return metadata
        header = header.copy()
        header["toffset"] += int(params["start"]) * float(header["pixdim"][4])
        return {**metadata, "header": header}


@transform
class TemporalCrop(Shorter):
    """Take `length` time points of a series, the channels of an image, from `start`.

    Shapes: (C, I, J, K) -> (length, I, J, K), float32; label maps are left alone.  Not invertible.  The start that a
    NIfTI header gives (toffset) moves by start TR, outside of jit; TR and the times of slices stay.
    `Directions` of a subject that have one for each time point are cut with the series, and so are their labels.
    Raises ValueError for a series that ends before, and for p other than 1.
    """

    start: int = leaf(convert=real(low=0.0, whole=True))
    length: int = static(convert=whole(low=1))

    def check_subject(self, subject: Subject) -> None:
        if not traced(self.start):
            self.check_length(subject, int(self.start))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"start": jnp.round(jnp.asarray(self.start)).astype(jnp.int32)}


@transform
class RandomTemporalCrop(Shorter):
    """`TemporalCrop` of `length` time points, each start equally likely, for each image; shared=True draws once."""

    length: int = static(convert=whole(low=1))

    random = True

    def check_subject(self, subject: Subject) -> None:
        self.check_length(subject, 0)

    def draw(self, key: Key, grid: Grid) -> Params:
        ends = jnp.asarray([0, max(grid.channels - self.length, 0)], jnp.float32)
        return {"start": ranges.draw_integer(keys.for_name(key, "start"), ends)}
