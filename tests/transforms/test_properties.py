"""Properties of any chain of spatial transforms, by Hypothesis, against `chain.py`, which composes it in float64."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, forget_programs, oriented
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion, map_coordinates
from scipy.spatial.transform import Rotation

import medjax as mj
from medjax.transforms.program import flatten, runs_of
from transforms import chain as reference

TURNED = np.eye(4)
TURNED[:3, :3] = Rotation.from_euler("xyz", (100, 35, -60), degrees=True).as_matrix() * (-0.8, 1.3, 1)
TURNED[:3, 3] = (-310, 150, 420)
AFFINES = [
    OBLIQUE, TURNED, np.eye(4), oriented("LPS", (1, 1.2, 2), (90, 120, -70)), oriented("PIR", (1.5, 1, 1), (5, -300, 4)),
]  # fmt: skip
SHAPES = [(14, 13, 11), (12, 10, 14), (15, 12, 1)]  # odd, even, and one slice
MODES = ("edge", "reflect", "symmetric", "wrap", 0, 3)


def few(examples):
    """Each example is a program to compile: the same few every time, and the first that fails is shown as it is."""
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def drawn(t, subject, seed=0):
    """What a pipeline draws, and what each of its members does."""
    params = t.sample(jax.random.key(seed), subject)
    return params, [entry["draw"] for entry in params["members"]]


# -- what a chain can be made of, for images of a shape; one voxel and more must be left


def some_off(shape):
    return mj.Crop(tuple(n for size in shape for n in ((1, 0) if size > 8 else (0, 0))))


def most_off(shape):
    """A crop deeper than a padding before it, so that less is left of the image than is mirrored."""
    return mj.Crop(tuple(n for size in shape for n in ((0, max(size - 5, 0)) if size > 1 else (0, 0))))


INDEXING = {
    "crop": some_off,
    "pad": lambda shape: mj.Pad((2, 1, 0, 1, 1, 0)),
    "crop or pad": lambda shape: mj.CropOrPad((11, shape[1] + 1, max(shape[2] - 1, 1))),
    "multiple": lambda shape: mj.EnsureShapeMultiple((4, 3, 1)),
    "transpose": lambda shape: mj.Transpose(),
    "orientation": lambda shape: mj.ToOrientation("SRP"),
    "flip": lambda shape: mj.Flip((0, 2)),
}
DEEP = {"deep crop": most_off, "wide pad": lambda shape: mj.Pad((9, 0, 0, 7, 3, 0))}
RESCALING = {
    "resize": lambda shape: mj.Resize([n + 1 if n > 1 else -1 for n in shape]),
    "resample": lambda shape: mj.Resample((0.9, 1.1, 1.3)),
}
MOVING = {
    "affine": lambda shape: mj.Affine((1.1, 0.95, 1.05), (8, -5, 12), (1, 0.5, -1), default_pad_value=0),
    "sheared": lambda shape: mj.Affine(
        (0.9, 1.1, 1.05), (3, 6, -4), shears=(0.05, 0, 0.04, 0, 0, -0.06), order="object", default_pad_value=0
    ),
    "elastic": lambda shape: mj.ElasticDeformation(
        np.random.default_rng(3).uniform(-1.2, 1.2, (5, 6, 5, 3)), default_pad_value=0
    ),
}


@st.composite
def chains(draw, kinds, most, rescalings=1):
    """Names of members, so many at most, with so many changes of spacing."""
    names = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=2, max_size=most, unique_by=None))
    kept, left = [], rescalings
    for name in names:
        if name in SHRINKING:
            left -= 1
        if name not in SHRINKING or left >= 0:
            kept.append(name)
    return tuple(kept)


def made(names, affine, shape, **sampling):
    """The members, each made for the shape that there is when its turn comes."""
    members = []
    for name in names:
        if name == "elastic" and 1 in shape:  # which of its axes stays still is a rule of its own (test_elastic_...)
            name = "affine"
        t = {**INDEXING, **DEEP, **SHRINKING, **MOVING}[name](shape)
        if name in SHRINKING or name in MOVING:
            t = t.replace(**sampling)
        members.append(t)
        grid = mj.ScalarImage(np.zeros((1, *shape), np.float32), affine)
        draws = [drawn(mj.Compose([t]), grid)[1][0] if t.spatial else {}]
        affine, shape = reference.stages([t], draws, affine, shape)[-1][:2]
    return members


@few(12)
@given(
    chains({**INDEXING, **RESCALING, **MOVING}, 4),
    st.sampled_from(AFFINES),
    st.sampled_from(SHAPES),
    st.sampled_from([("nearest", 0), ("linear", 1), ("cubic", 3)]),
    st.sampled_from([np.uint8, np.int16, np.float32]),
)
def test_a_fused_run_is_the_chain_composed_in_float64(names, affine, shape, interpolation, dtype):
    data = (100 * np.stack([blobs(shape, seed) for seed in range(2)])).astype(dtype)
    labels = (data[:1] > 50).astype(np.int16) * 3
    subject = mj.Subject(t1=mj.ScalarImage(data, affine), label=mj.LabelMap(labels, affine))
    t = mj.Compose(made(names, affine, shape, image_interpolation=interpolation[0]))
    assert len(runs_of(flatten(t))) == 1
    params, draws = drawn(t, subject)
    got = t.apply(subject, params)
    found = reference.stages(t.members, draws, affine, shape)
    end = found[-1]
    assert got.t1.spatial_shape == end.shape and got.label.dtype == np.int16
    np.testing.assert_allclose(got.t1.affine, end.affine, atol=1e-6)
    points, clear = reference.origin_of(found, reference.world(end.affine, end.shape), margin=-0.01)
    index = reference.apply(np.linalg.inv(affine), points)
    tied = (np.abs(index - np.floor(index) - 0.5) < 3e-3).any(0)
    assert clear.sum() > 40
    near = clear & ~tied
    order = interpolation[1]
    for channel, values in zip(data, got.t1.numpy()):
        want = map_coordinates(channel.astype(float), index, order=order, mode="mirror" if order == 3 else "nearest")
        where = near if order == 0 else clear
        np.testing.assert_allclose(values.ravel()[where], want[where], atol=0.2)  # of 100
    want = map_coordinates(labels[0], index, order=0, mode="nearest")
    np.testing.assert_array_equal(got.label.numpy().ravel()[near], want[near])


OF_INDEXING = (
    chains({**INDEXING, **DEEP}, 6),
    st.sampled_from(AFFINES),
    st.sampled_from(SHAPES),
    st.sampled_from(MODES),
    st.sampled_from([np.uint8, np.int16, np.float32, np.bool_]),
)


@few(24)
@given(*OF_INDEXING)
def test_a_run_of_indexing_is_numpy_bit_for_bit(names, affine, shape, mode, dtype):
    """Every padding mode, whatever was cut, turned or added before and after; two that continue the image are two runs."""
    check_indexing(names, affine, shape, mode, dtype)


@pytest.mark.long
@few(1000)
@given(*OF_INDEXING)
def test_a_thousand_runs_of_indexing_are_numpy_bit_for_bit(names, affine, shape, mode, dtype):
    forget_programs()
    check_indexing(names, affine, shape, mode, dtype)


def check_indexing(names, affine, shape, mode, dtype):
    """One run of indexing against NumPy."""
    mode = mode if dtype != np.bool_ or isinstance(mode, str) else int(bool(mode))
    data = (2.6 * blobs(shape)[None]).astype(dtype)
    members = [
        t.replace(padding_mode=mode) if hasattr(t, "padding_mode") else t for t in made(names, affine, shape)
    ]  # fmt: skip
    got = mj.Compose(members)(mj.ScalarImage(data, affine))
    found = reference.stages(members, [{"flip": [True, True]}] * len(members), affine, shape)
    want = data
    for t, before, after in zip(members, found, found[1:]):
        want = indexed(t, want, before, after, mode)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_allclose(got.affine, found[-1].affine, atol=1e-6)


def indexed(t, data, before, after, mode):
    """What a step of indexing makes of an array: flipped, turned, then padded by NumPy and cut."""
    if isinstance(t, mj.Flip):
        return data[:, ::-1, :, ::-1]
    turn = np.linalg.inv(before.affine) @ after.affine
    axes = np.argmax(np.abs(turn[:3, :3]), 0)
    data = np.transpose(data, (0, *(axes + 1)))
    for new, old in enumerate(axes):
        if turn[old, new] < 0:
            data = np.flip(data, new + 1)
    if isinstance(t, (mj.Transpose, mj.ToOrientation)):
        return data
    first = np.round(turn[:3, 3]).astype(int)
    over = [(max(-f, 0), max(f + m - n, 0)) for f, m, n in zip(first, after.shape, before.shape)]
    options = {"mode": mode} if isinstance(mode, str) else {"constant_values": mode}
    padded = np.pad(data, [(0, 0), *over], **options)
    box = (slice(f + low, f + low + m) for f, (low, _), m in zip(first, over, after.shape))
    return padded[(slice(None), *box)]


# -- a blob and a landmark at its centre

SIGMA = 3.0  # mm


@st.composite
def eight(draw):
    """Eight of anything, random members among them, up to two changes of spacing."""
    kinds = {**INDEXING, **RESCALING, "random affine": 0, "random elastic": 0, "random flip": 0}
    must = ("random affine", "random elastic")
    names = (*draw(chains(kinds, 8, rescalings=2)), *must)
    while len(names) < 8:
        names = (*names, draw(st.sampled_from(sorted(set(kinds) - set(RESCALING)))))
    return draw(st.permutations(names[:8]))


RANDOM = {
    "random affine": lambda shape: mj.RandomAffine(0.08, 8, 1.5, shears=0.05, default_pad_value=0),
    "random elastic": lambda shape: mj.RandomElasticDeformation(6, 1.2, 0, default_pad_value=0),
    "random flip": lambda shape: mj.RandomFlip((0, 1, 2)),
}


@few(5)
@given(eight(), st.sampled_from(AFFINES), st.integers(0, 2**31 - 1))
def test_through_eight_transforms_a_blob_and_its_landmark_are_where_the_composed_map_says(names, affine, seed):
    shape = (26, 24, 28)
    centre = reference.apply(affine, (np.array(shape)[:, None] - 1) / 2 + [[1.3], [-0.8], [0.6]])

    def gaussian(points):
        return np.exp(-((points - centre) ** 2).sum(0) / (2 * SIGMA**2))

    data = gaussian(reference.world(affine, shape)).reshape(1, *shape).astype(np.float32)
    subject = mj.Subject(t1=mj.ScalarImage(data, affine), mark=mj.Points(centre.T))
    t = mj.Compose([{**INDEXING, **RESCALING, **RANDOM}[name](shape) for name in names])
    params, draws = drawn(t, subject, seed)
    got = t.apply(subject, params)
    found = reference.stages(t.members, draws, affine, shape)
    end = found[-1]
    assert got.t1.spatial_shape == end.shape
    np.testing.assert_allclose(got.t1.affine, end.affine, atol=1e-5)
    points = reference.world(end.affine, end.shape)
    want = gaussian(reference.origin_of(found, points)[0])
    assert want.max() > 0.9
    apart = middle(points, got.t1.numpy().ravel().astype(float)) - middle(points, want)
    assert np.abs(apart / got.t1.spacing).max() < 0.08
    mark = np.asarray(got.mark.xyz, float).T
    assert np.abs(reference.origin_of(found, mark)[0] - centre).max() < 0.02
    assert np.abs(mark[:, 0] - middle(points, want)).max() < 0.5


def middle(points, values):
    """Centre of mass of what lies above a third of the peak."""
    weights = np.clip(values - values.max() / 3, 0, None)
    return (points * weights).sum(1) / weights.sum()


# -- the way back

SHRINKING = {
    **RESCALING,
    "half": lambda shape: mj.Resize([max(n // 2, 1) for n in shape]),
    "third": lambda shape: mj.Resize([max(n // 3, 1) for n in shape]),
    "two": lambda shape: mj.Resample(2.0),
    "three": lambda shape: mj.Resample(3.0),
}


def undone(move, points):
    """Where in the output's world a move brings points of the input's: solved for what is linear, else by iteration."""
    some = points[:, :: len(points[0]) // 40 + 1]
    some = np.concatenate(
        [some, some + np.random.default_rng(0).normal(size=some.shape)], 1
    )  # off the plane of a slice
    centre = some.mean(1, keepdims=True)
    there = move(centre)
    linear = np.linalg.lstsq((some - centre).T, (move(some) - there).T, rcond=1e-6)[0].T
    if np.allclose(linear @ (some - centre), move(some) - there, atol=1e-6):
        return centre + np.linalg.pinv(linear, rcond=1e-6) @ (points - there)
    found = points
    for _ in range(60):
        found = found - (move(found) - points)
    return found


OF_WAYS_BACK = (
    chains({**INDEXING, **DEEP, **SHRINKING, **MOVING}, 4),
    st.sampled_from([np.eye(4), *AFFINES]),
    st.sampled_from([*SHAPES, (13, 15, 17)]),
    st.sampled_from(["nearest", "linear"]),
)


def check_way_back(names, affine, shape, method):
    """The way back of one run reads its result where the float64 map brings each voxel, by SciPy; 0 beyond it."""
    data = (100 * blobs(shape, 1)[None]).astype(np.float32) + 1
    labels = (data > 50).astype(np.int16) * 3 + 1
    subject = mj.Subject(t1=mj.ScalarImage(data, affine), label=mj.LabelMap(labels, affine))
    members = made([n for n in names if n in SHRINKING][:1] + [n for n in names if n not in SHRINKING], affine, shape)
    t = mj.Compose(members)
    if len(runs_of(flatten(t))) != 1:
        return
    params, draws = drawn(t, subject)
    gone = t.apply(subject, params)
    back = t.invert(gone, params, like=subject, interpolation=method)
    found = reference.stages(t.members, draws, affine, shape)
    points = reference.world(affine, shape)
    for stage in found[1:]:
        points = points if stage.move is None else undone(stage.move, points)
    index = reference.apply(np.linalg.inv(found[-1].affine), points)
    size = np.array(found[-1].shape)[:, None]
    clear = (np.abs(index + 0.5) > 0.02).all(0) & (np.abs(index - size + 0.5) > 0.02).all(0)
    inside = ((index >= -0.5) & (index < size - 0.5)).all(0)
    untied = clear & ~(np.abs(index - np.floor(index) - 0.5) < 0.02).any(0)
    for name, order in (("t1", int(method == "linear")), ("label", 0 if method == "nearest" else None)):
        got, source = back[name].numpy()[0].ravel(), gone[name].numpy()[0]
        if order is None:
            assert set(np.unique(got)) <= {0, *np.unique(source)}
            continue
        want = np.where(inside, map_coordinates(source.astype(float), index, order=order, mode="nearest"), 0)
        where = clear if order else untied
        np.testing.assert_allclose(got[where], want[where], atol=0.3 if order else 1e-4)  # of 100


@few(14)
@given(*OF_WAYS_BACK)
def test_the_way_back_is_the_inverse_map_read_by_scipy(names, affine, shape, method):
    check_way_back(names, affine, shape, method)


@pytest.mark.long
@few(600)
@given(*OF_WAYS_BACK)
def test_hundreds_of_ways_back_are_the_inverse_map_read_by_scipy(names, affine, shape, method):
    forget_programs()
    check_way_back(names, affine, shape, method)


@few(5)
@given(
    chains({**INDEXING, **RESCALING, **MOVING}, 4, rescalings=2),
    st.sampled_from(AFFINES),
    st.sampled_from([np.uint8, np.float32]),
)
def test_the_way_back_gives_grid_and_affine_exactly_and_the_content_to_interpolation(names, affine, dtype):
    shape = (16, 14, 15)
    index = np.indices(shape)
    data = sum(np.sin(axis * rate + start) for axis, rate, start in zip(index, (0.3, 0.25, 0.35), (0, 1, 2)))
    data = ((data + 3) * 40).astype(dtype)[None]
    labels = (index.sum(0) > 22).astype(np.uint8)[None] + 1
    images = {"t1": mj.ScalarImage(data, affine), "label": mj.LabelMap(labels, affine)}
    subject = mj.Subject(images, seen=mj.ScalarImage(np.ones((1, *shape), np.float32), affine))
    t = mj.Compose(made(names, affine, shape))
    params, _ = drawn(t, subject)
    gone = t.apply(subject, params)
    back = t.invert(gone, params, like=subject)
    for name in images:
        assert back[name].spatial_shape == shape
        np.testing.assert_array_equal(back[name].affine, affine)
    assert back.label.dtype == np.uint8
    kept = binary_erosion(back.seen.numpy()[0] > 0.999, border_value=0)
    assert kept.mean() > 0.15
    error = np.abs(back.t1.numpy()[0].astype(float) - data[0])[kept]
    assert error.max() < 12 and error.mean() < 2.5  # of 240: two linear readings of waves of 20 voxels
    assert np.mean(back.label.numpy()[0][kept] != labels[0][kept]) < 0.06
    if set(names) <= set(INDEXING):
        np.testing.assert_array_equal(back.t1.numpy()[0][kept], data[0][kept])


def test_by_default_nothing_is_sheared_and_a_number_is_a_range_about_0():
    image = mj.ScalarImage(blobs()[None], OBLIQUE)
    assert not np.any(mj.RandomAffine().sample(jax.random.key(0), image)["draw"]["shears"])
    keys = jax.random.split(jax.random.key(0), 100)
    t = mj.RandomAffine(shears=0.2)
    shears = np.asarray(jax.vmap(lambda key: t.sample(key, image)["draw"]["shears"])(keys))
    assert shears.shape == (100, 6) and np.abs(shears).max() <= 0.2
    assert shears.min() < -0.18 and shears.max() > 0.18
