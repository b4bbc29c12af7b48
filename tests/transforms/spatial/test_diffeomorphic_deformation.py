"""The flow of a velocity field as a transform: its geometry against SciPy in float64, its inverse, and what is drawn."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject
from scipy import stats
from scipy.ndimage import gaussian_filter, map_coordinates

import medjax as mj

SHAPE = (23, 31, 18)
NODES = np.random.default_rng(0).normal(size=(3, 2, 2, 3)).astype(np.float32)
COUNT = 400


def displacement(nodes, shape, points_per_node):
    """Voxels by which every voxel's place moves, (3, I, J, K): scaling and squaring in lattice steps, in float64."""
    lattice = [n * points_per_node for n in nodes.shape[:3]]

    def read(field, points, scale):
        at = points * np.asarray(scale).reshape(3, 1, 1, 1)
        return np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in field])

    ratio = np.array(lattice) / shape
    index = np.stack(np.indices(lattice)).astype(float)
    velocity = np.moveaxis(nodes.astype(float) * ratio, 3, 0)
    u = read(velocity, index, np.array(nodes.shape[:3]) / lattice) / 128
    for _ in range(7):
        u = u + read(u, index + u, (1, 1, 1))
    return read(u, np.stack(np.indices(shape)).astype(float), ratio) / ratio.reshape(3, 1, 1, 1)


def test_it_reads_where_the_flow_leads_in_voxels_of_an_oblique_image():
    subject = small_subject()
    got = mj.DiffeomorphicDeformation(2 * NODES, 6, default_pad_value="edge")(subject)
    at = np.indices(SHAPE) + displacement(2 * NODES, SHAPE, 6)
    at = np.clip(at, 0, np.array(SHAPE).reshape(3, 1, 1, 1) - 1)
    want = map_coordinates(subject.t1.numpy()[0].astype(float), at, order=1)
    np.testing.assert_allclose(got.t1.numpy()[0], want, atol=1e-3)
    assert np.abs(want - subject.t1.numpy()[0]).max() > 0.3
    assert got.label.dtype == np.uint8 and set(np.unique(got.label.numpy())) == {0, 1, 3}
    np.testing.assert_array_equal(got.t1.affine, subject.t1.affine)


def test_an_equal_velocity_moves_by_itself():
    image = mj.ScalarImage(blobs()[None], OBLIQUE)
    velocity = np.broadcast_to(np.float32([2, -1, 3]), (2, 3, 1, 3))
    got = mj.DiffeomorphicDeformation(velocity, 5, default_pad_value="edge")(image).numpy()
    np.testing.assert_allclose(got[:, :-2, 1:, :-3], image.numpy()[:, 2:, :-1, 3:], atol=2e-4)


def test_it_is_read_once_with_an_affine_and_a_flip():
    subject = small_subject()
    t = mj.Compose(
        [
            mj.Affine(degrees=(10, -5, 20), default_pad_value="edge"),
            mj.DiffeomorphicDeformation(NODES, 6, default_pad_value="edge"),
            mj.Flip(1),
        ]
    )
    assert repr(t).count("one gather") == 1
    matrix = np.linalg.inv(OBLIQUE) @ np.asarray(t[0].move(t[0].draw(None, None), grid_of(subject.t1)).matrix, float)
    at = (np.indices(SHAPE) + displacement(NODES, SHAPE, 6)).reshape(3, -1)
    at = (matrix @ OBLIQUE @ np.concatenate([at, np.ones((1, at.shape[1]))]))[:3].reshape(3, *SHAPE)
    at = np.clip(at, 0, np.array(SHAPE).reshape(3, 1, 1, 1) - 1)
    want = map_coordinates(subject.t1.numpy()[0].astype(float), at, order=1)[:, ::-1]
    np.testing.assert_allclose(t(subject).t1.numpy()[0], want, atol=2e-3)


def grid_of(image):
    from medjax.geometry import Grid

    return Grid(np.asarray(image.affine), np.array(image.spatial_shape))


