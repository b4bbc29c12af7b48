"""A network over a whole volume: its windows, and what becomes of its outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, oriented, small_subject

import medjax as mj
from medjax.patches.grid import OVERLAP_MODES
from medjax.patches.inference import aggregator_of

SHAPE = (23, 31, 18)


def identity(batch):
    return batch["t1"].data


def classes(batch):
    """Five channels that differ, of a network that looks at single voxels."""
    x = batch["t1"].data
    return jnp.concatenate([jnp.sin(x * n) for n in range(3, 8)], 1)


def argmax(scores):
    return scores.argmax(0, keepdims=True).astype(jnp.uint8)


def whole(function, subject):
    return np.asarray(
        function(mj.Subject(t1=mj.ScalarImage.of(jnp.asarray(subject.t1.data)[None], np.eye(4)[None])))[0]
    )


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("mode", OVERLAP_MODES)
@pytest.mark.parametrize(
    "size, overlap, batch", [((8, 9, 7), (3, 4, 2), 4), ((10, 31, 5), 0, 3), ((40, 12, 20), (8, 3, 5), 1)]
)
def test_an_identity_network_returns_the_input(size, overlap, batch, mode, on_host, subject):
    """For shapes that do not divide, odd and even overlaps, patches larger than the volume."""
    result = mj.sliding_window(identity, subject, size, overlap, batch, mode, on_host=on_host)
    assert isinstance(result, mj.ScalarImage) and isinstance(result.data, jax.Array)
    np.testing.assert_allclose(result.numpy(), subject.t1.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(result.affine, subject.t1.affine)


def test_an_identity_network_returns_the_input_on_x64(subject):
    with jax.enable_x64(True):
        got = mj.sliding_window(lambda batch: batch.t1.data, subject, 12, 4)
    np.testing.assert_allclose(got.numpy(), subject.t1.numpy(), atol=1e-5)


def test_the_network_sees_a_batch_of_subjects(subject):
    seen = []

    def network(batch):
        seen.append(batch)
        x, y = batch.t1, batch.label
        assert x.shape == (4, 1, 8, 8, 8) and y.shape == (4, 1, 8, 8, 8) and x.affine.shape == (4, 4, 4)
        assert batch[mj.LOCATION].shape == (4, 6) and batch.ac.xyz.shape == (4, 1, 3)
        corner = batch[mj.LOCATION][:, :3].astype(jnp.float32) + x.affine[:, :3, 3] * 0
        return x.data + y.data.astype(jnp.float32) + corner.sum(1)[:, None, None, None, None]

    subject = subject.replace(ac=mj.Points([[1.0, 2, 3]]))
    device = mj.sliding_window(network, subject, 8, 0, 4, "crop")
    host = mj.sliding_window(network, subject, 8, 0, 4, "crop", on_host=True)
    assert {type(batch.label) for batch in seen} == {mj.LabelMap}
    np.testing.assert_allclose(host.data, device.data, rtol=0, atol=1e-5)
    want = subject.t1.numpy() + subject.label.numpy()
    assert device.numpy()[0, 0, 0, 0] == pytest.approx(want[0, 0, 0, 0], abs=1e-6)
    assert device.numpy()[0, -1, -1, -1] == pytest.approx(want[0, -1, -1, -1] + 23 + 31 + 18 - 24, abs=1e-5)


def test_windows_that_disagree_are_weighed_as_the_aggregator_does(subject):
    def network(batch):
        return batch["t1"].data + jnp.sin(batch[mj.LOCATION].sum(1).astype(jnp.float32))[:, None, None, None, None]

    sampler = mj.GridSampler(subject, 9, 4)
    patches = mj.stack(list(sampler))
    for mode in OVERLAP_MODES:
        aggregator = mj.GridAggregator(sampler, mode)
        want = aggregator.finish(aggregator.add(aggregator.init(1), network(patches), sampler.locations))
        for options in ({}, {"on_host": True}):
            got = mj.sliding_window(network, subject, 9, 4, 7, mode, **options)
            np.testing.assert_allclose(got.data, want.data, rtol=0, atol=1e-5)


def test_dictionaries_and_coarser_outputs():
    subject = small_subject(shape=(24, 32, 16))

    def network(batch):
        x = batch["t1"].data
        return {"same": x * 2, "coarse": jnp.concatenate([x, -x], 1)[..., ::2, ::4, :], "half": x.astype(jnp.bfloat16)}

    for mode in OVERLAP_MODES:
        for on_host in (False, True):
            result = mj.sliding_window(network, subject, 8, 4, 3, mode, on_host=on_host)
            assert set(result) == {"same", "coarse", "half"}
            np.testing.assert_allclose(result["same"].data, subject.t1.numpy() * 2, rtol=0, atol=1e-5)
            np.testing.assert_allclose(result["half"].data, subject.t1.numpy(), rtol=0, atol=1e-2)
            coarse = subject.t1.numpy()[..., ::2, ::4, :]
            np.testing.assert_allclose(result["coarse"].data, np.concatenate([coarse, -coarse]), rtol=0, atol=1e-5)
            assert result["half"].dtype == np.float32
    np.testing.assert_allclose(result["coarse"].spacing, np.array(subject.t1.spacing) * (2, 4, 1), rtol=1e-9)
    corner = np.append(np.full(3, -0.5), 1)
    np.testing.assert_allclose(result["coarse"].affine @ corner, OBLIQUE @ corner, atol=1e-9)


def test_a_coarser_output_of_a_padded_subject_keeps_its_corner():
    subject = small_subject(shape=(10, 9, 12))
    result = mj.sliding_window(lambda b: b["t1"].data[..., ::4, ::4, ::4], subject, 16)
    np.testing.assert_allclose(result.data, subject.t1.numpy()[..., ::4, ::4, ::4], rtol=0, atol=1e-6)
    corner = np.append(np.full(3, -0.5), 1)
    np.testing.assert_allclose(result.affine @ corner, OBLIQUE @ corner, atol=1e-9)


@pytest.mark.parametrize("on_host", [False, True])
@pytest.mark.parametrize("batch", [1, 5, 1000])
@pytest.mark.parametrize("size, overlap", [((8, 9, 7), (3, 4, 2)), ((6, 31, 18), (5, 0, 0)), ((32, 12, 20), 4)])
def test_reduced_as_windows_finish_is_reduced_at_the_end(size, overlap, batch, on_host, subject):
    options = dict(overlap_mode="hann", on_host=on_host)
    scores = mj.sliding_window(classes, subject, size, overlap, batch, **options)
    result = mj.sliding_window(classes, subject, size, overlap, batch, reduce=argmax, **options)
    assert isinstance(result, mj.LabelMap) and result.dtype == np.uint8 and len(np.unique(result.data)) == 5
    np.testing.assert_array_equal(result.data, scores.numpy().argmax(0)[None])
    np.testing.assert_array_equal(result.affine, subject.t1.affine)


def test_some_of_the_outputs_reduced():
    subject = small_subject(shape=(24, 32, 16))

    def network(batch):
        return {"all": classes(batch), "coarse": classes(batch)[..., ::2, ::2, ::2], "x": batch["t1"].data}

    reduce = {"all": argmax, "coarse": lambda s: jax.nn.softmax(s, 0)[1:3]}
    for on_host in (False, True):
        result = mj.sliding_window(network, subject, 8, 4, 6, "average", reduce=reduce, on_host=on_host)
        scores = whole(classes, subject)
        np.testing.assert_array_equal(result["all"].data, scores.argmax(0)[None])
        want = np.asarray(jax.nn.softmax(scores[:, ::2, ::2, ::2], 0))[1:3]
        np.testing.assert_allclose(result["coarse"].data, want, rtol=0, atol=1e-5)
        np.testing.assert_allclose(result["x"].data, subject.t1.numpy(), rtol=0, atol=1e-5)


def test_many_classes_are_never_held_whole():
    """The program of 100 classes needs as many planes as a window has, once, not the volume's (MONAI#9071)."""
    from medjax.patches import windows

    subject = mj.Subject(t1=mj.ScalarImage(np.random.default_rng(0).normal(size=(1, 96, 16, 16)).astype(np.float32)))

    def network(batch):
        return jnp.concatenate([batch["t1"].data] * 100, 1)

    held = []
    program = windows.compiled_batches
    full = 100 * 96 * 16 * 16 * 4

    def measured(*arguments):
        memory = program.lower(*arguments).compile().memory_analysis()
        held.append(memory.argument_size_in_bytes + memory.temp_size_in_bytes)
        return program(*arguments)

    windows.compiled_batches = measured
    try:
        mj.sliding_window(network, subject, (12, 16, 16), (4, 0, 0))
        mj.sliding_window(network, subject, (12, 16, 16), (4, 0, 0), reduce=argmax)
    finally:
        windows.compiled_batches = program
    assert held[0] > full and held[1] < full / 6


