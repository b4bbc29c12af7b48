"""Statistics of the voxels inside a mask; volumes, masks, extents and probabilities may all be traced.

A mask is boolean and broadcasts to (C, I, J, K); None means every voxel. What lies outside has no influence, not even
as NaN. Statistics are pooled over channels and space unless they say otherwise. Over a mask without voxels each is 0,
so that nothing compiled turns into NaN: who cares looks at the count. Gradients are finite.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from medjax.ops import passes
from medjax.typing import Mask, Shape3, Volume

Scalar: TypeAlias = Float[Array, ""]
AnyMask: TypeAlias = Bool[Array, "..."] | None
T = TypeVar("T")

SAMPLE = 8192  # voxels that guess a quantile: sorted in 1.5 ms
NEAR = 4096  # candidates that end the search for a quantile
BINS = 128  # ITK's default for Otsu


def extent_mask(shape: Shape3, extent: ArrayLike | Shape3) -> Mask:
    """True at the voxels whose index is below `extent`, (3,) int32, on every axis."""
    end = jnp.asarray(extent, jnp.int32)
    i, j, k = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) < end[axis] for axis in range(3))
    return i & j & k


def mean_std(x: Volume, mask: AnyMask = None) -> tuple[Scalar, Scalar, Int[Array, ""]]:
    """Mean, unbiased standard deviation (n - 1) and number of voxels n.

    The deviation is 0 for n < 2; where it is 0, so is its gradient. Three passes, so that float32 is enough: the mean
    as first summed, the mean of what is left after taking that away, the squares about the two together.
    """
    n = jnp.full_like(x, x.size, jnp.int32, ()) if mask is None else count(jnp.broadcast_to(mask, x.shape))
    size = jnp.maximum(n, 1).astype(x.dtype)
    near = jax.lax.stop_gradient(within(x, mask, 0).sum() / size)
    mean = near + within(x - near, mask, 0).sum() / size
    square = (within(x - jax.lax.stop_gradient(mean), mask, 0) ** 2).sum() / jnp.maximum(size - 1, 1)
    varies = square != 0
    return mean, jnp.where(varies, jnp.sqrt(jnp.where(varies, square, 1)), 0), n


def extrema(x: Volume, mask: AnyMask = None) -> tuple[Scalar, Scalar]:
    """Smallest and largest value; voxels that tie share the gradient. NaN inside counts on some devices only."""
    low, high = within(x, mask, jnp.inf).min(), within(x, mask, -jnp.inf).max()
    empty = low > high
    return jnp.where(empty, 0, low), jnp.where(empty, 0, high)


def quantiles(x: Volume, q: Float[Array, "Q"], mask: AnyMask = None) -> Float[Array, "Q"]:
    """Quantiles with linear interpolation, the default of `numpy.quantile`; q in [0, 1]; NaN counts as masked.

    With r + f = q (n - 1), r whole: x_(r) + f (x_(r+1) - x_(r)), of the sorted voxels x_(0) .. x_(n-1). The gradient of
    x_(r) is shared by the voxels equal to it, and q has one.
    """
    known = within(x, mask, jnp.nan)
    n = count(known == known)
    rank, fraction = position(q.astype(x.dtype), jnp.maximum(n - 1, 0))
    lower, upper = (jnp.where(n > 0, value, 0) for value in order_statistics(known, rank, n))
    return lower + (upper - lower) * fraction


def border_mean(x: Volume, extent: ArrayLike | Shape3) -> Float[Array, "C"]:
    """Mean over the six faces of each channel; a voxel of an edge counts in each face it belongs to.

    extent: (3,) int32, how much of the grid is real; the faces are those of the real part.
    """
    values, real = faces(x, extent)
    return jnp.where(real, values, 0).sum(1) / real.sum(1, dtype=jnp.int32).astype(x.dtype)


def otsu_border(x: Volume, extent: ArrayLike | Shape3) -> Float[Array, "C"]:
    """Mean of the face voxels of each channel below their Otsu threshold; of all of them, if none is below.

    extent: (3,) int32, how much of the grid is real.
    """
    values, real = faces(x, extent)
    low = jnp.where(real, values, jnp.inf).min(1, keepdims=True)
    high = jnp.where(real, values, -jnp.inf).max(1, keepdims=True)
    below = real & (values < jax.lax.stop_gradient(otsu_threshold(values, real, low, high)))
    chosen = jnp.where(below.any(1, keepdims=True), below, real)
    return jnp.where(chosen, values, 0).sum(1) / chosen.sum(1, dtype=jnp.int32).astype(x.dtype)


def finite_only(function: Callable[[Array, AnyMask], T], x: Volume, mask: AnyMask = None) -> T:
    """`function(x, mask)`, with voxels that are not finite taken out of the mask.

    Where there is no mask and all are finite, it is `function(x, None)`, many times quicker, and one sum to find out:
    one that is finite has no part that is not.
    """

    def finite(x: Array) -> Array:
        return jnp.abs(x) <= jnp.finfo(x.dtype).max

    if mask is not None:
        return function(x, mask & finite(x))
    return jax.lax.cond(finite(x.sum()), lambda x: function(x, None), lambda x: function(x, finite(x)), x)


def each_channel(function: Callable[[Array, AnyMask], T], x: Volume, mask: AnyMask = None) -> T:
    """`function` of each channel (1, I, J, K) and its mask, stacked along a new first axis.

    Off a CPU it is mapped, where a conditional in it takes both branches, and cannot be traced over several devices:
    put `finite_only` around this.
    """
    if mask is None:
        return passes.one_by_one(lambda channel: function(channel[None], None), x)
    return passes.one_by_one(lambda pair: function(pair[0][None], pair[1][None]), (x, jnp.broadcast_to(mask, x.shape)))


def over_channels(x: Volume) -> tuple[Float[Array, "1 I J K"], Float[Array, "1 I J K"]]:
    """Mean and unbiased standard deviation over the channels at each voxel, of those of its values that are finite.

    The deviation is 0 for fewer than two of them; where it is 0, so is its gradient.
    """
    finite = jnp.isfinite(x)
    n = finite.sum(0, keepdims=True, dtype=jnp.int32).astype(x.dtype)
    mean = jnp.where(finite, x, 0).sum(0, keepdims=True) / jnp.maximum(n, 1)
    square = (jnp.where(finite, x - mean, 0) ** 2).sum(0, keepdims=True) / jnp.maximum(n - 1, 1)
    varies = square != 0
    return mean, jnp.where(varies, jnp.sqrt(jnp.where(varies, square, 1)), 0)


def within(x: Array, mask: AnyMask, other: ArrayLike) -> Array:
    """x inside the mask and `other` outside."""
    return x if mask is None else jnp.where(jnp.broadcast_to(mask, x.shape), x, jnp.asarray(other, x.dtype))


def count(condition: Bool[Array, "C I J K"]) -> Int[Array, ""]:
    """How many voxels are True. Ones in bfloat16, the quickest way to XLA's vectorised sums on a CPU; exact."""
    slabs = condition.astype(jnp.bfloat16).sum((2, 3), dtype=jnp.float32)
    return slabs.astype(jnp.int32).sum(dtype=jnp.int32)