def test_the_inverse_is_the_flow_of_the_negated_velocity():
    data = gaussian_filter(np.random.default_rng(1).normal(size=(28, 30, 26)), 2).astype(np.float32)
    image = mj.ScalarImage(data[None] / np.ptp(data), OBLIQUE)
    t = mj.DiffeomorphicDeformation(1.5 * NODES, 8, "cubic", default_pad_value="edge")
    params = t.sample(None, mj.Subject(image=image))
    moved = t(image)
    back = t.invert(moved, params, like=image).numpy()
    inner = (0, *(slice(6, -6),) * 3)
    assert np.abs(back - image.numpy())[inner].max() < 0.01 < np.abs(moved.numpy() - image.numpy())[inner].max() / 10
    other = mj.DiffeomorphicDeformation(-1.5 * NODES, 8, "cubic", default_pad_value="edge")(moved).numpy()
    np.testing.assert_allclose(back[inner], other[inner], atol=1e-5)


def test_points_go_where_the_content_goes():
    shape = (24, 26, 22)
    index = np.array([(8, 10, 9), (14, 15, 12), (11, 9, 13)], float)
    xyz = index @ OBLIQUE[:3, :3].T + OBLIQUE[:3, 3]
    subject = mj.Subject(t1=mj.ScalarImage(blobs(shape)[None], OBLIQUE), points=mj.Points(xyz.astype(np.float32)))
    moved = np.asarray(mj.DiffeomorphicDeformation(NODES, 8)(subject).points.xyz, float)
    out = (moved - OBLIQUE[:3, 3]) @ np.linalg.inv(OBLIQUE[:3, :3]).T
    u = displacement(NODES, shape, 8)
    read = np.stack([map_coordinates(c, out.T, order=1) for c in u], 1)
    assert np.abs(read).max() > 0.5
    np.testing.assert_allclose(out + read, index, atol=0.05)


def test_a_slice_is_not_moved_out_of_itself():
    image = mj.ScalarImage(blobs((23, 31, 1))[None], OBLIQUE)
    flat = 2 * NODES
    flat[..., 2] = 0
    one, other = (mj.DiffeomorphicDeformation(n, 6)(image).numpy() for n in (2 * NODES, flat))
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.ptp(one) > 0.5


def test_what_is_drawn():
    t, keys = mj.RandomDiffeomorphicDeformation((9, 8, 7), (1, 3)), jax.random.split(jax.random.key(0), COUNT)
    drawn = jax.jit(jax.vmap(lambda key: t.sample(key, small_subject())["draw"]["velocity"]))(keys)
    velocity = np.asarray(drawn, float).reshape(COUNT, -1)
    std = velocity.std(1)
    # The deviation of 1512 numbers is known to 2 %: ends of the range are left out.
    assert stats.kstest(std, stats.uniform(1, 2).cdf).pvalue > 1e-3
    assert stats.kstest((velocity / std[:, None])[:, ::37].ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(velocity[:, :6].T) - np.eye(6)).max() < 0.25


def test_synthsegs_deformation_never_folds():
    t = mj.RandomDiffeomorphicDeformation(2, (4, 4), default_pad_value="edge")
    ramp = mj.ScalarImage(np.stack(np.indices((50, 50, 50))).astype(np.float32))
    for seed in range(3):
        at = t(ramp, jax.random.key(seed)).numpy()
        jacobian = np.stack([np.stack(np.gradient(a)) for a in at])[:, :, 10:-10, 10:-10, 10:-10]
        assert np.linalg.det(jacobian.transpose(2, 3, 4, 0, 1)).min() > 0


@pytest.mark.parametrize(
    "arguments", [dict(num_nodes=0), dict(num_nodes=(1, 2)), dict(std=-1), dict(std=(3, 2)), dict(points_per_node=0)]
)
def test_ranges_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomDiffeomorphicDeformation(**arguments)


@pytest.mark.parametrize("velocity", [np.zeros((2, 2, 2)), np.zeros((2, 2, 2, 2)), np.full((1, 1, 1, 3), np.nan)])
def test_velocities_that_make_no_sense_are_refused(velocity):
    with pytest.raises(ValueError, match="velocity"):
        mj.DiffeomorphicDeformation(velocity)