def test_devices_share_the_windows(subject):
    """Each of the eight devices that are simulated here runs its part of a batch, and the result is that of one."""
    shardings = []

    def network(batch):
        jax.debug.inspect_array_sharding(batch["t1"].data, callback=shardings.append)
        return classes(batch)

    for on_host in (False, True):
        shardings.clear()
        split = mj.sliding_window(network, subject, 8, 2, 16, on_host=on_host)
        assert jax.local_device_count() == 8 and shardings
        assert all(len(s.device_set) == 8 and s.shard_shape((16, 1, 8, 8, 8))[0] == 2 for s in shardings)
        one = mj.sliding_window(classes, subject, 8, 2, 5, on_host=on_host)
        np.testing.assert_allclose(split.data, one.data, rtol=0, atol=1e-6)


def test_a_subject_on_a_device_of_its_own(subject):
    """Arrays that are committed to a device keep the network there."""
    device = jax.devices()[3]
    there = subject.replace(t1=subject.t1.replace(data=jax.device_put(subject.t1.numpy(), device)))
    result = mj.sliding_window(identity, there.replace(label=None), 8, 2, 8)
    np.testing.assert_allclose(result.data, subject.t1.numpy(), rtol=0, atol=1e-5)
    assert result.data.devices() == {device}


def test_a_second_subject_and_other_weights_compile_nothing(subject):
    def network(weights, batch):
        return batch["t1"].data * weights["scale"]

    def run(scale, subject):
        held = jax.tree_util.Partial(network, {"scale": jnp.float32(scale)})
        return mj.sliding_window(held, subject, 8, 2, 4)

    np.testing.assert_allclose(run(2, subject).data, subject.t1.numpy() * 2, rtol=0, atol=1e-5)
    other = small_subject(seed=1, name="other")
    with compilations() as count:
        result = run(3, other)
        assert count() == 0
    np.testing.assert_allclose(result.data, other.t1.numpy() * 3, rtol=0, atol=1e-5)


