"""nnU-Net's augmentation: its order, its coins, what it draws, and that every mode gives the same."""

import jax
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.spatial.spatial import create_affine_matrix_3d
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from conftest import small_subject
from scipy.stats import kstest

import medjax as mj
from medjax.geometry import Grid
from medjax.transforms.program import flatten, runs_of

N = 3000
KEYS = jax.random.split(jax.random.key(5), N)
PRESET = mj.presets.nnunet(16, deep_supervision=(1, 0.5, (0.25, 0.5, 0.5)))
P = (1, 0.2, 0.2, 1, 1, 0.1, 0.2, 0.15, 0.15, 0.25, 0.1, 0.3, 1)
"""Of the steps from padding to mirror."""


def cube(seed=0):
    return small_subject(np.diag([1.0, 1.0, 3.0, 1.0]), (24, 24, 24), seed)


@pytest.fixture(scope="module")
def drawn():
    """What is drawn for a subject of two channels, over keys."""
    s = cube()
    s = s.replace(t1=mj.ScalarImage(np.concatenate([s.t1.numpy()] * 2), s.t1.affine))
    forced = PRESET.replace(transforms=[t.replace(p=1.0) for t in PRESET.transforms])
    return jax.jit(jax.vmap(lambda key: forced.sample(key, s)["members"]))(KEYS)


def same(values, low, high):
    assert kstest(np.ravel(values), "uniform", (low, high - low)).pvalue > 1e-3


def halves(values, low, high):
    values = np.ravel(values)
    assert abs(np.mean(values < 1) - 0.5) < 4 * np.sqrt(0.25 / values.size)
    same(values[values < 1], low, 1)
    same(values[values >= 1], 1, high)


def test_order_and_one_gather():
    steps = flatten(PRESET)
    names = [type(step.transform).__name__ for step in steps]
    first = len(runs_of(steps)[0])
    assert first == 6 and names[0] == "CropOrPad"
    names = names[:1] + names[first:]
    spoken = "CropOrPad RandomNoise RandomBlur RandomBrightness RandomContrast RandomLowResolution RandomGamma"
    assert names[:10] == [*spoken.split(), "RandomGamma", "RandomFlip", "RemapLabels"]
    assert repr(PRESET).count("one gather") == 1
    assert PRESET[10].invert_image and not PRESET[11].invert_image
    assert all(g.rescale and g.retain_stats and g.channelwise for g in (PRESET[10], PRESET[11]))


def test_coins():
    s = cube()
    params = jax.jit(jax.vmap(lambda key: PRESET.sample(key, s)["members"]))(KEYS)
    coins = np.stack([np.broadcast_to(params[i]["on"], N) for i in range(13)])
    for i, p in enumerate(P):
        assert abs(coins[i].mean() - p) <= 4 * np.sqrt(p * (1 - p) / N), i
    assert abs(np.corrcoef(coins[1], coins[2])[0, 1]) < 4 / np.sqrt(N)


def test_distributions(drawn):
    draws = [d["draw"] for d in drawn]
    assert abs(np.mean(draws[3]["chosen"] == 0) - 0.33) < 4 * np.sqrt(0.33 * 0.67 / N)
    for axis in range(3):
        same(draws[1]["degrees"][:, axis], -30, 30)
    assert (draws[1]["scales"] == 1).all() and (draws[2]["degrees"] == 0).all()
    same(draws[2]["scales"][:, 0], 0.7, 1.4)
    assert (draws[2]["scales"] == draws[2]["scales"][:, :1]).all()
    same(draws[5]["t1"]["std"], 0, 0.1)
    assert draws[5]["t1"]["std"].shape == (N,)
    same(draws[6]["t1"]["std"], 0.5, 1)
    assert draws[6]["t1"]["std"].shape == (N, 2, 3)
    for i in (6, 9):
        assert abs(np.mean(draws[i]["t1"]["channels"]) - 0.5) < 4 * np.sqrt(0.25 / (2 * N))
    for i in (7, 8):
        halves(draws[i]["t1"]["factor"], 0.75, 1.25)
        assert abs(np.corrcoef(draws[i]["t1"]["factor"].T)[0, 1]) < 4 / np.sqrt(N)
    same(draws[9]["t1"]["zoom"][..., 0], 0.5, 1)
    assert (draws[9]["t1"]["zoom"] == draws[9]["t1"]["zoom"][..., :1]).all()
    for i in (10, 11):
        halves(draws[i]["t1"]["gamma"], 0.7, 1.5)
    assert np.abs(np.mean(draws[12]["flip"], 0) - 0.5).max() < 4 * np.sqrt(0.25 / N)


