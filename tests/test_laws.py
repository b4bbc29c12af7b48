"""The table of laws: every public transform has a row, and every row obeys every law.

Exceptions are data of the row, with a reason, and are printed. To add a transform, add a row.
"""

import json
import re
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import medjax as mj
from medjax.transforms.program import is_random
from medjax.transforms.transform import REGISTRY

SHAPE = (9, 10, 8)
CROP = (8, 8, 8)
rng = np.random.default_rng(0)


@dataclass
class Case:
    """A row: the arguments, whether the shape depends on values (then a CropOrPad follows), and what is excepted."""

    args: dict = field(default_factory=dict)
    reshapes: bool = False
    skip: dict = field(default_factory=dict)
    strength: dict = field(default_factory=dict)
    cube: bool = False
    """Whether its axes must have one size: the subject is cut to a cube first."""


ON_HOST = {
    "law_lowers_everywhere": "components are labelled on the host, which an exported program has not",
    "law_automatic_mesh_is_one_device": "a program that XLA is to split may not call the host (jax pull request 23620)",
}

CASES = {
    "Affine": Case(
        dict(scales=(1.1, 0.9, 1.2), degrees=(10, -20, 30), translation=(1, 2, -1), shears=(0.1, 0, 0.05, 0, 0, -0.1)),
        strength=dict(degrees=5),
    ),
    "RandomAffine": Case(
        dict(translation=2, shears=0.05, order="object", image_interpolation="cubic", label_interpolation="linear"),
        strength=dict(degrees=5, scales=0.2),
    ),
    # Turned, for at 0 degrees voxels lie on planes of the grid, where linear interpolation has a kink.
    "RandomVoxelAffine": Case(dict(degrees=8, scales=(0.7, 1.4), p_per_axis=0.5), strength=dict(degrees=5, scales=0.2)),
    "ElasticDeformation": Case(dict(control_points=rng.uniform(-1, 1, (5, 4, 6, 3)), max_displacement=0.5)),
    "RandomElasticDeformation": Case(
        dict(num_control_points=5, max_displacement=1.0), strength=dict(max_displacement=0.5)
    ),
    "DiffeomorphicDeformation": Case(dict(velocity=rng.uniform(-1, 1, (3, 4, 2, 3)), points_per_node=3)),
    "RandomDiffeomorphicDeformation": Case(dict(num_nodes=(3, 2, 3), points_per_node=3), strength=dict(std=0.5)),
    "Flip": Case(dict(axes=("LR", 2))),
    "RandomFlip": Case(dict(axes=(0, 1, 2)), strength=dict(flip_probability=0.3)),
    "Resample": Case(dict(target=(1.3, 1.1, 2.0)), reshapes=True, strength=dict(target=1.7)),
    "CropOrPad": Case(dict(target_shape=(12, 7, 9))),
    "ToCanonical": Case(reshapes=True),
    "ToOrientation": Case(dict(orientation="PIL"), reshapes=True),
    "Transpose": Case(),
    "Rotate90": Case(dict(axes=(0, 2), turns=3), cube=True),
    "RandomRotate90": Case(cube=True),
    "PermuteAxes": Case(dict(order=(1, 2, 0)), cube=True),
    "RandomPermuteAxes": Case(cube=True),
    "CropForeground": Case(dict(threshold=0.45, margin=1), reshapes=True, strength=dict(threshold=0.5)),
    "Crop": Case(dict(cropping=(1, 0, 2, 1, 0, 0))),
    "RandomCrop": Case(dict(size=(5, 6, 7), label_name="label", labels=(3,))),
    "Pad": Case(dict(padding=(1, 2, 0), padding_mode="linear_ramp")),
    "Resize": Case(dict(target_shape=(6, 14, -1), antialias=True)),
    "EnsureShapeMultiple": Case(dict(target_multiple=(4, 3, 5), method="crop")),
    "CopyAffine": Case(dict(target="label")),
    "ToReferenceSpace": Case(dict(reference=((5, 6, 7), np.diag([2.0, 3.0, 4.0, 1.0])))),
    "AffineElasticDeformation": Case(
        dict(
            affine_first=True,
            affine_params=dict(degrees=10),
            elastic_params=dict(control_points=rng.uniform(-1, 1, (4, 5, 4, 3))),
        )
    ),
    "RandomAffineElasticDeformation": Case(
        dict(affine_first=False, elastic_kwargs=dict(num_control_points=5, max_displacement=1.0))
    ),
    "LastElements": Case(dict(transforms=[mj.RandomAffine(), mj.RandomFlip()], fraction=1.0)),
    "OneOf": Case(dict(transforms=[mj.RandomAffine(), mj.RandomFlip(), mj.RandomNoise()], weights=(2, 1, 3))),
    "SomeOf": Case(dict(transforms=[mj.RandomAffine(), mj.RandomFlip(), mj.RandomNoise()], num=(1, 2))),
    "ZNormalization": Case(dict(masking_method="label")),
    "RescaleIntensity": Case(dict(percentiles=(5, 95)), strength=dict(percentiles=(1, 90))),
    "HistogramStandardization": Case(
        dict(landmarks=[[0, 30, 100], [2, 45, 97]], masking_method="label", labels=(1, 3)),
        strength=dict(landmarks=[[1, 20, 90], [2, 45, 97]]),
    ),
    "HistogramShift": Case(dict(control_points=(0, 0.13, 0.62, 1)), strength=dict(control_points=(0, 0.5, 0.6, 1))),
    "RandomHistogramShift": Case(
        dict(num_control_points=(4, 6), per_channel=True, p_per_channel=0.9), strength=dict(p_per_channel=0.5)
    ),
    "Clamp": Case(dict(out_min=0.2, out_max=0.7), strength=dict(out_min=0.3)),
    "Mask": Case(dict(masking_method="label", outside_value=-1, labels=(3,)), strength=dict(outside_value=2)),
    "Window": Case(dict(center=0.5, width=0.6), strength=dict(width=0.8)),
    "CTNormalization": Case(dict(low=0.15, high=0.8, mean=0.4, std=0.3), strength=dict(std=0.2)),
    "PCA": Case(
        dict(num_components=1),
        strength=dict(values_range=(-3, 2)),
        skip={"law_gated_out_is_bit_identical": "the number of channels cannot hang on a coin: p is 1"},
    ),
    "Lambda": Case(
        dict(function=jnp.arcsinh, types_to_apply=["intensity"]),
        skip={"law_padded_is_alone": "a function of the user's would see the padding, so it is refused"},
    ),
    "Gamma": Case(dict(gamma=1.3), strength=dict(gamma=0.7)),
    "RandomGamma": Case(strength=dict(log_gamma=0.1)),
    "Noise": Case(dict(mean=0.1, std=0.2), strength=dict(std=0.1)),
    "RandomNoise": Case(strength=dict(std=0.1)),
    "BiasField": Case(dict(coefficients=rng.uniform(-0.5, 0.5, 20))),
    "RandomBiasField": Case(strength=dict(coefficients=0.2)),
    "Blur": Case(dict(std=(1.0, 2.0, 0.5)), strength=dict(std=0.7)),
    "RandomBlur": Case(strength=dict(std=1.0)),
    "Motion": Case(
        dict(degrees=[(4, -6, 9), (-8, 3, 5)], translation=[(1, -0.7, 0.4), (-1.3, 0.6, 1)], times=(0.31, 0.66)),
        strength=dict(times=(0.22, 0.8)),
    ),
    "RandomMotion": Case(dict(axes=(2, "LR")), strength=dict(degrees=5)),
    "Ghosting": Case(dict(num_ghosts=3, axis="AP", intensity=0.7, restore=0.33), strength=dict(intensity=0.4)),
    "RandomGhosting": Case(dict(restore=(0.1, 0.3)), strength=dict(num_ghosts=(2, 5))),
    "Spike": Case(
        dict(spikes_positions=[(0.3, 0.62, 0.71), (0.13, 0.45, 0.84)], intensity=0.3), strength=dict(intensity=0.1)
    ),
    "RandomSpike": Case(dict(num_spikes=(0, 3), magnitude=True), strength=dict(intensity=0.2)),
    "Gibbs": Case(dict(cutoff=(0.6, 0.47, 0.83)), strength=dict(cutoff=0.7)),
    "RandomGibbs": Case(dict(axes=(0, "IS")), strength=dict(cutoff=(0.2, 0.5))),
    "BrightnessGradient": Case(dict(strength=2, location=(0.1, 0.5, 1.2)), strength=dict(scale=0.7)),
    "RandomBrightnessGradient": Case(dict(mean_centered=True), strength=dict(strength=(1, 2))),
    "BSplineBiasField": Case(dict(control_points=rng.uniform(-0.5, 0.5, (4, 5, 4)))),
    "RandomBSplineBiasField": Case(dict(num_control_points=4, interpolation="linear"), strength=dict(std=0.3)),
    "CoarseDropout": Case(dict(corners=[(1, 2, 3), (2, 3, 1)], size=(4, 3, 5), fill=0.3), strength=dict(fill=0.1)),
    "RandomCoarseDropout": Case(dict(size=(2, 5), per_channel=True)),
    "LocalGamma": Case(dict(gamma=1.7, location=(0.4, 0.6, 1.2)), strength=dict(gamma=0.8, location=0.2)),
    "RandomLocalGamma": Case(strength=dict(gamma=(0.5, 2))),
    "Median": Case(dict(size=2)),
    "RandomMedian": Case(dict(size=(1, 2)), strength=dict(p_per_channel=0.5)),
    "Sharpen": Case(dict(strength=0.7), strength=dict(strength=0.3)),
    "RandomSharpen": Case(dict(preserve_range=True), strength=dict(strength=0.3)),
    "TemporalCrop": Case(dict(start=0, length=1), skip=dict(law_gated_out_is_bit_identical="its p must be 1")),
    "RandomTemporalCrop": Case(dict(length=1), skip=dict(law_gated_out_is_bit_identical="its p must be 1")),
    "Brightness": Case(dict(factor=1.3, shift=-0.2), strength=dict(shift=0.1)),
    "RandomBrightness": Case(dict(shift=(-1, 1), shift_std=0.1, per_channel=True), strength=dict(shift_std=0.3)),
    "Contrast": Case(dict(factor=1.4, preserve_range=False), strength=dict(factor=0.7)),
    "RandomContrast": Case(dict(p_per_channel=0.7), strength=dict(factor=(0.8, 1.3))),
    "LowResolution": Case(dict(zoom=(0.45, 0.7, 1), image_interpolation="cubic"), strength=dict(zoom=0.6)),
    "RandomLowResolution": Case(dict(per_channel=True), strength=dict(zoom=0.6)),
    "Anisotropy": Case(
        dict(axis=1, downsampling=2.3, scalars_only=True, slice_profile="gaussian"), strength=dict(downsampling=3.1)
    ),
    "RandomAnisotropy": Case(strength=dict(downsampling=(2, 3))),
    "Acquisition": Case(
        dict(resolution=(1.3, 2.5, 4.0), thickness=(1.2, 2.5, 3.1), blur=1.1), strength=dict(resolution=3, blur=0.9)
    ),
    "RandomAcquisition": Case(dict(p_isotropic=0.4), strength=dict(max_isotropic=3, blur=(1, 2))),
    "ChannelMisalignment": Case(
        dict(scales=(1.1, 0.9, 1.2), degrees=(5, -3, 8), translation=(1, 0.4, -0.7), channel_indices=(0,)),
        strength=dict(degrees=2),
    ),
    "RandomChannelMisalignment": Case(
        dict(degrees=(5, 2, 9), image_interpolation="cubic", p_degrees=0.9), strength=dict(translation=3)
    ),
    "Swap": Case(dict(patch_size=3, locations=[((0, 0, 0), (5, 6, 4)), ((4, 4, 4), (1, 1, 1))])),
    "RandomSwap": Case(dict(patch_size=(3, 2, 4), num_iterations=5)),
    "OneHot": Case(
        dict(num_classes=5),
        skip={"law_gated_out_is_bit_identical": "the number of channels cannot hang on a coin: p is 1"},
    ),
    "RemapLabels": Case(dict(remapping={1: 3, 3: 1})),
    "RemoveLabels": Case(dict(labels=[3], masking_method="label")),
    "SequentialLabels": Case(
        dict(masking_method=jnp.logical_not),  # in the background, for 3 would become 2
        skip={"law_padded_is_alone": "a function of the user's would see the padding, so it is refused"},
    ),
    "KeepLargestComponent": Case(
        dict(connectivity=2),
        skip=ON_HOST,
    ),
    "FillHoles": Case(
        dict(labels=(3, 1)),
        skip=ON_HOST,
    ),
    "Contour": Case(),
    "Regions": Case(
        dict(regions=((1, 3), 3)),
        skip={"law_gated_out_is_bit_identical": "the number of channels cannot hang on a coin: p is 1"},
    ),
    "LabelMorphology": Case(dict(labels=(3, 1), operation="opening", radius=1.5), strength=dict(radius=2.0)),
    "RandomLabelMorphology": Case(
        dict(labels=(1, 3), radius=(0.5, 3), p_per_label=0.7), strength=dict(radius=(1, 2), p_per_label=0.2)
    ),
    "RemoveComponents": Case(
        dict(labels=(1, 3), place=0.4, max_fraction=0.3),
        strength=dict(place=0.1),
        skip=ON_HOST,
    ),
    "RandomRemoveComponents": Case(
        dict(labels=(1, 3), max_fraction=0.3, p_per_label=0.7),
        strength=dict(max_fraction=0.2),
        skip=ON_HOST,
    ),
    "LabelsToImage": Case(
        dict(mean=(1.0, 2.0), std=(0.1, 0.2), used_labels=(1, 3)),
        skip=dict(law_gated_out_is_bit_identical="a new image cannot hang on a coin: p is 1"),
    ),
    "RandomLabelsToImage": Case(
        dict(used_labels=(0, 3), mean=(0.5, (1, 2))),
        skip=dict(law_gated_out_is_bit_identical="a new image cannot hang on a coin: p is 1"),
    ),
    "Compose": Case(
        dict(transforms=[mj.RandomGamma(p=0.5), mj.RandomAffine(p=0.5), mj.RandomFlip(), mj.RandomNoise()])
    ),
}


