"""The flow of a velocity field against SciPy in float64, and what makes it a flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.ndimage import map_coordinates

from medjax.ops import velocity

LATTICE = (30, 36, 24)
NODES = np.random.default_rng(0).normal(size=(3, 3, 4, 2)) * 2


def read(field, points):
    """A field (3, ...) at points (3, ...), linearly, its edge repeated."""
    return np.stack([map_coordinates(component, points, order=1, mode="nearest") for component in field])


def nodes_at(nodes, points):
    scale = np.array(nodes.shape[1:]) / LATTICE
    return read(nodes, points * scale.reshape(3, *[1] * (points.ndim - 1)))


def textbook(nodes):
    index = np.stack(np.indices(LATTICE)).astype(float)
    u = nodes_at(nodes, index) / 128
    for _ in range(7):
        u = u + read(u, index + u)
    return u


def flow(nodes):
    return np.asarray(velocity.flow(jnp.asarray(nodes, jnp.float32), LATTICE))


def test_it_is_scaling_and_squaring():
    np.testing.assert_allclose(flow(NODES), textbook(NODES), atol=1e-4)


def test_it_solves_the_differential_equation():
    points = np.random.default_rng(1).integers(6, [[24], [30], [18]], (3, 20)).astype(float)
    solved = solve_ivp(
        lambda _, y: nodes_at(NODES, y.reshape(3, -1)).ravel(), (0, 1), points.ravel(), rtol=1e-6, atol=1e-6
    )
    got = flow(NODES)[(slice(None), *points.astype(int))]
    assert np.abs(got).max() > 1
    np.testing.assert_allclose(got, solved.y[:, -1].reshape(3, -1) - points, atol=0.06)


def test_a_constant_velocity_moves_by_itself():
    constant = np.broadcast_to(np.array([1.5, -2, 0.25])[:, None, None, None], (3, 2, 3, 1))
    np.testing.assert_allclose(flow(constant), np.broadcast_to(constant[:, :1, :1, :1], (3, *LATTICE)), atol=1e-5)


def test_the_negated_velocity_is_the_way_back_and_nothing_folds():
    there, back = flow(NODES / 2), flow(-NODES / 2)
    index = np.stack(np.indices(LATTICE)).astype(float)
    error = np.abs(there + read(back, index + there)).max(0)[5:-5, 5:-5, 5:-5]
    assert error.mean() < 0.01 and error.max() < 0.1 and np.abs(there).max() > 1.5
    jacobian = np.stack([np.stack(np.gradient(index[a] + there[a])) for a in range(3)]).transpose(2, 3, 4, 0, 1)
    assert np.linalg.det(jacobian).min() > 0


@pytest.mark.parametrize("kind", ["aligned", "flipped", "oblique"])
def test_a_field_on_a_grid_is_the_field_at_its_points(kind):
    matrix = np.diag([0.6, 1.3, 0.4, 1.0])
    matrix[:3, 3] = (-2, 3.3, 1)
    if kind == "flipped":
        matrix[0, 0], matrix[0, 3] = -0.6, 25
    if kind == "oblique":
        matrix[0, 1], matrix[2, 0] = 0.2, -0.3
    field, shape = textbook(NODES), (40, 20, 33)
    points = np.einsum("ab,bijk->aijk", matrix[:3, :3], np.indices(shape)) + matrix[:3, 3][:, None, None, None]
    got = velocity.field_on(jnp.asarray(field, jnp.float32), jnp.asarray(matrix, jnp.float32), shape)
    np.testing.assert_allclose(got, read(field, points), atol=1e-4)
    x, y, z = jnp.asarray(points[:, ::7, ::7, ::7], jnp.float32)
    got = velocity.field_at(jnp.asarray(field, jnp.float32), (x, y, z))
    np.testing.assert_allclose(got, read(field, points[:, ::7, ::7, ::7]), atol=1e-4)


def test_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        nodes, direction = jnp.asarray(NODES), jnp.asarray(rng.normal(size=NODES.shape))
        weights = jnp.asarray(rng.normal(size=(3, 9, 10, 8)))
        loss = jax.jit(lambda v: (velocity.flow(v, (9, 10, 8)) * weights).sum())
        numeric = (loss(nodes + 1e-6 * direction) - loss(nodes - 1e-6 * direction)) / 2e-6
        analytic = (jax.jit(jax.grad(loss))(nodes) * direction).sum()
        assert abs(numeric - analytic) < 1e-5 * abs(analytic)


def test_coordinates_of_one_list_of_points():
    field = jnp.asarray(textbook(NODES), jnp.float32)
    points = np.random.default_rng(3).uniform(-3, 40, (3, 15))
    got = velocity.field_at(field, tuple(jnp.asarray(points, jnp.float32)))
    np.testing.assert_allclose(got, read(np.asarray(field, float), points), atol=1e-4)
