"""Labels of interpolated scores against float64 interpolation by SciPy of every class, and argmax."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medjax.ops.election import Decision, at_points, in_tiles, on_lines, span

SIZE = (4, 8, 8)
COUNTS = (13, 21, 19)
SHAPE = (9, 12, 7)
LABELS = np.array([0, 3, 9, 200, 41], np.uint8)


def scores(kind="noise", seed=0):
    """Scores (5, *SHAPE) in which all classes contend, or few in most tiles."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(5, *SHAPE)).astype(np.float32)
    if kind == "calm":
        found *= 0.2
        for c in range(5):
            found[c, :, 2 * c : 2 * c + 3] += 3
    return found


def lines(shift=0.3):
    """Voxels closer than scores, the first and the last half a score from the edge, and their tiles."""
    at = [np.clip(np.linspace(-shift, n - 1 + shift, m), 0, n - 1) for n, m in zip(SHAPE, COUNTS)]
    cells = [np.minimum(np.floor(x), n - 2).astype(int) for x, n in zip(at, SHAPE)]
    return at, [in_tiles(c, x - c, t) for x, c, t in zip(at, cells, SIZE)]


def window():
    return tuple(min(n, span(n / m + 0.1, t, True)) for n, m, t in zip(SHAPE, COUNTS, SIZE))


def whole(values, at):
    """All classes at the points of a grid, or at points (3, ...), in float64."""
    points = np.stack(np.meshgrid(*at, indexing="ij")) if isinstance(at, list) else at
    return np.stack([map_coordinates(v.astype(np.float64), points, order=1, mode="nearest") for v in values])


def check(got, values, at, labels=LABELS):
    truth = whole(values, at)
    two = np.sort(truth, 0)[-2:]
    clear = two[1] - two[0] > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(got)[clear], labels[truth.argmax(0)][clear])


@pytest.mark.parametrize("kind", ["noise", "calm"])
def test_the_winner_is_that_of_float64_interpolation_of_every_class(kind):
    at, tiles = lines()
    got, bad = on_lines(jnp.asarray(scores(kind)), Decision(LABELS), tiles, window=window())
    assert got.dtype == np.uint8 and not bad
    check(got[tuple(map(slice, COUNTS))], scores(kind), at)


def test_points_on_no_lines():
    rng = np.random.default_rng(1)
    points = np.stack([rng.uniform(-2, n + 1, (8, 8, 8)) for n in SHAPE]).astype(np.float32)
    padded = np.pad(scores(), [(0, 0), (1, 0), (0, 0), (0, 2)], constant_values=99)
    got, bad = at_points(
        jnp.asarray(padded), Decision(LABELS), points, np.array([1, 0, 0], np.int32), np.array(SHAPE, np.int32),
        window=(10, 12, 8), size=(8, 8, 8),
    )  # fmt: skip
    size = np.array(SHAPE)[:, None, None, None]
    inside = ((points >= -0.5) & (points < size - 0.5)).all(0)
    assert 0.1 < inside.mean() < 0.9 and not bad and not np.asarray(got)[~inside].any()
    check(np.asarray(got)[inside], scores(), np.clip(points, 0, size - 1)[:, inside].astype(np.float64))


def test_regions_are_written_in_order_over_each_other():
    at, tiles = lines()
    thresholds = np.array([-0.5, 0.2, 0.0, 0.7, 2.5], np.float32)
    got, _ = on_lines(jnp.asarray(scores()), Decision(LABELS, thresholds), tiles, window=window())
    truth = whole(scores(), at)
    want = np.zeros(COUNTS, np.uint8)
    for value, threshold, label in zip(truth, thresholds, LABELS):
        want[value > threshold] = label
    clear = (np.abs(truth - thresholds[:, None, None, None]) > 1e-5).all(0)
    assert clear.mean() > 0.9 and len(np.unique(want)) >= 5
    np.testing.assert_array_equal(np.asarray(got)[tuple(map(slice, COUNTS))][clear], want[clear])


def test_the_first_of_equal_scores_wins_and_infinite_ones_count():
    _, tiles = lines()
    values = np.zeros((5, *SHAPE), np.float32)
    values[2:4] = 1
    got, bad = on_lines(jnp.asarray(values), Decision(LABELS), tiles, window=window())
    assert not bad and (np.asarray(got) == 9).all()
    values[2], values[0] = -np.inf, np.inf
    got, bad = on_lines(jnp.asarray(values), Decision(LABELS), tiles, window=window())
    assert not bad and (np.asarray(got) == 0).all()
    values[4, 3, 3, 3] = np.nan
    assert on_lines(jnp.asarray(values), Decision(LABELS), tiles, window=window())[1]