def transform_of(name, **changes):
    """The transform of a row, ending in a fixed shape."""
    case = CASES[name]
    t = REGISTRY[name](**{**case.args, **changes})
    if case.cube:
        return mj.Compose([mj.CropOrPad(CROP), t])
    return mj.Compose([t, mj.CropOrPad(CROP)]) if case.reshapes else t


def subject_of(seed=0, spacing=1.0, **metadata):
    """A small subject; `spacing` scales the oblique grid."""
    return small_subject(OBLIQUE @ np.diag([spacing, spacing, spacing, 1]), SHAPE, seed, **metadata)


def key(i=3):
    return jax.random.key(i)


def same(one, other, tolerance=1e-5):
    """Images within a tolerance of their range, labels but for a tie in a thousand, affines to 1e-4 mm."""
    assert list(one.images) == list(other.images)
    for name, a in one.images.items():
        b = other[name]
        x, y = np.asarray(a.data, np.float64), np.asarray(b.data, np.float64)
        assert x.shape == y.shape and a.dtype == b.dtype
        if isinstance(a, mj.LabelMap):
            assert (x != y).mean() <= (1e-3 if tolerance else 0)
        else:
            assert np.abs(x - y).max() <= tolerance * max(np.ptp(y), 1e-3)
        np.testing.assert_allclose(np.asarray(a.affine), np.asarray(b.affine), atol=1e-4)