def test_a_bar_shows_progress_and_changes_nothing(subject, capsys):
    want = mj.sliding_window(classes, subject, 8, 2, 16, reduce=argmax)
    for on_host in (False, True):
        got = mj.sliding_window(classes, subject, 8, 2, 16, reduce=argmax, progress=True, on_host=on_host)
        assert "100%" in capsys.readouterr().err
        np.testing.assert_array_equal(got.data, want.data)


def test_the_whole_way_back_to_the_files_grid(tmp_path):
    """Read, preprocess, predict by windows, invert: the labels lie on the file's grid, at the file's place."""
    affine = oriented("PIR", (1.0, 2.0, 1.5), (20, -30, 11))
    i, j, k = np.indices((28, 20, 24))
    data = np.exp(-((i - 13) ** 2 / 40 + (j - 9) ** 2 / 10 + (k - 12) ** 2 / 20)).astype(np.float32)
    mj.ScalarImage(data[None], affine).save(tmp_path / "t1.nii.gz")
    subject = mj.Subject(t1=mj.ScalarImage(tmp_path / "t1.nii.gz"), name="x")
    pipeline = mj.Compose([mj.ToCanonical(), mj.Resample((1.0, 1.0, 1.0)), mj.Pad(2)])
    params = pipeline.sample(jax.random.key(0), subject)
    ready = pipeline.apply(subject, params)
    assert ready.t1.shape != subject.t1.shape

    def network(batch):
        inside = jax.nn.sigmoid((batch["t1"].data - 0.5) * 40)
        return jnp.concatenate([1 - inside, inside], 1)

    found = mj.sliding_window(network, ready, 12, 4, 4)
    back = pipeline.invert(mj.Subject(prediction=found), params, like=subject, interpolation="linear")["prediction"]
    assert back.spatial_shape == subject.t1.spatial_shape
    np.testing.assert_array_equal(back.affine, subject.t1.affine)
    labels, want = back.numpy().argmax(0), data > 0.5
    assert 2 * (labels & want).sum() / (labels.sum() + want.sum()) > 0.95
    mj.LabelMap(labels[None].astype(np.uint8), back.affine).save(tmp_path / "seg.nii.gz")
    np.testing.assert_allclose(mj.LabelMap(tmp_path / "seg.nii.gz").affine, affine, atol=1e-4)


def test_outputs_that_do_not_fit(subject):
    with pytest.raises(ValueError, match=r"the output of apply_fn must be \(B, K, I, J, K'\)"):
        mj.sliding_window(lambda b: b["t1"].data[0], subject, 8)
    with pytest.raises(ValueError, match=r"output 'a' of apply_fn has patches of \(7, 8, 8\).*patch_size=\(8, 8, 8\)"):
        mj.sliding_window(lambda b: {"a": b["t1"].data[:, :, 1:]}, subject, 8)
    with pytest.raises(ValueError, match=r"the output of apply_fn.*EnsureShapeMultiple"):
        mj.sliding_window(lambda b: b["t1"].data[..., ::2, ::2, ::2], subject, 8)
    with pytest.raises(ValueError, match="reduce"):
        mj.sliding_window(classes, subject, 8, reduce=lambda s: s.argmax(0))
    with pytest.raises(ValueError, match=r"reduce='b' is not one of 'a'"):
        mj.sliding_window(lambda b: {"a": classes(b)}, subject, 8, reduce={"b": argmax})


