"""World positions: after chains of spatial transforms a blob is where the composed map says, to 0.05 voxel.

The map is composed here in NumPy float64 from what was drawn, world to world, from the grids that the reference image
has before each member. Origins are hundreds of mm away; the images are a 1 mm T1 and a rotated 3 mm FLAIR.
"""

import jax
import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

import medjax as mj

BLOB = np.array([312.3, -418.8, 251.6])
SIGMA = 4.0  # mm


def grid(shape, spacing, degrees, codes=(1, 1, 1)):
    """An affine whose grid of `shape` lies about the blob, a little off the middle."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * spacing * codes
    affine[:3, 3] = BLOB - affine[:3, :3] @ (np.array(shape) / 2 - (1.2, 0.4, 0.7))
    return affine


def world(image):
    """World positions (3, I, J, K) of the voxels of an image."""
    affine = np.asarray(image.affine)
    return np.tensordot(affine[:3, :3], np.indices(image.spatial_shape), 1) + affine[:3, 3, None, None, None]


def gaussian(points):
    return np.exp(-((points - BLOB[:, None, None, None]) ** 2).sum(0) / (2 * SIGMA**2))


def subject(codes=(1, 1, 1)):
    """A T1 and a FLAIR of one blob."""
    images = {}
    for name, shape, affine in (
        ("t1", (44, 48, 46), grid((44, 48, 46), 1.0, (0, 0, 0), codes)),
        ("flair", (18, 20, 17), grid((18, 20, 17), 3.0, (15, -20, 35))),
    ):
        image = mj.ScalarImage(np.zeros((1, *shape), np.float32), affine)
        images[name] = image.replace(data=gaussian(world(image))[None].astype(np.float32))
    return mj.Subject(images)


def along(matrix, points):
    return np.tensordot(matrix, points, 1)


def through_affine(points, drawn, affine, shape):
    scales, degrees, shift = (np.asarray(drawn[n], float) for n in ("scales", "degrees", "translation"))
    rotation = Rotation.from_euler("yxz", degrees[[1, 0, 2]], degrees=True).as_matrix()
    centre = (affine @ [*(np.array(shape) - 1) / 2, 1])[:3]
    centre, scales, shift = (v[:, None, None, None] for v in (centre, scales, shift))
    return centre + along(rotation.T, (points - centre) / scales - shift)


def through_flip(points, drawn, affine, shape, axes):
    index = along(np.linalg.inv(affine), np.concatenate([points, np.ones_like(points[:1])]))
    for axis, flipped in zip(axes, np.asarray(drawn["flip"])):
        index[axis] = shape[axis] - 1 - index[axis] if flipped else index[axis]
    return along(affine, index)[:3]


def through_elastic(points, drawn, affine, shape):
    """x + d(x) for a RAS reference, whose axes L and P of the control grid run backwards."""
    control = np.asarray(drawn["control_points"], float)
    index = along(np.linalg.inv(affine), np.concatenate([points, np.ones_like(points[:1])]))[:3]
    element = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    weights = []
    for axis in range(3):
        place = index[axis] if axis == 2 else shape[axis] - 1 - index[axis]
        u = (place + 0.625) * (control.shape[axis] - 3) / (shape[axis] + 0.25) + 1
        weights.append(np.nan_to_num(element(u[..., None] - np.arange(control.shape[axis]))))
    lps = np.einsum("abcd,...a,...b,...c->d...", control, *weights, optimize=True)
    return points + lps * np.array([-1, -1, 1])[:, None, None, None]


def through(chain, params, before, points):
    """Where in the input world the content at `points` of the output world comes from."""
    for t, entry, scene in reversed(list(zip(chain, params["members"], before))):
        affine, shape, drawn = np.asarray(scene.t1.affine), scene.t1.spatial_shape, entry["draw"]
        if isinstance(t, mj.RandomAffine):
            points = through_affine(points, drawn, affine, shape)
        elif isinstance(t, mj.RandomElasticDeformation):
            points = through_elastic(points, drawn, affine, shape)
        elif isinstance(t, mj.RandomFlip):
            points = through_flip(points, drawn, affine, shape, t.axes)
    return points


def centre_of_mass(image, weights):
    """World position of the centre of mass, and voxel size."""
    return (world(image) * weights).reshape(3, -1).sum(1) / weights.sum()


AFFINE = mj.RandomAffine(0.1, 12, 4)
ELASTIC = mj.RandomElasticDeformation(7, 4.5)
FLIP = mj.RandomFlip((0, 1, 2), 0.7)
CHAINS = {
    "affine": [AFFINE],
    "flip": [FLIP],
    "affine, elastic, flip": [AFFINE, ELASTIC, FLIP],
    "elastic, affine": [ELASTIC, AFFINE],
    "affine, flip, affine, crop": [AFFINE, FLIP, AFFINE, mj.CropOrPad((40, 43, 50), include=["t1"])],
    "everything": [mj.Resample(1.3), AFFINE, ELASTIC, mj.Resample(1.7), FLIP, AFFINE],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_blob_is_where_the_composed_map_says(name):
    chain, start = CHAINS[name], subject()
    t = mj.Compose(chain)
    for seed in (0, 1):
        params = t.sample(jax.random.key(seed), start)
        out = t.apply(start, params)
        before = [start]
        for k in range(1, len(chain)):
            grids = {"members": params["members"][:k], "draw": {}, "on": np.asarray(True)}
            before.append(mj.Compose(chain[:k]).apply(start, grids) if moves_grids(chain[:k]) else start)
        for image in out.images.values():
            want = gaussian(through(chain, params, before, world(image)))
            assert want.max() > 0.9
            apart = centre_of_mass(image, image.numpy()[0].astype(float)) - centre_of_mass(image, want)
            assert np.abs(apart / image.spacing).max() < 0.05
            moved = np.abs(centre_of_mass(image, want) - BLOB).max()
            assert moved > 0.3


def moves_grids(chain):
    return any(isinstance(t, (mj.Resample, mj.CropOrPad)) for t in chain)


@pytest.mark.parametrize("codes", [(-1, -1, 1), (1, -1, -1)])
def test_reorienting_moves_nothing(codes):
    """LPS and other grids through ToCanonical, then an affine about the same centre."""
    start = subject(codes)
    t = mj.Compose([mj.ToCanonical(), AFFINE])
    params = t.sample(jax.random.key(3), start)
    out = t.apply(start, params)
    assert out.t1.orientation == ("R", "A", "S")
    canonical = mj.ToCanonical()(start)
    for image in out.images.values():
        want = gaussian(through(t.members, params, [start, canonical], world(image)))
        apart = centre_of_mass(image, image.numpy()[0].astype(float)) - centre_of_mass(image, want)
        assert np.abs(apart / image.spacing).max() < 0.05


def test_grids_alone_leave_the_blob_where_it_is():
    start = subject()
    t = mj.Compose([mj.ToCanonical(), mj.Resample((1.7, 1.1, 2.3)), mj.CropOrPad((23, 49, 30), exclude=["flair"])])
    for image in t(start).images.values():
        weights = image.numpy()[0].astype(float)
        assert np.abs((centre_of_mass(image, weights) - BLOB) / image.spacing).max() < 0.05


def test_the_centre_of_a_linear_chain_is_where_a_point_goes():
    """Forward, for a point: p_out = c + S (R (p_in - c) + t), with no blob in between."""
    start = subject()
    t = mj.Compose([AFFINE, AFFINE])
    params = t.sample(jax.random.key(9), start)
    point, (affine, shape) = BLOB, (start.t1.affine, start.t1.spatial_shape)
    centre = (affine @ [*(np.array(shape) - 1) / 2, 1])[:3]
    for entry in params["members"]:
        scales, degrees, shift = (np.asarray(entry["draw"][n], float) for n in ("scales", "degrees", "translation"))
        rotation = Rotation.from_euler("yxz", degrees[[1, 0, 2]], degrees=True).as_matrix()
        point = centre + scales * (rotation @ (point - centre) + shift)
    for image in t.apply(start, params).images.values():
        found = centre_of_mass(image, image.numpy()[0].astype(float))
        assert np.abs((found - point) / image.spacing).max() < 0.05