def law_jit_is_eager(name):
    """As an argument of a compiled function too, where its numbers are traced; without a key if it draws nothing."""
    t, s = transform_of(name), subject_of()
    given = (key(),) if is_random(t) else ()
    same(jax.jit(lambda t, s, *given: t(s, *given))(t, s, *given), t(s, *given))


def law_vmap_is_loop(name):
    t, subjects = transform_of(name), [subject_of(i) for i in range(3)]
    keys = jax.random.split(key(), 3)
    batch = mj.stack(subjects)
    loop = [t(s, k) for s, k in zip(subjects, keys, strict=True)]
    for result in (jax.jit(jax.vmap(t))(batch, keys), t.batch(batch, keys)):
        for one, other in zip(mj.unstack(result), loop, strict=True):
            same(one, other)
    params = jax.vmap(t.sample)(keys, batch)
    for i, s in enumerate(subjects):
        assert_equal(jax.tree.map(lambda leaf, i=i: leaf[i], params), t.sample(keys[i], s))


def law_padded_is_alone(name):
    """Voxels that only fill an element up to the shape of a batch are seen by nothing."""
    t = transform_of(name)
    if name in ENDS_OPEN:
        t = mj.Compose([transform_of(name, **ENDS_OPEN[name]), mj.CropOrPad(CROP)])
    shapes = [CROP, (10, 10, 10)] if CASES[name].cube else [SHAPE, (11, 9, 10)]
    subjects = [small_subject(OBLIQUE, shape, seed) for seed, shape in enumerate(shapes)]
    keys = jax.random.split(key(), 2)
    batch = t.batch(mj.stack(subjects, shape=(14, 14, 14)), keys)
    for subject, one, k in zip(subjects, mj.unstack(batch), keys, strict=True):
        same(one, t(subject, k), tolerance=5e-5)