def position(q: Float[Array, "Q"], last: Int[Array, ""]) -> tuple[Int[Array, "Q"], Float[Array, "Q"]]:
    """q * last as whole part and fraction, where one float32 product would be off by whole ranks.

    Both factors are split into parts of 12 bits, whose products are exact.
    """
    coarse = jnp.round(q * 2**12) / 2**12
    digits = [(last & bits).astype(q.dtype) for bits in (0xFFF, 0xFFF000, 0x7F000000)]
    terms = jnp.stack([part * digit for part in (coarse, q - coarse) for digit in digits])
    whole = jnp.floor(terms)
    fraction = (terms - whole).sum(0)
    carry = jnp.floor(fraction)
    return whole.astype(jnp.int32).sum(0, dtype=jnp.int32) + carry.astype(jnp.int32), fraction - carry


@jax.custom_jvp
def order_statistics(x: Volume, ranks: Int[Array, "Q"], n: Int[Array, ""]) -> tuple[Array, Array]:
    """The voxels of each rank and of the next, (Q,) and (Q,), among the n that are not NaN; anything where n is 0."""
    places = np.random.default_rng(0).integers(x.size, size=min(SAMPLE, x.size))
    sample = jnp.sort(ordinal(x.ravel()[places]))
    return passes.one_by_one(lambda rank: select(x, sample, rank, n), ranks)


@order_statistics.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    x, dx = primals[0], tangents[0]
    values = order_statistics(*primals)

    def shared(value: Scalar) -> Scalar:
        equal = x == value
        return jnp.where(equal, dx, 0).sum() / jnp.maximum(count(equal), 1).astype(x.dtype)

    return values, jax.tree.map(partial(passes.one_by_one, shared), values)