def test_every_mode_gives_the_same_and_labels_stay_labels():
    subjects, keys = [cube(seed) for seed in range(3)], KEYS[:3]
    run = jax.jit(lambda s, key: PRESET(s, key))
    batch = mj.stack(subjects)
    batches = [PRESET.batch(batch, keys), jax.vmap(run)(batch, keys)]
    for i, s in enumerate(subjects):
        eager, jitted = PRESET(s, keys[i]), run(s, keys[i])
        shapes = {n: image.spatial_shape for n, image in eager.images.items()}
        assert shapes == {"t1": (16,) * 3, "label": (16,) * 3, "label_1": (8,) * 3, "label_2": (4, 8, 8)}
        for name, image in eager.images.items():
            for other in (jitted, *(mj.unstack(b)[i] for b in batches)):
                np.testing.assert_allclose(other[name].numpy(), image.numpy(), atol=1e-5)
            if name != "t1":
                assert image.dtype == np.uint8 and set(np.unique(image.numpy())) <= {0, 1, 3}
        peer = DownsampleSegForDSTransform([0.5, [0.25, 0.5, 0.5]])
        want = peer(segmentation=torch.from_numpy(eager.label.numpy().astype(np.int16)))["segmentation"]
        for name, target in zip(("label_1", "label_2"), want, strict=True):
            np.testing.assert_array_equal(eager[name].numpy(), target.numpy())


def test_a_third_of_the_patches_is_centred_on_foreground():
    label = np.zeros((1, 24, 24, 24), np.uint8)
    label[0, 9, 14, 11] = 2
    s = mj.Subject(label=mj.LabelMap(label))
    crops = mj.Compose(PRESET.transforms[:1] + PRESET.transforms[3:5])
    run = jax.jit(jax.vmap(lambda key: crops(s, key).label.data[0, 8, 8, 8]))
    p = 0.33 + 0.67 / 9**3
    assert abs(np.mean(np.asarray(run(KEYS)) == 2) - p) < 4 * np.sqrt(p * (1 - p) / N)


def test_the_matrix_is_that_of_batchgenerators():
    s, affine = cube(), np.diag([1.0, 1.0, 3.0, 1.0])
    t = mj.RandomVoxelAffine(scales=(0.7, 1.4), degrees=30)
    for key in KEYS[:3]:
        params = t.sample(key, s)["draw"]
        degrees, scales = (np.asarray(params[n], np.float64) for n in ("degrees", "scales"))
        move = t.move({"degrees": degrees, "scales": scales}, Grid(affine, np.array([24, 20, 18], np.int32)))
        index = np.linalg.inv(affine) @ move.matrix @ affine
        want = create_affine_matrix_3d(np.deg2rad(degrees), scales)
        np.testing.assert_allclose(index[:3, :3], want, atol=1e-6)
        middle = np.array([11.5, 9.5, 8.5])
        np.testing.assert_allclose(index[:3, :3] @ middle + index[:3, 3], middle, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "degrees"), [((4, 16, 16), 180), ((1, 16, 16), 180), ((1, 8, 16), 15), ((6, 16, 16), 30)]
)
def test_thin_patches_are_turned_in_their_plane(size, degrees):
    t, plane = mj.presets.nnunet(size), size != (6, 16, 16)
    want = [[-degrees, degrees], [0, 0], [0, 0]] if plane else [[-30, 30]] * 3
    np.testing.assert_array_equal(t[1].degrees, want)
    assert t[2].axes == t[9].axes == ((1, 2) if plane else (0, 1, 2))


