"""Random patches: where they lie, that they are what the volume holds there, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject
from patches.shared import KEY, SIZE, N, drawn_labels, histogram, labelled, mapped, ramp, starts
from scipy.stats import chisquare

import medjax as mj

SAMPLERS = [
    mj.UniformSampler(SIZE),
    mj.WeightedSampler(SIZE, "t1"),
    mj.LabelSampler(SIZE),
    mj.LabelSampler(SIZE, "label", {0: 1, 1: 2, 3: 3}),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_a_patch_is_the_box_at_its_location(sampler, subject):
    patch = sampler(subject, KEY)
    i, j, k, a, b, c = (int(n) for n in patch[mj.LOCATION])
    assert patch[mj.LOCATION].dtype == jnp.int32 and (a - i, b - j, c - k) == SIZE
    for name, image in subject.images.items():
        assert type(patch[name]) is type(image) and patch[name].dtype == image.dtype
        np.testing.assert_array_equal(patch[name].numpy(), image.numpy()[:, i:a, j:b, k:c])
        assert patch[name].affine.dtype == np.float64
        want = np.asarray(image.affine) @ np.array([[1, 0, 0, i], [0, 1, 0, j], [0, 0, 1, k], [0, 0, 0, 1.0]])
        np.testing.assert_allclose(patch[name].affine, want, rtol=0, atol=1e-12)


def test_metadata_points_and_missing_images_come_along():
    base = small_subject(age=45, name="x")
    t1 = mj.ScalarImage(base.t1.numpy(), OBLIQUE, scanner="A")
    subject = base.replace(t1=t1, ac=mj.Points([[1.0, 2, 3]]), t2=None)
    patch = mj.UniformSampler(SIZE)(subject, KEY)
    assert (patch.age, patch.name, patch.t2, patch.t1.metadata) == (45, "x", None, {"scanner": "A"})
    np.testing.assert_array_equal(patch.ac.xyz, [[1, 2, 3]])
    batch = mj.UniformSampler(SIZE).batch(subject, KEY, 3)
    assert batch.age == (45,) * 3 and batch.t1.metadata == ({"scanner": "A"},) * 3
    assert batch.t1.shape == (3, 1, *SIZE) and batch.t1.affine.shape == (3, 4, 4)
    each = mj.unstack(batch)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(3, dtype=jnp.uint32))
    for key, one in zip(keys, each, strict=True):
        alone = mj.UniformSampler(SIZE)(subject, key)
        np.testing.assert_array_equal(one.t1.numpy(), alone.t1.numpy())
        np.testing.assert_array_equal(one.t1.affine, alone.t1.affine)


def test_uniform_reaches_every_place_alike_the_border_too():
    subject = ramp()
    room = (4, 5, 6)
    found = starts(mj.UniformSampler(SIZE), subject)
    assert chisquare(histogram(found, room)).pvalue > 1e-3
    ours = np.asarray(mj.UniformSampler(SIZE).batch(subject, KEY, 50).ramp.data)[:, :, 0, 0, 0]
    np.testing.assert_array_equal(ours, starts(mj.UniformSampler(SIZE), subject, 50))


def test_a_patch_as_large_as_the_image():
    subject = ramp()
    for sampler in (mj.UniformSampler((7, 9, 8)), mj.UniformSampler((7, 1, 8))):
        found = starts(sampler, subject, 100)
        assert not found[:, [0, 2]].any()


@pytest.mark.parametrize("size", [(4, 5, 3), (1, 2, 7)])
def test_weighted_follows_the_map(size):
    weights = np.random.default_rng(0).integers(0, 4, (7, 9, 8)).astype(np.float32) ** 3
    room = tuple(n - m + 1 for n, m in zip(weights.shape, size))
    inner = weights[tuple(slice(m // 2, m // 2 + r) for m, r in zip(size, room))].ravel().astype(float)
    found = histogram(starts(mj.WeightedSampler(size, "map"), mapped(weights)), room)
    assert not found[inner == 0].any()
    assert chisquare(found[inner > 0], N * inner[inner > 0] / inner.sum()).pvalue > 1e-3


def test_weighted_over_millions_of_voxels():
    """Many tiny and few huge weights, of a map that is 0 here and there."""
    weights = np.full((96, 128, 128), 1e-6, np.float32)
    weights[:, ::2] = 0
    weights[50, 51, 52], weights[20, 31, 100] = 0.4, 0.2
    found = starts(mj.WeightedSampler(8, "map"), mapped(weights), 2000) + 4
    assert (weights[tuple(found.T)] > 0).all()
    inner = weights[4:-3, 4:-3, 4:-3].sum(dtype=float)
    huge = [(found == at).all(1).sum() for at in ((50, 51, 52), (20, 31, 100))]
    want = 2000 * np.array([0.4, 0.2, inner - 0.6]) / inner
    assert chisquare([*huge, 2000 - sum(huge)], want).pvalue > 1e-3


def test_label_without_ratios_draws_every_labelled_voxel_alike():
    subject = mapped(labelled(), mj.LabelMap, "seg")
    values, centre = drawn_labels(mj.LabelSampler(SIZE), subject)
    assert (values > 0).all() and (values != 7).all()
    possible = np.argwhere(labelled()[2:6, 2:7, 1:7] > 0) + np.array([[2, 2, 1]])
    found = histogram(centre, (7, 9, 8))
    assert chisquare(found[np.ravel_multi_index(tuple(possible.T), (7, 9, 8))]).pvalue > 1e-3


@pytest.mark.parametrize("name", ["seg", None])
def test_label_ratios(name):
    subject = mapped(labelled(), mj.LabelMap, "seg")
    values, centre = drawn_labels(mj.LabelSampler(SIZE, name, {0: 1, 1: 2, 2: 5}), subject)
    assert chisquare(np.bincount(values, minlength=3), N * np.array([1, 2, 5]) / 8).pvalue > 1e-3
    for label in (0, 1, 2):
        inner = np.zeros((7, 9, 8), bool)
        inner[2:6, 2:7, 1:7] = labelled()[2:6, 2:7, 1:7] == label
        found = histogram(centre[values == label], (7, 9, 8))
        assert chisquare(found[inner.ravel()]).pvalue > 1e-3 and not found[~inner.ravel()].any()


def test_w50_absent_classes_leave_the_ratio_of_the_others():
    """W50: a label that is nowhere, at the border alone, or beyond the dtype changes no other's share."""
    subject = mapped(labelled(), mj.LabelMap, "seg")
    sampler = mj.LabelSampler(SIZE, "seg", {1: 1, 2: 3, 7: 5, 4: 2, 300: 1, -1: 1})
    values, _ = drawn_labels(sampler, subject)
    assert chisquare(np.bincount(values, minlength=3)[1:], N * np.array([1, 3]) / 4).pvalue > 1e-3


