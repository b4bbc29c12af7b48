"""Who gets which interpolation and which fill when a run of spatial transforms is read.

Scalar images take `image` and come back as float32 once anything in the run may interpolate; label maps take `label`
and keep their dtype. A fill is drawn from the image that the run reads, for each image on its own:

    number                              that number
    'channel minimum'                   least voxel of each channel
    'border mean', 'border otsu'        of the six faces of each channel, as TorchIO's 'mean' and 'otsu' of an affine
    'minimum', 'maximum', 'mean', 'median'   of all voxels, as TorchIO's padding modes
    'edge', 'reflect', 'symmetric', 'wrap'   continues the image, as numpy.pad; 'linear_ramp', of padding alone, too
"""

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax.arguments import Convert, choice, entries, finite
from medjax.errors import shown
from medjax.image import Image
from medjax.ops import statistics, warp
from medjax.typing import working

Fill: TypeAlias = float | str
LABEL_INTERPOLATIONS = ("nearest", "linear")
"""Those that give no label that was not there: 'linear' is the vote of the eight corners."""
STATISTICS = ("minimum", "maximum", "mean", "median")


class Sampling(NamedTuple):
    """What a spatial transform asks for; None where it has no say.

    fill, label_fill: what lies outside of the image that is read. pad, label_pad: what a change of grid adds to it.
    antialias: whether a coarser grid is smoothed for first.
    """

    image: str | None = None
    label: str | None = None
    fill: Fill | None = None
    label_fill: Fill | None = None
    pad: Fill | None = None
    label_pad: Fill | None = None
    antialias: bool | None = None

    def merged(self, other: "Sampling") -> "Sampling":
        """Both together, where they do not clash."""
        return Sampling(*(a if b is None else b for a, b in zip(self, other, strict=True)))


NOTHING = Sampling()


def asked_by(t: Any) -> Sampling:
    """What a transform that moves asks for by its four fields."""
    return Sampling(t.image_interpolation, t.label_interpolation, t.default_pad_value, t.default_pad_label)


def clash(run: Sampling, step: Sampling) -> bool:
    """Whether one reading cannot serve both: an interpolation or fill is set in both and differs.

    What a change of grid added stays only if nothing is read through it with another fill, or continued again; a
    continuation is not interpolated, and a statistic to pad with is of what there is until then.
    """
    pairs = [(run.image, step.image), (run.label, step.label), (run.antialias, step.antialias)]
    pairs += [(run.fill, step.fill), (run.label_fill, step.label_fill)]
    pairs += [(run.pad, step.pad), (run.label_pad, step.label_pad)]
    pairs += [(run.pad, step.fill), (run.label_pad, step.label_fill)]
    differ = any(a is not None and b is not None and a != b for a, b in pairs)
    continued = run.pad in warp.EDGES and (step.pad is not None or step.fill is not None or step.image is not None)
    ramped = run.pad in warp.EDGE_OF or (step.pad in warp.EDGE_OF and run.fill is not None)
    return differ or continued or ramped or step.pad in STATISTICS


interpolation = choice(*warp.INTERPOLATIONS, bspline="cubic")
label_interpolation = choice(*LABEL_INTERPOLATIONS)


def fill(*words: str, **aliases: Any) -> Convert:
    """The converter of a fill: a finite number, or one of some words; aliases: what other words stand for."""
    by_name = choice(*words, **aliases)
    return lambda name, value: by_name(name, value) if isinstance(value, str) else constant(name, value)


def constant(name: str, value: Any) -> float:
    """A number that a fill may be."""
    if entries(value) is not None:
        raise TypeError(f"{name} must be a number or a name, got {shown(value)}")
    return finite()(name, value)


MOVED = {"minimum": "channel minimum", "mean": "border mean", "otsu": "border otsu"}
"""What TorchIO's words mean for a transform that moves."""
move_fill = fill("edge", "reflect", *MOVED.values(), **MOVED)
pad_fill = fill(*STATISTICS, *warp.EDGES, *warp.EDGE_OF, constant=0.0, empty=0.0)


def label_pad(pad: Fill) -> Fill:
    """What a padding mode means for label maps: a statistic or a ramp of labels is no label, so it is 0."""
    return 0.0 if pad in (*STATISTICS, *warp.EDGE_OF) else pad


def fill_value(image: Image, fill: Fill | None, dtype: Any) -> Array:
    """The (C,) values of a fill for an image; 0 where none is asked for or the image is continued."""
    data, channels = image.data, image.data.shape[0]
    if fill is None or fill in warp.EDGES:
        return jnp.zeros_like(data, dtype, (channels,))
    if isinstance(fill, float):
        return jnp.full_like(data, fill, dtype, (channels,))
    extent, kept = jnp.asarray(image.size, jnp.int32), image.real
    if fill == "channel minimum":
        return statistics.within(data, kept, largest(data.dtype)).min((1, 2, 3)).astype(dtype)
    real = data.astype(working(data.dtype))
    if fill == "border mean":
        value = statistics.border_mean(real, extent)
    elif fill == "border otsu":
        value = statistics.otsu_border(real, extent)
    elif fill == "mean":
        value = statistics.mean_std(real, kept)[0]
    elif fill == "median":
        value = statistics.quantiles(real, jnp.asarray([0.5], real.dtype), kept)[0]
    else:
        value = statistics.extrema(real, kept)[fill == "maximum"]
    if not jnp.issubdtype(dtype, jnp.inexact):
        value = jnp.round(value)  # as numpy.pad
    return jnp.broadcast_to(value, (channels,)).astype(dtype)


def largest(dtype: Any) -> Array:
    """The greatest value of a dtype."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.array(jnp.inf, dtype)
    return jnp.array(True) if dtype == jnp.bool_ else jnp.array(jnp.iinfo(dtype).max, dtype)


def check_fill(fill: Fill | None, what: str, dtype: Any) -> None:
    """Raise a ValueError for a number that the dtype of an image, which it keeps, cannot hold."""
    if not isinstance(fill, float) or np.issubdtype(dtype, np.inexact):
        return
    low, high = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if fill != int(fill) or not low <= fill <= high:
        raise ValueError(
            f"a fill of {fill:g} does not fit {what} of {np.dtype(dtype)}, which it keeps: choose a whole number from "
            f"{low} to {high}, or another dtype"
        )
