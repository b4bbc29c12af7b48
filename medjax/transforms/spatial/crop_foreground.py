"""The box of what is in the foreground."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from medjax.arguments import function_of, maybe, real, sizes, text, whole
from medjax.geometry import Grid, namespace, window
from medjax.ops.statistics import within
from medjax.ranges import leaf
from medjax.subject import Subject
from medjax.transforms.masking import box_of, mask_of
from medjax.transforms.place import Place, included
from medjax.transforms.sampling import Fill, Sampling, label_pad, pad_fill
from medjax.transforms.spatial.crop_or_pad import check_one_grid
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Params, working


@transform
class CropForeground(SpatialTransform):
    """Cut images to the box of the foreground of one of them, with a margin; exact, no interpolation.

    threshold: the foreground is where any channel is above it.
    function: the foreground is where any channel of its result is true, for voxels (C, I, J, K); instead of threshold.
    margin: voxels that the box is widened by on each side, up to the edge of the image.
    target_shape: the shape of the result, one size or three, centred about the box, instead of that of the box; an odd
    voxel goes to the low end, as in `CropOrPad`.
    image_name: the image whose foreground it is; None for the first that is cropped.
    padding_mode: what is added where target_shape reaches beyond the images, as in `CropOrPad`.

    Shapes: (C, I, J, K) -> (C, *box), or (C, *target_shape); dtypes stay.  The shape of the box hangs on voxels, so
    without target_shape it is for preprocessing: under jit, vmap and in a batch a fixed shape must follow it, as of
    CropOrPad.  Inverse: what was cut off comes back as 0.
    Raises ValueError unless one of threshold and function is given, for margin with target_shape, for an image_name
    that is missing, a foreground without voxels (inside jit, where nothing can be raised, all is foreground then) and
    images on different grids; TypeError for a function of an image with padding, which it would see.
    Source: MONAI 1.6, `CropForeground`.  The box of a label map is that of `CropOrPad(mask_name=...)`.

    >>> head = mj.CropForeground(threshold=0, margin=2)
    """

    threshold: float | None = leaf(default=None, convert=maybe(real()))
    function: Callable[[Any], Any] | None = static(default=None, convert=maybe(function_of), kw_only=True)
    margin: int = static(default=0, convert=whole(low=0), kw_only=True)
    target_shape: Any = static(default=None, convert=maybe(sizes), kw_only=True)
    image_name: str | None = static(default=None, convert=maybe(text), kw_only=True)
    padding_mode: Fill = static(default=0.0, convert=pad_fill, kw_only=True)
    p: float = always(default=1.0)

    exact = True
    reshapes = True
    locates = True

    def __post_init__(self):
        super().__post_init__()
        if (self.threshold is None) == (self.function is None):
            raise ValueError("give threshold or function, which say what is in the foreground, and not both")
        if self.margin and self.target_shape is not None:
            raise ValueError("margin widens the box, whose shape target_shape takes the place of: give one of them")

    @property
    def beside(self) -> str | None:
        """The image by whose indices the window is placed, if it has a name."""
        return self.image_name

    def locate(self, subject: Subject, params: Params, places: dict[str, Place]) -> Params:
        image = subject[self.image_name or next(n for n, place in places.items() if included(self, n, place.label))]
        if self.function is None:
            data = image.data.astype(working(image.data.dtype))  # of whole numbers, a threshold need be none
            mask = within(data > jnp.asarray(self.threshold).astype(data.dtype), image.real, False)
        else:
            mask = jnp.asarray(mask_of(self.function, image, subject))
        box = box_of(mask.any(0))
        size = jnp.asarray(image.size, jnp.int32)
        return box | {
            "low": jnp.maximum(box["low"] - self.margin, 0),
            "high": jnp.minimum(box["high"] + self.margin, size),
        }

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        # Where nothing has been seen yet, as where the queue asks for sizes alone, all is foreground.
        low, high = (xp.asarray(params.get(name, end)) for name, end in (("low", 0 * grid.shape), ("high", grid.shape)))
        shape = high - low if self.target_shape is None else xp.asarray(self.target_shape)
        return window(grid, (low + high - shape) // 2, shape, self.target_shape)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        if located and not located["found"]:
            raise ValueError(f"{type(self).__name__}: {self.image_name or 'the image'} has no foreground to crop to")
        check_one_grid(grids, type(self).__name__)

    def check_subject(self, subject: Subject) -> None:
        if self.image_name is not None and self.image_name not in subject.images:
            raise ValueError(
                f"image_name={self.image_name!r} is no image of the subject, which has {', '.join(subject.images)}"
            )

    def sampling(self) -> Sampling:
        return Sampling(pad=self.padding_mode, label_pad=label_pad(self.padding_mode))