def law_replay_exact(name):
    t, s = transform_of(name), subject_of()
    same(t.apply(s, t.sample(key(), s)), t(s, key()), tolerance=0)


def law_draws_do_not_hang_on_x64(name):
    certain = "law_gated_out_is_bit_identical" in CASES[name].skip
    t, s = mj.Compose([transform_of(name, **({} if certain else {"p": 0.5}))], p=1.0 if certain else 0.5), subject_of()
    keys = jax.random.split(key(), 8)
    drawn = [t.sample(k, s) for k in keys]
    with jax.enable_x64(True):
        wide = [t.sample(k, s) for k in keys]
    for a, b in zip(jax.tree.leaves(drawn), jax.tree.leaves(wide), strict=True):
        assert a.dtype == b.dtype
    assert_equal(drawn, wide)


def law_gated_out_is_bit_identical(name):
    t, s = REGISTRY[name](**{**CASES[name].args, "p": 0.0}), subject_of()
    s = mj.CropOrPad(CROP)(s) if CASES[name].cube else s
    same(t(s, key()), s, tolerance=0)


def law_gradient_is_central_difference(name):
    with jax.enable_x64(True):
        t = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), transform_of(name))
        s, k = subject_of(), key(5)
        image = jnp.asarray(s.t1.data, jnp.float64) + 0.1
        shape = jax.eval_shape(lambda: t.apply(s.replace(t1=s.t1.replace(data=image)), t.sample(k, s)).t1.data).shape
        weights = jnp.asarray(np.random.default_rng(1).normal(size=shape))

        def loss(operands):
            t, image = operands
            out = t.apply(s.replace(t1=s.t1.replace(data=image)), t.sample(k, s)).t1.data
            return (out * weights).sum()

        both = jax.jit(jax.value_and_grad(loss))  # one program for the gradient and the differences
        gradient = both((t, image))[1]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        for part in (0, 1):
            direction = [jax.tree.map(jnp.zeros_like, o) for o in (t, image)]
            draw = np.random.default_rng(2)
            direction[part] = jax.tree.map(
                lambda leaf, d=draw: jnp.asarray(d.normal(size=leaf.shape)), (t, image)[part]
            )
            step = 1e-6

            def moved(sign, direction=tuple(direction), step=step):
                return both(jax.tree.map(lambda a, d: a + sign * step * d, (t, image), direction))[0]

            numeric = (moved(1) - moved(-1)) / (2 * step)
            products = jax.tree.map(lambda g, d: (g * d).sum(), gradient, tuple(direction))
            analytic = sum(jax.tree.leaves(products))
            assert abs(numeric - analytic) <= 1e-4 * max(abs(numeric), abs(analytic), 1e-2)


