"""Affines, orientations and boxes, against NumPy and nibabel, on the host and traced."""

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE
from scipy.spatial.transform import Rotation

from medjax import geometry
from medjax.geometry import Grid


def affines(count=40):
    """Random rotations with anisotropic spacings, mirrors among them, and origins hundreds of mm away."""
    rng = np.random.default_rng(0)
    for rotation in Rotation.random(count, rng=rng):
        affine = np.eye(4)
        affine[:3, :3] = rotation.as_matrix() * rng.uniform(0.3, 4, 3) * rng.choice([-1, 1], 3)
        affine[:3, 3] = rng.uniform(-600, 600, 3)
        yield affine


def both(function, *arrays):
    """A function of arrays on the host in float64, and compiled in float32."""
    traced = jax.jit(function)(*(jnp.asarray(a, jnp.float32) for a in arrays))
    return function(*arrays), np.asarray(traced)


def test_inverses_are_numpys():
    for affine in affines():
        host, traced = both(geometry.inverse, affine)
        want = np.linalg.inv(affine)
        np.testing.assert_allclose(host, want, atol=1e-9)
        np.testing.assert_allclose(traced, want, atol=2e-3)
        np.testing.assert_allclose(traced[:3, :3], want[:3, :3], atol=1e-5)


def test_the_inverse_of_a_scaled_permutation_is_exact():
    matrix = np.array([[0, -2.0, 0, 30], [0, 0, 4, -8], [0.5, 0, 0, 6], [0, 0, 0, 1]])
    for inverse in both(geometry.inverse, matrix):
        np.testing.assert_array_equal(inverse @ matrix, np.eye(4))


def test_products_and_spacings_are_numpys():
    first, second, third = list(affines(3))
    for product in both(geometry.matmul, first, second, third):
        np.testing.assert_allclose(product, first @ second @ third, rtol=1e-4, atol=1e-2)
    for affine in affines(5):
        for spacing in both(geometry.spacing, affine):
            np.testing.assert_allclose(spacing, nibabel.affines.voxel_sizes(affine), rtol=1e-6)


def test_orientations_are_nibabels():
    for affine in affines():
        assert geometry.orientation(affine) == nibabel.aff2axcodes(affine)


def test_the_axes_of_the_world_are_a_permutation_traced_as_on_the_host():
    for affine in affines():
        axes, signs = geometry.world_axes(affine)
        traced = jax.jit(geometry.world_axes)(jnp.asarray(affine, jnp.float32))
        assert sorted(axes) == [0, 1, 2]
        np.testing.assert_array_equal(traced[0], axes)
        np.testing.assert_array_equal(traced[1], signs)


def test_points_and_centres():
    for affine in affines(5):
        grid = Grid(affine, np.array([5, 9, 4]))
        np.testing.assert_allclose(geometry.center(grid), (affine @ [2, 4, 1.5, 1])[:3], atol=1e-9)
        np.testing.assert_allclose(geometry.transform_point(affine, np.array([1.0, 2, 3])), (affine @ [1, 2, 3, 1])[:3])


def test_flipping_twice_is_the_identity_and_reverses_indices():
    flip = geometry.flip_matrix(np.array([5, 6, 7]), np.array([True, False, True]), np.float64)
    np.testing.assert_array_equal(flip @ [0, 1, 2, 1], [4, 1, 4, 1])
    np.testing.assert_array_equal(flip @ flip, np.eye(4))


def test_boxes_are_those_of_the_corners():
    for affine in affines(10):
        shape = np.array([5, 9, 4])
        corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1)
        world = affine[:3, :3] @ corners + affine[:3, 3:]
        low, high = geometry.bounding_box(Grid(affine, shape))
        np.testing.assert_allclose(low, world.min(1), atol=1e-9)
        np.testing.assert_allclose(high, world.max(1), atol=1e-9)


def test_boxes_of_a_batch_are_those_of_its_elements():
    stack = np.stack(list(affines(4)))
    shapes = np.array([[5, 9, 4], [3, 3, 3], [8, 1, 2], [5, 5, 5]])
    for got, want in zip(
        geometry.bounding_box(Grid(stack, shapes)), zip(*map(geometry.bounding_box, map(Grid, stack, shapes)))
    ):
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_unsound_affines_are_named():
    np.testing.assert_array_equal(geometry.check_affine(OBLIQUE.tolist()), OBLIQUE)
    assert geometry.check_affine(np.diag([1e-4, 1e-4, 1e-4, 1])).dtype == np.float64
    with pytest.raises(ValueError, match="the affine of target is singular"):
        geometry.check_affine(np.zeros((4, 4)), "the affine of target")


def test_how_far_two_grids_are_apart_at_a_corner():
    """Against every voxel of both, in float64; a batch at once; whatever the unit."""
    rng = np.random.default_rng(2)
    shapes = rng.integers(1, 6, (5, 3))
    affines = rng.normal(size=(5, 4, 4)) * (3, 2, 1, 100)
    affines[:, 3] = 0, 0, 0, 1
    others = affines + 0.1 * rng.normal(size=(5, 4, 4))
    others[:, 3] = 0, 0, 0, 1
    for scale in (1, 1e-4):
        unit = np.diag([scale] * 3 + [1])
        first, second = geometry.Grid(unit @ affines, shapes), geometry.Grid(unit @ others, shapes)
        got = geometry.corners_apart(first, second)
        for i, shape in enumerate(shapes):
            index = np.indices(shape).reshape(3, -1)
            moved = np.linalg.solve(affines[i], others[i] @ np.concatenate([index, np.ones((1, index.shape[1]))]))
            np.testing.assert_allclose(got[i], np.abs(moved[:3] - index).max(), rtol=1e-6)
        with pytest.raises(ValueError, match="all needs images on one grid, but 'a' .*'b'"):
            geometry.check_same_grid({"a": first, "b": second}, "all", got.max() * 0.99)
        geometry.check_same_grid({"a": first, "b": second}, "all", got.max() * 1.01)