def test_minus_one_becomes_background_and_small_volumes_are_padded():
    s = mj.Subject(t1=mj.ScalarImage(np.ones((1, 8, 8, 8), np.float32)),
                   label=mj.LabelMap(np.full((1, 8, 8, 8), -1, np.int16)))  # fmt: skip
    t = mj.presets.nnunet(12)
    out = mj.Compose(t.transforms[:1] + t.transforms[3:5] + t.transforms[13:])(s, KEYS[0])
    assert out.t1.spatial_shape == (12, 12, 12) and out.t1.numpy().sum() == 8**3
    assert (out.label.numpy() == 0).all()


@pytest.mark.parametrize("make", [mj.presets.nnunet, mj.presets.nnunet_da5])
def test_configuration_goes_round(make):
    t = make((8, 16, 16), p_foreground=0.5, classes=(1, 3), deep_supervision=(0.5,))
    assert repr(mj.from_config(mj.to_config(t))) == repr(t)


def test_da5_runs_and_has_its_coins():
    t = mj.presets.nnunet_da5(16)
    out = t(cube(), KEYS[0])
    assert out.t1.spatial_shape == (16,) * 3 and set(np.unique(out.label.numpy())) <= {0, 1, 3}
    assert np.isfinite(out.t1.numpy()).all()
    assert [round(float(m.p), 2) for m in t.transforms[1:3]] == [0.4, 0.2]
    assert t[12].invert_image and t[13].invert_image


def test_bad_arguments_are_named():
    for arguments in (dict(patch_size=0), dict(p_foreground=2), dict(classes=()), dict(deep_supervision=(2,))):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            mj.presets.nnunet(**{"patch_size": 8, **arguments})


def test_da5s_boxes_and_medians_are_drawn_as_the_sources():
    """The upper ends of its ranges are exclusive; boxes have a coin for each channel, and each channel its own."""
    size, channels = (40, 60, 30), 3
    ranges = [[max(1, n // 10), n // 3] for n in size]
    peer = BlankRectangleTransform(ranges, np.mean, (1, 5), p_per_channel=0.5)
    np.random.seed(0)  # noqa: NPY002 - the peer draws from it
    drawn = [peer.get_parameters(np.zeros((channels, *size))) for _ in range(300)]
    boxes = [box for params in drawn for per_channel in params["rectangles"] for box in per_channel]
    counts = {len(c) for params in drawn for c in params["rectangles"]} - {0}
    sizes = np.array([np.subtract(high, low) for low, high in boxes])
    members = flatten(mj.presets.nnunet_da5(size))
    blank = next(s.transform for s in members if isinstance(s.transform, mj.RandomCoarseDropout))
    image = mj.ScalarImage(np.zeros((channels, *size), np.float32))
    ours = jax.vmap(lambda key: blank.sample(key, image)["draw"]["image"])(jax.random.split(jax.random.key(0), 300))
    assert set(np.unique(ours["count"])) == counts
    ours_sizes = np.asarray(ours["size"]).reshape(-1, 3)
    np.testing.assert_array_equal(ours_sizes.min(0), sizes.min(0))
    np.testing.assert_array_equal(ours_sizes.max(0), sizes.max(0))
    coins = np.asarray(ours["channels"])
    assert abs(coins.mean() - 0.5) < 0.06 and abs(np.corrcoef(coins.T)[0, 1]) < 0.2
    assert (np.asarray(ours["corner"])[:, 0] != np.asarray(ours["corner"])[:, 1]).any(-1).mean() > 0.9
    median = next(s.transform for s in members if isinstance(s.transform, mj.RandomMedian))
    np.random.seed(0)  # noqa: NPY002 - the peer draws from it
    peer = MedianFilterTransform((2, 8))
    assert {s for _ in range(200) for s in peer.get_parameters(np.zeros((1, 2, 2)))["filter_sizes"]} == set(
        range(median.size[0], median.size[1] + 1)
    )