def law_second_call_compiles_nothing(name):
    t, s = transform_of(name), subject_of(age=45)
    t(s, key())
    t.batch(mj.stack([s, s]), key())
    stronger = transform_of(name, **CASES[name].strength)
    other = subject_of(1, spacing=1.25, age=46)
    with compilations() as count:
        stronger(other, key(7))
        stronger.batch(mj.stack([other, other]), key(8))
    assert count() == 0


def law_config_round_trip(name):
    t, s = transform_of(name), subject_of()
    config = json.loads(json.dumps(mj.to_config(t)))
    functions = {"jax.numpy:logical_not": jnp.logical_not, "jax.numpy:arcsinh": jnp.arcsinh}
    again = mj.from_config(config, functions)
    assert mj.to_config(again) == mj.to_config(t)
    same(again(s, key()), t(s, key()), tolerance=0)


def law_labels(name):
    t, s = transform_of(name), subject_of()
    before, after = s.label.numpy(), t(s, key()).label.numpy()
    assert set(np.unique(after)) <= {0, *np.unique(before)} and after.dtype == before.dtype
    if isinstance(t, mj.IntensityTransform):
        assert (after == before).all()


def law_lowers_everywhere(name):
    t, s = transform_of(name), subject_of()

    def run(data, label, affine, key):
        images = {"t1": mj.ScalarImage.of(data, affine), "label": mj.LabelMap.of(label, affine)}
        return {n: i.data for n, i in t(mj.Subject(images), jax.random.wrap_key_data(key)).images.items()}

    arguments = (s.t1.data, s.label.data, np.asarray(s.t1.affine, np.float32), np.zeros(2, np.uint32))
    jax.export.export(jax.jit(run), platforms=["cpu", "cuda", "tpu"])(*arguments)


