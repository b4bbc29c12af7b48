"""SynthSeg's augmentation: an image out of labels, both deformed together."""

import jax
import numpy as np
from conftest import small_subject
from scipy.stats import kstest

import medjax as mj

KEY = jax.random.key(2)
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
    keys = jax.random.split(KEY, 1500)
    params = jax.jit(jax.vmap(lambda key: PRESET.sample(key, labels())["members"]))(keys)
    affine, made = params[1]["draw"], params[5]["draw"]["image"]
    for values, low, high in (
        (affine["scales"], 0.8, 1.2),
        (affine["degrees"], -15, 15),
        (affine["shears"], -0.012, 0.012),
        (made["mean"], 0, 250),
        (made["std"], 0, 30),
    ):
        assert kstest(np.ravel(values), "uniform", (low, high - low)).pvalue > 1e-3
    assert kstest(np.ravel(params[9]["draw"]["image"]["log_gamma"]), "norm", (0, 0.5)).pvalue > 1e-3
    assert abs(np.mean(params[4]["on"]) - 0.5) < 4 * np.sqrt(0.25 / 1500)


def test_mirrored_labels_change_sides():
    mirror = PRESET[4].replace(p=1.0)
    before, after = labels().label.numpy(), mirror(labels(), KEY).label.numpy()
    swapped = np.where(before == 1, 3, np.where(before == 3, 1, before))
    np.testing.assert_array_equal(after, swapped[:, ::-1])


def test_configuration_goes_round():
    assert repr(mj.from_config(mj.to_config(PRESET))) == repr(PRESET)