def test_w50_foreground_is_any_channel():
    """W50: without probabilities a one-hot map is not read at its first channel, which may be empty."""
    label = labelled()
    one_hot = np.stack([np.zeros_like(label), label == 1, label == 2]).astype(np.uint8)
    values, _ = drawn_labels(mj.LabelSampler(SIZE), mapped(one_hot, mj.LabelMap, "seg"))
    share = np.array([15, 3]) / 18
    assert chisquare(np.bincount(values, minlength=3)[1:], N * share).pvalue > 1e-3


def test_w50_border_classes_are_reached_after_padding():
    """W50: padding by half a patch makes every voxel a centre."""
    subject = mapped(labelled(), mj.LabelMap, "seg")
    padded = mj.Pad(tuple(n // 2 for n in SIZE))(subject)
    found = starts(mj.LabelSampler(SIZE, "seg", {7: 1}), padded, 20)
    np.testing.assert_array_equal(found, np.zeros((20, 3)))


def test_a_label_of_several_channels_is_a_channel():
    label = labelled()
    one_hot = np.stack([label == 0, label == 1, label == 2]).astype(np.uint8)
    values, _ = drawn_labels(mj.LabelSampler(SIZE, "seg", {1: 1, 2: 3}), mapped(one_hot, mj.LabelMap, "seg"))
    assert chisquare(np.bincount(values, minlength=3)[1:], N * np.array([1, 3]) / 4).pvalue > 1e-3


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_jit_and_vmap_give_the_same_bits(sampler, subject):
    keys = jax.random.split(KEY, 6)
    eager = [sampler(subject, key) for key in keys]
    jitted = jax.jit(sampler)
    vmapped = jax.jit(jax.vmap(sampler, (None, 0)))(subject, keys)
    batched = sampler.batch(subject, keys, 6)
    inside = jax.jit(lambda s, k: sampler.batch(s, k, 6))(subject, keys)
    several = jax.vmap(sampler)(mj.stack([subject] * 6), keys)
    for n, one in enumerate(eager):
        elements = [jax.tree.map(lambda x, n=n: x[n], b) for b in (vmapped, inside, several)]
        for other in (jitted(subject, keys[n]), *elements):
            np.testing.assert_array_equal(other[mj.LOCATION], one[mj.LOCATION])
            for name in subject.images:
                np.testing.assert_array_equal(other[name].data, one[name].data)
                np.testing.assert_allclose(other[name].affine, one[name].affine, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(batched.t1.data[n], one.t1.data)
        np.testing.assert_array_equal(batched.t1.affine[n], one.t1.affine)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_padded_images_give_only_what_is_real(sampler):
    small, large = small_subject(shape=(6, 7, 5)), small_subject(shape=(9, 8, 12), seed=1)
    batch = mj.stack([small, large], shape=(12, 14, 12))
    keys = jax.random.split(KEY, 2 * 400).reshape(2, 400)
    drawn = jax.jit(jax.vmap(jax.vmap(sampler, (None, 0))))(batch, keys)
    for row, subject in zip(np.asarray(drawn[mj.LOCATION]), (small, large), strict=True):
        assert (row[:, :3] >= 0).all() and (row[:, 3:] <= subject.t1.spatial_shape).all()
        room = tuple(n - m + 1 for n, m in zip(subject.t1.spatial_shape, SIZE))
        if isinstance(sampler, mj.UniformSampler):
            assert set(row[:, 0]) == set(range(room[0])) and set(row[:, 1]) == set(range(room[1]))
    assert drawn.t1.extent is None


def test_a_padded_image_smaller_than_the_patch_gives_its_first_voxel():
    batch = mj.stack([small_subject(shape=(3, 7, 5)), small_subject(shape=(9, 8, 12))], shape=(9, 8, 12))
    for sampler in SAMPLERS[:3]:
        drawn = jax.vmap(sampler)(batch, jax.random.split(KEY, 2))
        assert drawn[mj.LOCATION][0, 0] == 0


def test_w52_the_key_alone_decides():
    """W52: no global generator is read or moved, and what else the subject holds changes nothing."""
    subject = small_subject()
    sampler = mj.WeightedSampler(SIZE, "t1")
    np.random.seed(0)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = sampler(subject, KEY)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    again = sampler(subject.replace(other=subject.t1), KEY)
    np.testing.assert_array_equal(first[mj.LOCATION], again[mj.LOCATION])
    assert (sampler(subject, jax.random.key(12))[mj.LOCATION] != first[mj.LOCATION]).any()


def shifted(voxels):
    """The grid of `small_subject`, some voxels along each axis further."""
    moved = np.eye(4)
    moved[:3, 3] = voxels
    return OBLIQUE @ moved


FLIPPED = np.diag([-1.0, -1, 1, 1])
FLIPPED[:2, 3] = 22, 30


@pytest.mark.parametrize(
    "affine", [OBLIQUE @ FLIPPED, shifted((0, 0.6, 0)), shifted((500, 0, 0)), OBLIQUE * [1.03, 1.03, 1.03, 1]],
    ids=["flipped", "shifted", "far", "stretched"],
)  # fmt: skip
def test_one_shape_on_another_grid_is_refused(affine, subject):
    elsewhere = subject.replace(label=mj.LabelMap(subject.label.numpy(), affine))
    for sampler in SAMPLERS:
        message = f"{type(sampler).__name__} needs images on one grid.*voxels apart.*Resample"
        with pytest.raises(ValueError, match=message):
            sampler(elsewhere, KEY)
        with pytest.raises(ValueError, match=message):
            sampler.batch(elsewhere, KEY, 2)
    with pytest.raises(ValueError, match="GridSampler needs images on one grid"):
        mj.GridSampler(elsewhere, 8)
    jax.jit(SAMPLERS[0])(elsewhere, KEY)  # nothing is known of affines there


def test_canonical_images_are_on_one_grid_and_headers_may_differ_by_half_a_voxel(subject):
    stored = subject.replace(label=mj.LabelMap(subject.label.numpy()[:, ::-1, ::-1], OBLIQUE @ FLIPPED))
    sampler = mj.LabelSampler(SIZE, "label", {3: 1})
    patch, want = (sampler(mj.ToCanonical()(s), KEY) for s in (stored, subject))
    np.testing.assert_array_equal(patch.label.data, want.label.data)
    np.testing.assert_array_equal(patch.t1.data, want.t1.data)
    sampler(subject.replace(label=mj.LabelMap(subject.label.numpy(), shifted((0.4, -0.4, 0)))), KEY)


def test_an_image_or_an_array_is_a_subject_of_one(subject):
    want = mj.UniformSampler(SIZE)(mj.Subject(image=subject.t1), KEY)
    for x in (subject.t1, subject.t1.numpy(), jnp.asarray(subject.t1.data)):
        np.testing.assert_array_equal(mj.UniformSampler(SIZE)(x, KEY).image.data, want.image.data)
        assert mj.UniformSampler(SIZE).batch(x, KEY, 3).image.shape == (3, 1, *SIZE)
        assert mj.GridSampler(x, 8)[0].image.shape == (1, 8, 8, 8)
    for wrong in ("t1.nii", [subject.t1], None):
        for call in (lambda x: mj.UniformSampler(SIZE)(x, KEY), lambda x: mj.GridSampler(x, 8)):
            with pytest.raises(TypeError, match="a Subject, an Image or an array"):
                call(wrong)


def test_one_key_is_folded_where_many_are_due_and_others_are_refused_by_name(subject):
    sampler = mj.UniformSampler(SIZE)
    one, raw = jax.random.key(4), jax.random.PRNGKey(4)
    folded = jax.vmap(jax.random.fold_in, (None, 0))(one, jnp.arange(2, dtype=jnp.uint32))
    want = sampler.batch(subject, folded, 2)[mj.LOCATION]
    for key in (one, raw, np.asarray(raw)):
        np.testing.assert_array_equal(sampler.batch(subject, key, 2)[mj.LOCATION], want)
    for key in (jax.random.split(one, 1), jax.random.split(one, 3), jax.random.split(raw, 3), 3, None):
        with pytest.raises(TypeError, match="key"):
            sampler.batch(subject, key, 2)
        with pytest.raises(TypeError, match="key"):
            sampler(subject, key)


@pytest.mark.parametrize("size", [0, -1, 2.5, (1, 2), (1, 2, 3, 4), "a"])
def test_bad_patch_sizes(size):
    with pytest.raises((TypeError, ValueError), match="patch_size"):
        mj.UniformSampler(size)


def test_bad_subjects(subject):
    with pytest.raises(ValueError, match=r"larger than the images.*CropOrPad"):
        mj.UniformSampler((24, 4, 4))(subject, KEY)
    with pytest.raises(ValueError, match="one grid"):
        mj.UniformSampler(2)(subject.replace(t2=mj.ScalarImage(np.zeros((1, 4, 4, 4)))), KEY)
    with pytest.raises(ValueError, match="no image"):
        mj.UniformSampler(2)(mj.Subject(age=3), KEY)
    with pytest.raises(ValueError, match="this is a batch of 2"):
        mj.UniformSampler(2)(mj.stack([subject, subject]), KEY)
    with pytest.raises(TypeError, match="key"):
        mj.UniformSampler(2)(subject, 3)


@pytest.mark.parametrize(
    "weights, message",
    [
        (np.zeros((7, 9, 8)), "is 0 wherever"),
        (-np.ones((7, 9, 8)), "at least 0"),
        (np.where(np.arange(9)[:, None] == 4, -1.0, np.full((7, 9, 8), 5.0)), "at least 0"),
        (np.full((7, 9, 8), np.nan), "finite"),
        (np.where(np.arange(7)[:, None, None] == 0, 1.0, np.zeros((7, 9, 8))), "is 0 wherever"),
    ],
)
def test_bad_maps(weights, message):
    with pytest.raises(ValueError, match=f"map.*{message}"):
        mj.WeightedSampler(SIZE, "map")(mapped(weights.astype(np.float32)), KEY)


def test_names_that_are_missing(subject):
    with pytest.raises(ValueError, match=r"'brain' is no image.*t1, label"):
        mj.WeightedSampler(SIZE, "brain")(subject, KEY)
    with pytest.raises(ValueError, match=r"'t1' is no label map"):
        mj.LabelSampler(SIZE, "t1")(subject, KEY)
    with pytest.raises(ValueError, match=r"None is no label map"):
        mj.LabelSampler(SIZE)(ramp(), KEY)


def test_bad_labels(subject):
    with pytest.raises(ValueError, match="at least 0"):
        mj.LabelSampler(SIZE, "label", {1: -1})
    with pytest.raises(ValueError, match="above 0"):
        mj.LabelSampler(SIZE, "label", {1: 0})
    with pytest.raises(ValueError, match="above 0"):
        mj.LabelSampler(SIZE, "label", {})
    with pytest.raises(ValueError, match=r"labels \[9\]"):
        mj.LabelSampler(SIZE, "label", {9: 1})(subject, KEY)
    with pytest.raises(ValueError, match="a label"):
        mj.LabelSampler(SIZE)(mapped(np.zeros((7, 9, 8), np.uint8), mj.LabelMap), KEY)
    with pytest.raises(ValueError, match="channels 0 to 1"):
        mj.LabelSampler(SIZE, None, {2: 1})(mapped(np.ones((2, 7, 9, 8), np.uint8), mj.LabelMap), KEY)