def law_eight_devices_are_one(name):
    t = transform_of(name)
    batch = mj.stack([subject_of(i) for i in range(8)])
    keys = jax.random.split(key(), 8)
    mesh = Mesh(np.array(jax.devices()[:8]), ("batch",))
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch")))
    result = t.batch(split, keys)
    assert len(result.t1.data.sharding.device_set) == 8
    same(result, t.batch(batch, keys))


def split(name, axis_type, devices=4):
    """A mesh of these axes, the transform of a row, and subjects and keys: one by one, and split over the mesh."""
    mesh = jax.make_mesh((devices,), ("batch",), (axis_type,), devices=jax.devices()[:devices])
    subjects, keys = [subject_of(i) for i in range(devices)], jax.random.split(key(), devices)
    along = NamedSharding(mesh, PartitionSpec("batch"))
    given = jax.device_put(mj.stack(subjects), along), jax.device_put(keys, along)
    return mesh, transform_of(name), subjects, keys, given


def mapped(t, mesh):
    """The user's own `shard_map`, with the checks that are JAX's default."""
    along = PartitionSpec("batch")
    return jax.shard_map(jax.vmap(t), mesh=mesh, in_specs=(along, along), out_specs=along)


def law_is_traced_over_devices(name):
    """JAX refuses while tracing what does not vary, or is not split, as it must: nothing is compiled here."""
    mesh, t, _, _, given = split(name, AxisType.Explicit)
    may_not = (
        not isinstance(t, (mj.IntensityTransform, mj.LabelTransform))
        or "law_gated_out_is_bit_identical" in CASES[name].skip
    )
    behind_a_coin = t if may_not else transform_of(name, p=0.5)
    for function in (mapped(behind_a_coin, mesh), jax.vmap(t)):
        jax.jit(function).trace(*given)


def is_one_device(name, axis_type, ways):
    """The results of a loop on one device, split as what was given, by programs that move nothing between devices."""
    mesh, t, subjects, keys, given = split(name, axis_type)
    loop = [t(s, k) for s, k in zip(subjects, keys, strict=True)]
    results = [t.batch(*given)] if "batch" in ways else []
    for way in ways:
        function = {"shard_map": mapped(t, mesh), "vmap": jax.vmap(t), "batch": t.batch}[way]
        program = jax.jit(function).lower(*given).compile()
        moved = re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", program.as_text())
        assert not moved, (way, set(moved))
        results.append(program(*given))
    here = SingleDeviceSharding(
        jax.devices()[0]
    )  # put on a mere device, an array still calls itself split in JAX 0.10.2
    for result in results:
        assert len(result.t1.data.sharding.device_set) == 4 and result.t1.data.sharding.spec[0] == "batch"
        for one, other in zip(mj.unstack(jax.device_put(result, here)), loop, strict=True):
            same(one, other)