def select(x: Volume, sample: Int[Array, "M"], rank: Int[Array, ""], n: Int[Array, ""]) -> tuple[Scalar, Scalar]:
    """The voxels of a rank and of the next: count until few are left, or equal ones, then sort those.

    Source: Floyd and Rivest, "Expected time bounds for selection", Communications of the ACM 18, 1975.
    """
    lines = x.reshape(-1, divisor(x.size))
    low, high, first, last = bracket(lines, sample, rank, n)
    following = jnp.minimum(rank + 1, n - 1)

    def equal() -> tuple[Array, Array]:
        value = jnp.where(low == 0, 0, threshold(low, x.dtype))
        return value, value

    def sorted_() -> tuple[Array, Array]:
        def inside(x: Array) -> Array:
            return (ordinal(x) >= low) & (ordinal(x) < high)

        hits = inside(lines).astype(jnp.bfloat16).sum(1, dtype=jnp.float32)
        hit = jnp.nonzero(hits, size=min(NEAR, len(lines)), fill_value=len(lines))
        few = lines.at[hit].get(mode="fill", fill_value=jnp.nan).ravel()
        ordered = -jax.lax.top_k(jnp.where(inside(few), -few, -jnp.inf), min(NEAR, few.size))[0]
        return ordered[rank - first], ordered[following - first]

    def next_above() -> Array:
        return jnp.where(ordinal(x) >= high, jnp.where(jnp.isnan(x), jnp.inf, x), jnp.inf).min()

    value, after = jax.lax.cond(high == low + 1, equal, sorted_)
    return value, jax.lax.cond(following < last, lambda: after, next_above)


def divisor(size: int) -> int:
    """The longest lines of less than 256 voxels that a volume of some voxels can be cut into."""
    return max(length for length in range(1, 256) if size % length == 0)