@pytest.mark.parametrize("size, step", [((24, 24, 24), (1, 1, 1)), ((24, 24, 24), (2, 2, 2)), ((8, 12, 16), (4, 4, 4))])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 8])
def test_channels_that_are_last_are_refused_whatever_their_number(size, step, channels):
    """Though they divide the patch, as 12 x 12 x 2 does of 24."""
    subject = small_subject(shape=size)

    def network(batch):
        x = batch["t1"].data[(slice(None), slice(None), *(slice(None, None, s) for s in step))]
        return jnp.concatenate([x] * channels, 1)

    def flax(batch):
        return jnp.moveaxis(network(batch), 1, -1)

    with pytest.raises(ValueError, match=r"the output of apply_fn must be \(B, K, .*jnp.moveaxis\(out, -1, 1\)"):
        mj.sliding_window(flax, subject, size)
    with pytest.raises(ValueError, match=r"output 'a' of apply_fn must be .*jnp.moveaxis"):
        mj.sliding_window(lambda b: {"a": flax(b)}, subject, size)
    right = mj.sliding_window(lambda b: jnp.moveaxis(flax(b), -1, 1), subject, size)
    assert right.shape == (channels, *(n // s for n, s in zip(size, step)))


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 8, 12, 24])
@pytest.mark.parametrize("step", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (1, 1, 2), (3, 3, 3)])
def test_channels_that_are_first_are_taken_whatever_their_number(channels, step):
    """But for as many as the patch is wide and an output that is coarser along the last axis alone."""
    if channels == 24 and step == (1, 1, 2):
        return
    out = jax.ShapeDtypeStruct((2, channels, *(24 // s for s in step)), np.float32)
    grid = mj.GridSampler(small_subject(shape=(24, 24, 24)), 24)
    assert aggregator_of("", out, grid, "crop").factor == step


def test_an_image_or_an_array_is_a_subject_of_one(subject):
    def network(batch):
        return 2 * batch.image.data

    for x, affine in (
        (subject.t1, OBLIQUE),
        (subject.t1.numpy(), np.eye(4)),
        (jnp.asarray(subject.t1.data), np.eye(4)),
    ):
        got = mj.sliding_window(network, x, 8, 2)
        np.testing.assert_allclose(got.data, 2 * subject.t1.numpy(), atol=1e-5)
        np.testing.assert_array_equal(got.affine, affine)
    for wrong in ("t1.nii", [subject.t1], None):
        with pytest.raises(TypeError, match="a Subject, an Image or an array"):
            mj.sliding_window(network, wrong, 8)
    with pytest.raises(ValueError, match=r"\(C, I, J, K\)"):
        mj.sliding_window(network, subject.t1.numpy()[0], 8)


def test_images_on_different_grids_are_refused(subject):
    turned = mj.ScalarImage(subject.t1.numpy(), np.diag([-1.0, 1, 1, 1]) @ OBLIQUE)
    with pytest.raises(ValueError, match="needs images on one grid"):
        mj.sliding_window(identity, subject.replace(other=turned), 8)


def test_bad_arguments(subject):
    for bad, message in (
        (dict(batch_size=0), "batch_size"), (dict(patch_overlap=8), "patch_overlap"), (dict(overlap_mode="x"), "overlap_mode"),
        (dict(patch_size=0), "patch_size"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            mj.sliding_window(identity, subject, **{"patch_size": 8, **bad})
    with pytest.raises(ValueError, match="no image"):
        mj.sliding_window(identity, mj.Subject(age=3), 8)
    padded = jax.tree.map(lambda x: x[0], mj.stack([subject], shape=(24, 32, 20)))
    with pytest.raises(ValueError, match="unstack"):
        mj.sliding_window(identity, padded, 8)


def test_windows_inside_of_a_compiled_function_and_under_a_gradient():
    x = jnp.asarray(np.random.default_rng(0).random((1, 8, 8, 8)), jnp.float32)

    def network(x):
        return mj.sliding_window(lambda batch: 2 * batch.image.data, x, (4, 4, 4), 2).data

    np.testing.assert_allclose(jax.jit(network)(x), 2 * x, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: network(x).sum())(x), np.full(x.shape, 2.0), atol=1e-5)