def law_shard_map_is_one_device(name):
    is_one_device(name, AxisType.Auto, ["shard_map"])


def law_explicit_mesh_is_one_device(name):
    is_one_device(name, AxisType.Explicit, ["batch", "vmap"])


def law_automatic_mesh_is_one_device(name):
    is_one_device(name, AxisType.Auto, ["batch", "vmap"])


def assert_equal(one, other):
    """Bit-equal trees, keys included."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


LAWS = [
    law_jit_is_eager,
    law_vmap_is_loop,
    law_padded_is_alone,
    law_replay_exact,
    law_draws_do_not_hang_on_x64,
    law_gated_out_is_bit_identical,
    law_gradient_is_central_difference,
    law_second_call_compiles_nothing,
    law_config_round_trip,
    law_labels,
    law_lowers_everywhere,
    law_is_traced_over_devices,
]
DEVICES = [law_shard_map_is_one_device, law_explicit_mesh_is_one_device, law_automatic_mesh_is_one_device]
ENDS_OPEN = {
    "Transpose": {}, "Crop": {}, "Pad": {"padding_mode": 0.0}, "Resize": {}, "EnsureShapeMultiple": {},
}  # fmt: skip
"""Transforms whose result has a shape that hangs on the subject's: a batch of several shapes must end in one.

The ramp of Pad's row is of the whole image, which ends the run before that shape is known.
"""
KERNELS = ["RandomAffine", "RandomElasticDeformation", "RandomFlip", "RandomBlur", "RandomNoise", "ZNormalization"]
"""One transform for each kernel: linear and deformed warp, indexing, axis operator, random field, statistics."""


COMPILED = [
    law_jit_is_eager, law_vmap_is_loop, law_padded_is_alone, law_gradient_is_central_difference,
    law_second_call_compiles_nothing,
]  # fmt: skip
"""Laws that compile most."""


def rows_and_laws():
    """Every row with every law; those that compile most, of a twin of a random row that shares all it does, when asked."""
    for name in CASES:
        twin = f"Random{name}" in CASES
        for law in LAWS:
            marks = [pytest.mark.long] if twin and law in COMPILED else []
            yield pytest.param(name, law, marks=marks, id=f"{name}-{law.__name__}")


@pytest.mark.parametrize(("name", "law"), list(rows_and_laws()))
def test_law(name, law):
    if law.__name__ in CASES[name].skip:
        pytest.skip(CASES[name].skip[law.__name__])
    law(name)


@pytest.mark.parametrize("name", KERNELS)
def test_eight_devices_are_one(name):
    law_eight_devices_are_one(name)


def every_row_when_asked(names):
    return [name if name in names else pytest.param(name, marks=pytest.mark.long) for name in CASES]


@pytest.mark.parametrize(
    "t",
    [
        mj.ZNormalization(p=0.5),
        mj.RescaleIntensity(per_channel=True),
        mj.HistogramStandardization([[0, 30, 100], [2, 45, 97]]),
        mj.RandomMedian(),
    ],
    ids=lambda t: type(t).__name__,
)
def test_rows_of_other_arguments_are_traced_over_devices(t):
    """Without masks, and of larger cubes: other branches than those of the table."""
    mesh, _, _, _, given = split("Gamma", AxisType.Auto)
    jax.jit(mapped(t, mesh)).trace(*given)


@pytest.mark.parametrize("law", DEVICES, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", every_row_when_asked(["RandomElasticDeformation", "RescaleIntensity"]))
def test_law_of_devices(name, law):
    if law.__name__ in CASES[name].skip:
        pytest.skip(CASES[name].skip[law.__name__])
    law(name)


def test_every_public_transform_has_a_row():
    public = {n for n, c in vars(mj).items() if isinstance(c, type) and issubclass(c, mj.Transform) and n in REGISTRY}
    assert public == set(CASES) == set(REGISTRY)


def test_no_row_skips_what_none_may():
    never = {"law_jit_is_eager", "law_vmap_is_loop", "law_replay_exact", "law_config_round_trip", "law_labels"}
    never.add("law_draws_do_not_hang_on_x64")
    assert not any(never & set(case.skip) for case in CASES.values())
