"""SynthSeg's augmentation: an image out of labels, both deformed together."""

import jax
import numpy as np
from conftest import small_subject
from scipy.stats import ks_2samp, kstest

import medjax as mj

KEY = jax.random.key(2)
COUNT = 2000
IMAGE = mj.Subject(image=mj.ScalarImage(np.zeros((1, 24, 24, 24), np.float32), np.diag([2.0, 2.0, 2.0, 1.0])))
PRESET = mj.presets.synthseg((0, 1, 3), patch_size=16, target_labels={3: 2}, flip_pairs=((1, 3),))


def labels():
    return mj.Subject(label=small_subject(np.diag([2.0, 2.0, 2.0, 1.0]), (24, 24, 24)).label)


def test_an_image_of_labels_in_every_mode():
    run, batch = jax.jit(lambda s, key: PRESET(s, key)), mj.stack([labels()] * 2)
    keys = jax.random.split(KEY, 2)
    batched = mj.unstack(PRESET.batch(batch, keys))
    for key, other in zip(keys, batched, strict=True):
        out = run(labels(), key)
        assert set(out.images) == {"label", "image"} and out.image.spatial_shape == (16,) * 3
        assert out.label.dtype == np.uint8 and set(np.unique(out.label.numpy())) <= {0, 1, 2}
        assert np.isfinite(out.image.numpy()).all() and np.ptp(out.image.numpy()) > 0
        for name in out.images:
            np.testing.assert_allclose(other[name].numpy(), out[name].numpy(), atol=1e-4)
    assert repr(PRESET).count("one gather") == 1


def test_distributions():
    whole = mj.presets.synthseg((0, 1, 2, 3), patch_size=40, remove=(24,), flip_pairs=((1, 3),))
    remove, _, affine, flow, _, mirror, made, bias, _, _, gamma, acquired = range(12)
    keys = jax.random.split(KEY, COUNT)
    params = jax.jit(jax.vmap(lambda key: whole.sample(key, labels())["members"]))(keys)

    def draw(step):
        return params[step]["draw"] if step in (affine, flow) else params[step]["draw"]["image"]

    mean, std = (np.asarray(draw(made)[name]) for name in ("mean", "std"))
    for values, low, high in (
        (draw(affine)["scales"], 0.8, 1.2),
        (draw(affine)["degrees"], -15, 15),
        (draw(affine)["shears"], -0.012, 0.012),
        (mean[:, 1:3], 0, 250),
        (std[:, 1:3], 0, 30),
        (draw(acquired)["blur"], 1 / 1.03, 1.03),
    ):
        assert kstest(np.ravel(values), "uniform", (low, high - low)).pvalue > 1e-3
    np.testing.assert_array_equal(mean[:, 1], mean[:, 3])
    assert kstest(np.ravel(draw(gamma)["log_gamma"]), "norm", (0, 0.5)).pvalue > 1e-3
    assert draw(flow)["velocity"].shape == (COUNT, 2, 2, 2, 3)
    assert draw(bias)["control_points"].shape == (COUNT, 1, 1, 1)
    scale = np.random.default_rng(0).uniform(0, 4, (COUNT, 1)) * np.random.default_rng(1).normal(size=(COUNT, 24))
    assert ks_2samp(np.ravel(draw(flow)["velocity"])[::24], scale[:, 0]).pvalue > 1e-3
    scale = np.random.default_rng(0).uniform(0, 0.7, COUNT) * np.random.default_rng(1).normal(size=COUNT)
    assert ks_2samp(np.ravel(draw(bias)["control_points"]), scale).pvalue > 1e-3
    for found, p in (
        (params[remove]["on"], 0.3),
        (params[mirror]["on"], 0.5),
        (params[bias]["on"], 0.95),
        ((mean[:, 0] == 0) & (std[:, 0] == 0), 0.05),
    ):
        assert abs(np.mean(found) - p) < 4 * np.sqrt(p * (1 - p) / COUNT)
    dark = np.interp(mean[:, 0], [0, 15, 250], [0, 1, 1]) * (mean[:, 0] > 0)
    assert abs(np.mean((dark > 0) & (dark < 1)) - (0.25 + 0.7 * 15 / 250)) < 4 * np.sqrt(0.3 * 0.7 / COUNT)


def test_resolutions_are_in_mm():
    acquired = mj.presets.synthseg((0, 1), patch_size=16)[-1]
    drawn = jax.jit(jax.vmap(lambda key: acquired.sample(key, IMAGE)["draw"]["image"]))(jax.random.split(KEY, COUNT))
    resolution, thickness = np.asarray(drawn["resolution"]), np.asarray(drawn["thickness"])
    coarse = resolution > 2.001
    several, one = coarse.sum(1) > 1, coarse.sum(1) == 1
    for found, p in ((~coarse.any(1), 0.05), (several, 0.095), (one, 0.855)):
        assert abs(found.mean() - p) < 4 * np.sqrt(p * (1 - p) / COUNT)
    assert kstest(resolution[several].ravel(), "uniform", (2, 2)).pvalue > 1e-3
    assert kstest(resolution[one].max(1), "uniform", (2, 6)).pvalue > 1e-3
    share = (thickness - 2)[coarse] / (resolution - 2)[coarse]
    assert kstest(share, "uniform").pvalue > 1e-3


def test_the_flow_and_the_bias_have_as_many_nodes_as_the_table_says():
    found = mj.presets.synthseg((0, 1), patch_size=(160, 96, 161), map_size=(256, 160, 182))
    assert found[2].num_nodes == (11, 7, 8) and found[6].num_control_points == (4, 3, 5)


def test_gradients_reach_means_and_images_of_labels():
    preset = mj.Compose(list(mj.presets.synthseg((0, 1, 3), patch_size=24))[5:])  # the geometry has none: labels
    numbers, structure = jax.tree.flatten(preset)
    weights = np.random.default_rng(0).normal(size=(1, 24, 24, 24)).astype(np.float32)

    def loss(leaves):
        return (jax.tree.unflatten(structure, leaves)(labels(), KEY).image.data * weights).sum()

    slopes = jax.tree.unflatten(structure, jax.jit(jax.grad(loss))(numbers))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert np.abs(slopes[0].default_mean).max() > 0 and np.abs(slopes[0].default_std).max() > 0
    assert np.abs(slopes[-1].blur).max() > 0


def test_mirrored_labels_change_sides():
    mirror = next(step for step in PRESET if isinstance(step, mj.Compose)).replace(p=1.0)
    before, after = labels().label.numpy(), mirror(labels(), KEY).label.numpy()
    swapped = np.where(before == 1, 3, np.where(before == 3, 1, before))
    np.testing.assert_array_equal(after, swapped[:, ::-1])


def test_configuration_goes_round():
    assert repr(mj.from_config(mj.to_config(PRESET))) == repr(PRESET)
