"""A histogram that is shifted: intensities along a broken line that rises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax import keys, ranges
from medjax.arguments import flag, interval, traced, vector
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import leaf, number
from medjax.subject import Subject
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


def rising(name: str, value: Any) -> Any:
    """Numbers (N,) that rise from 0 to 1."""
    points = vector(low=0.0, high=1.0, least=2)(name, value)
    if not traced(points):
        known = np.asarray(points)
        if known[0] != 0 or known[-1] != 1 or np.any(np.diff(known) < 0):
            raise ValueError(f"{name} must rise from 0 to 1, got {known.tolist()}")
    return points


@abstract
class BrokenLine(IntensityTransform):
    """Abstract. Maps each channel along the line through (knots, points), both from 0 to 1 over the channel's range."""

    pointwise = True

    def measure(self, image: Image, subject: Subject) -> Params:
        return {
            "low": channels.least(image.data, image.real),
            "high": channels.greatest(image.data, image.real),
        }

    def mapped(self, image: Image, params: Params, measured: Params, start: str, end: str) -> Image:
        """The image along the line from the points called `start` to those called `end`."""
        count = np.shape(params["points"])[-1]
        low, width = measured["low"], measured["high"] - measured["low"]
        width = jnp.where(width > 0, width, 1)
        unit = (image.data - low) / width
        lines = [channels.rows(params[name], image, count) for name in (start, end)]
        return channels.limited(channels.each(pointwise.piecewise_linear, unit, *lines) * width + low, image, params)

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        return self.mapped(image, params, measured, "knots", "points")

    def undo(self, image: Image, params: Params, measured: Params) -> Image:
        return self.mapped(image, params, measured, "points", "knots")


@transform
class HistogramShift(BrokenLine):
    """Map intensities along a broken line that rises, and leaves the least and the greatest as they are.

    With u from 0 to 1 over the range of the channel, u = k / (N - 1) goes to control point k, linear between.

    control_points: (N,), N >= 2, rising from 0 to 1, both of them among the points.
    Shapes: (C, I, J, K) -> same, float32.  Inverse: the line back, where it is not level.
    Raises ValueError for control points that do not rise from 0 to 1.
    Source: MONAI 1.6, `RandHistogramShift`, there over the range of all channels.

    >>> darker = mj.HistogramShift((0, 0.2, 0.5, 1))
    """

    control_points: Any = leaf(convert=rising)

    def draw(self, key: Key, grid: Grid) -> Params:
        points = jnp.asarray(self.control_points)
        return {"knots": jnp.linspace(0, 1, len(points), dtype=points.dtype), "points": points}


@transform
class RandomHistogramShift(BrokenLine):
    """`HistogramShift` with control points drawn for each image.

    Point k of N is uniform between the new place of point k - 1 and the old one of point k + 1, as in MONAI; the fewer,
    the further they move.

    num_control_points: N >= 3, or a pair from which N is drawn, all equally likely; structure.
    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.

    >>> shifted = mj.RandomHistogramShift((5, 10), p=0.3)
    """

    num_control_points: Any = static(default=10, convert=interval(low=3))
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        limits = np.asarray(self.num_control_points, np.float32)
        count = ranges.draw_integer(keys.for_name(key, "num_control_points"), limits, shape)
        knots = evenly(count, self.num_control_points[1])
        points = drawn_between(keys.for_name(key, "control_points"), knots)
        return {"knots": knots, "points": points, "channels": channels.coins(key, self.p_per_channel, grid)}


def evenly(count: Array, most: int) -> Float[Array, "*S most"]:
    """`count` numbers from 0 to 1, evenly spaced, and 1 again up to `most`."""
    index = jax.lax.broadcasted_iota(jnp.float32, (*count.shape, most), count.ndim)
    last = jnp.broadcast_to((count - 1).astype(jnp.float32)[..., None], index.shape)
    return jnp.where(index < last, index / last, 1)


def drawn_between(key: Key, knots: Float[Array, "*S N"]) -> Float[Array, "*S N"]:
    """Knots from 0 to 1 of which each, in turn, is drawn between the one before it and the one behind it."""
    inner, behind = jnp.moveaxis(knots, -1, 0)[1:-1], jnp.moveaxis(knots, -1, 0)[2:]

    def step(before: Array, operands: tuple[Key, Array, Array]) -> tuple[Array, Array]:
        key, knot, behind = operands
        point = jnp.where(knot < 1, ranges.between(key, before, behind), 1)
        return point, point

    own = keys.for_each(key, np.arange(len(inner), dtype=np.uint32))
    points = jax.lax.scan(step, jnp.zeros_like(inner[0]), (own, inner, behind))[1]
    return jnp.moveaxis(jnp.concatenate([jnp.zeros_like(inner[:1]), points, jnp.ones_like(inner[:1])]), 0, -1)