def bracket(
    lines: Float[Array, "N L"], sample: Int[Array, "M"], rank: Int[Array, ""], n: Int[Array, ""]
) -> tuple[Array, ...]:
    """Ordinals [low, high) with the voxel of a rank between them, and how many voxels lie below either.

    At most NEAR voxels are left, or equal ones. It is cut in four, at most some 20 times, as a rule 3: where the sorted
    sample has the rank and four standard deviations from there, then at the quarters of the sample inside, or just
    above the lower end (so a value that many voxels share is found), and where the sample has none, in equal parts.
    """
    dtype = lines.dtype
    top = ordinal(jnp.full_like(lines, jnp.inf, shape=()))
    known = (sample <= top).sum(dtype=jnp.int32)
    size, share = known.astype(dtype), rank.astype(dtype) / jnp.maximum(n, 1).astype(dtype)
    spread = (4 * jnp.sqrt(size * share * (1 - share)) + 4) * jnp.array([-1, 0, 1], dtype)
    guesses = sample[jnp.clip((size * share + spread).astype(jnp.int32), 0, known - 1)]
    guesses = jnp.clip(guesses + jnp.array([0, 0, 1], sample.dtype), 1 - top, top)
    quarters = jnp.arange(1, 4, dtype=jnp.int32)

    def unfinished(state: tuple) -> Array:
        _, low, high, first, last = state
        return (high > low + 1) & (last - first > NEAR)

    def cut(state: tuple) -> tuple:
        step, low, high, first, last = state
        start, stop = (sample < low).sum(dtype=jnp.int32), (sample < high).sum(dtype=jnp.int32)
        half = middle(low, high)
        equal = jnp.stack([middle(low, half), half, middle(half, high)])
        sampled = jnp.maximum(sample[start + (stop - start) * quarters // 4], low + 1)
        ends = jnp.where(step == 0, guesses, jnp.where(start < stop, sampled, equal))
        ends = jnp.concatenate([low[None], ends, high[None]])
        below = jnp.concatenate([first[None], counts_below(lines, threshold(ends[1:4], dtype)), last[None]])
        part = (below[1:4] <= rank).sum(dtype=jnp.int32)
        return step + 1, ends[part], ends[part + 1], below[part], below[part + 1]

    def passed(_: int, state: tuple) -> tuple:
        more = unfinished(state)
        return jax.tree.map(lambda new, old: jnp.where(more, new, old), cut(state), state)

    zero = jnp.zeros_like(rank)
    start = (zero, -top, top + 1, zero, n)
    most = 4 * sample.dtype.itemsize + 8  # each takes two bits of a number; the sample may need a few before
    # A GPU waits for the host to see whether a loop goes on, longer than the few passes take that are in vain.
    return jax.lax.platform_dependent(
        start,
        cpu=lambda start: jax.lax.while_loop(unfinished, cut, start),
        default=lambda start: jax.lax.fori_loop(0, most, passed, start),
    )[1:]


def middle(low: Int[Array, ""], high: Int[Array, ""]) -> Int[Array, ""]:
    """The whole number halfway between two, however large."""
    return (low >> 1) + (high >> 1) + (low & high & 1)


def counts_below(lines: Float[Array, "N L"], ends: Float[Array, "3"]) -> Int[Array, "3"]:
    """How many voxels lie below each of three ends, in order, counted at once: a byte of each line's sum for each."""
    a, b, c = ((lines < end).astype(jnp.int32) for end in ends)
    sums = (0xFF00 * a + 0xFF * b + c).astype(jnp.bfloat16).sum(1, dtype=jnp.float32).astype(jnp.int32)
    parts = jnp.stack([sums >> 16, sums >> 8 & 0xFF, sums & 0xFF])
    return parts.sum(1, dtype=jnp.int32).cumsum()


def ordinal(x: Float[Array, "..."]) -> Int[Array, "..."]:
    """Number the floats in order: 0 for zero and the subnormal numbers, which some devices take for zero; NaN last."""
    limits = jnp.finfo(x.dtype)
    bits = jax.lax.bitcast_convert_type(jnp.abs(x), f"int{limits.bits}")
    size = jnp.maximum(bits - (2**limits.nmant - 1), 0)
    return jnp.where(x < 0, -size, size)


def threshold(end: Int[Array, ""], dtype: jnp.dtype) -> Scalar:
    """The t for which x < t is ordinal(x) < end, at half the time; for 0 the negative subnormal furthest from zero."""
    size = jax.lax.bitcast_convert_type(jnp.abs(end) + (2 ** jnp.finfo(dtype).nmant - 1), dtype)
    return jnp.where(end > 0, size, -size)


def faces(x: Volume, extent: ArrayLike | Shape3) -> tuple[Float[Array, "C F"], Bool[Array, "1 F"]]:
    """The six faces of the real part of the grid, flat, and which of their voxels are real."""
    end = jnp.asarray(extent, jnp.int32)
    mask = extent_mask(x.shape[1:], end)
    values, real = [], []
    for axis in range(3):
        for index in (0, end[axis] - 1):
            face = jax.lax.dynamic_index_in_dim(x, index, axis + 1, keepdims=False)
            values.append(face.reshape(len(x), -1))
            real.append(jax.lax.index_in_dim(mask, 0, axis, keepdims=False).ravel())
    return jnp.concatenate(values, 1), jnp.concatenate(real)[None]


def otsu_threshold(
    x: Float[Array, "C N"], mask: Bool[Array, "1 N"], low: Float[Array, "C 1"], high: Float[Array, "C 1"]
) -> Float[Array, "C 1"]:
    """ITK's Otsu threshold of each row: the upper edge of the bin that best parts the histogram in two.

    The histogram runs from the minimum to 1/100 of a bin beyond the maximum. Source: Otsu, IEEE SMC 9, 1979.
    """
    width = (high - low) * (1 + 0.01 / BINS) / BINS
    bins = jnp.clip(((x - low) / jnp.where(width > 0, width, 1)).astype(jnp.int32), 0, BINS - 1)
    histogram = jax.vmap(lambda b: jnp.zeros(BINS, jnp.int32).at[b].add(mask[0].astype(jnp.int32)))(bins)
    below = jnp.cumsum(histogram, 1)
    moment = jnp.cumsum(histogram * jnp.arange(BINS, dtype=jnp.int32)[None], 1)
    n, m, total, sum_ = (v.astype(x.dtype) for v in (below, moment, below[:, -1:], moment[:, -1:]))
    gap = m / jnp.maximum(n, 1) - (sum_ - m) / jnp.maximum(total - n, 1)
    best = jnp.argmax(n * (total - n) * gap**2, 1, keepdims=True)  # between-class variance, but for a factor
    return low + (best.astype(x.dtype) + 1) * width
