"""The way back: grids exactly, content within interpolation, intensities by formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject
from scipy.ndimage import gaussian_filter, map_coordinates

import medjax as mj

KEY = jax.random.key(4)
SHAPE = (24, 21, 18)
MILD = np.diag([1.0, 1.2, 0.9, 1.0])
MILD[:3, 3] = (-20, 40, 7)


def smooth(affine=MILD, seed=0):
    """A smooth volume that is 0 near its border, and a label map of it."""
    data = gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 3)
    window = np.zeros(SHAPE)
    window[6:-6, 6:-6, 6:-6] = 1
    data = (data / np.abs(data).max() + 1) * gaussian_filter(window, 1.5)
    label = (data > 0.5).astype(np.uint8) * 2
    return mj.Subject(
        t1=mj.ScalarImage(data[None].astype(np.float32), affine), label=mj.LabelMap(label[None], affine), age=3
    )


def back(pipeline, subject, key=KEY, **options):
    params = pipeline.sample(key, subject)
    return pipeline.invert(pipeline.apply(subject, params), params, like=subject, **options)


@pytest.mark.parametrize(
    "pipeline",
    [
        mj.ToOrientation("PIL"),
        mj.Transpose(),
        mj.Pad((1, 2, 3)),
        mj.RandomFlip((0, "AP", 2), flip_probability=0.7),
        mj.CopyAffine("label"),
        mj.Compose([mj.RandomFlip((0, 1)), mj.ToOrientation("LSA"), mj.Pad(3), mj.Transpose()]),
    ],
    ids=lambda t: type(t).__name__,
)
def test_indexing_comes_back_bit_for_bit(pipeline):
    subject = small_subject(OBLIQUE, SHAPE)
    result = back(pipeline, subject)
    for name in ("t1", "label"):
        assert result[name].dtype == subject[name].dtype
        np.testing.assert_array_equal(result[name].numpy(), subject[name].numpy())
        np.testing.assert_array_equal(result[name].affine, subject[name].affine)


@pytest.mark.parametrize("t", [mj.Crop((2, 1, 3)), mj.CropOrPad((10, 30, 12)), mj.RandomCrop((9, 10, 11))])
def test_what_was_cut_off_is_zero(t):
    subject = small_subject(OBLIQUE, SHAPE)
    params = t.sample(KEY, subject)
    result = t.invert(t.apply(subject, params), params, like=subject)
    ones = subject.replace(t1=subject.t1.replace(data=np.ones_like(subject.t1.data)))
    shown = t.invert(t.apply(ones, params), params, like=ones).t1.numpy() == 1
    assert 0 < shown.mean() < 1
    np.testing.assert_array_equal(result.t1.numpy(), np.where(shown, subject.t1.numpy(), 0))


@pytest.mark.parametrize(
    "pipeline",
    [
        mj.RandomAffine(scales=0.1, degrees=10, translation=1),
        mj.RandomElasticDeformation(num_control_points=5, max_displacement=2.0),
        mj.Compose([mj.RandomElasticDeformation(num_control_points=6, max_displacement=1.0), mj.RandomAffine()]),
        mj.Compose([mj.Resample(0.8), mj.RandomAffine(p=0.5), mj.RandomFlip(), mj.CropOrPad((30, 30, 26))]),
        pytest.param(
            mj.RandomAffineElasticDeformation(False, elastic_kwargs=dict(max_displacement=0.5)),
            marks=pytest.mark.long,
        ),
    ],
)
def test_maps_come_back(pipeline):
    subject = smooth()
    result = back(pipeline, subject, interpolation="linear")
    np.testing.assert_array_equal(result.t1.affine, subject.t1.affine)
    assert np.abs(result.t1.numpy() - subject.t1.numpy()).max() < 0.1  # interpolated twice; not brought back it is 0.4
    assert (result.label.numpy() != subject.label.numpy()).mean() < 0.02
    assert result.age == 3


def test_elastic_inverse_is_a_hundredth_of_a_voxel_away():
    """Coordinates, deformed and brought back: a linear image shows where each voxel was read, to interpolation."""
    shape = (40, 40, 40)
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij"))
    subject = mj.Subject(x=mj.ScalarImage(grid))
    t = mj.RandomElasticDeformation(num_control_points=7, max_displacement=4.0, default_pad_value="edge")
    params = t.sample(KEY, subject)
    moved = t.apply(subject, params).x.numpy()
    result = t.invert(mj.Subject(x=mj.ScalarImage(moved)), params, like=subject).x.numpy()
    inner = (slice(None), *(slice(6, -6),) * 3)
    assert np.abs(moved - grid)[inner].max() > 1
    # Linear interpolation of the deformed coordinates adds their curvature; the map itself is checked through points.
    assert np.abs(result - grid)[inner].max() < 0.1
    points = mj.Points(grid[inner].reshape(3, -1).T)
    there = t.apply(mj.Subject(x=subject.x, p=points), params)
    again = t.invert(there, params, like=mj.Subject(x=subject.x, p=points))
    assert np.abs(np.asarray(again.p.xyz) - points.xyz).max() < 0.01


def test_a_prediction_goes_back_to_the_grid_of_the_file():
    subject = smooth(OBLIQUE)
    pipeline = mj.Compose([mj.ToCanonical(), mj.Resample(1.2), mj.CropOrPad((26, 36, 30)), mj.ZNormalization()])
    params = pipeline.sample(KEY, subject)
    ready = pipeline.apply(subject, params)
    prediction = mj.Subject(seg=mj.LabelMap((ready.label.numpy() == 2).astype(np.int16), ready.label.affine))
    result = pipeline.invert(prediction, params, like=subject)
    assert result.seg.dtype == np.int16 and result.seg.shape == subject.label.shape
    np.testing.assert_array_equal(result.seg.affine, subject.label.affine)
    a, b = result.seg.numpy() == 1, subject.label.numpy() == 2
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9
    array = pipeline.invert(np.ones((3, 26, 36, 30), np.float32), params, like=subject)
    assert array.shape == (3, *SHAPE)


def test_intensities_come_back_by_formula():
    subject = small_subject(OBLIQUE, SHAPE)
    pipeline = mj.Compose(
        [
            mj.RescaleIntensity((0, 2)),
            mj.RandomGamma(p=0.5),
            mj.RandomBiasField(),
            mj.RandomNoise(),
            mj.RandomFlip((0, 1, 2)),
            mj.ZNormalization("label"),
        ]
    )
    for key in jax.random.split(KEY, 3):
        result = back(pipeline, subject, key)
        np.testing.assert_allclose(result.t1.numpy(), subject.t1.numpy(), atol=2e-5)


def test_a_mask_is_found_again():
    subject = small_subject(OBLIQUE, SHAPE)
    t = mj.Compose([mj.RandomFlip((0, 1)), mj.CropOrPad((8, 8, 8), mask_name="label", labels=3)])
    params = t.sample(KEY, subject)
    cropped = t.apply(subject, params)
    result = t.invert(cropped, params, like=subject)
    np.testing.assert_array_equal(result.t1.affine, subject.t1.affine)
    shown = result.t1.numpy() != 0
    np.testing.assert_array_equal(result.t1.numpy()[shown], subject.t1.numpy()[shown])
    assert shown.sum() == (cropped.t1.numpy() != 0).sum()


def test_under_jit_and_vmap():
    subjects = [small_subject(OBLIQUE, SHAPE, seed) for seed in range(3)]
    t = mj.Compose([mj.RandomAffine(), mj.RandomFlip(), mj.CropOrPad((20, 20, 20)), mj.RandomGamma()])
    keys = jax.random.split(KEY, 3)
    batch = mj.stack(subjects)
    params = jax.vmap(t.sample)(keys, batch)

    def there_and_back(subject, params):
        return t.invert(t.apply(subject, params), params, like=subject)

    together = jax.jit(jax.vmap(there_and_back))(batch, params)
    for i, subject in enumerate(subjects):
        alone = there_and_back(subject, jax.tree.map(lambda leaf, i=i: leaf[i], params))
        np.testing.assert_allclose(together.t1.data[i], alone.t1.numpy(), atol=1e-4)


def test_a_shape_that_is_not_the_end_of_the_pipeline():
    subject, t = small_subject(OBLIQUE, SHAPE), mj.CropOrPad((10, 10, 10))
    params = t.sample(KEY, subject)
    with pytest.raises(ValueError, match=r"pred has shape .*12.*ends in .*10"):
        t.invert(mj.Subject(pred=mj.ScalarImage(np.zeros((1, 12, 12, 12)))), params, like=subject)


def test_a_kept_copy_goes_back_too():
    subject = small_subject(OBLIQUE, SHAPE)
    t = mj.Compose([mj.RandomFlip((0, 1, 2), flip_probability=1), mj.RandomGamma(keep={"t1": "plain"}), mj.Transpose()])
    result = back(t, subject)
    np.testing.assert_array_equal(result.plain.numpy(), subject.t1.numpy())


def test_tta_is_the_mean_of_what_is_seen():
    subject = smooth()
    pipeline = mj.Compose([mj.RandomFlip((0, 1, 2)), mj.Pad(2)])
    keys = jax.random.split(KEY, 4)

    def apply_fn(batch):
        data = jnp.asarray(batch.t1.data)
        return jnp.concatenate([data, -2 * data, 0 * data], 1)

    mean = mj.tta(apply_fn, subject, pipeline, keys)
    data = subject.t1.numpy()
    expected = jax.nn.softmax(np.concatenate([data, -2 * data, 0 * data]), 0)
    assert isinstance(mean, mj.ScalarImage) and mean.shape == (3, *SHAPE)
    np.testing.assert_array_equal(mean.affine, subject.t1.affine)
    np.testing.assert_allclose(mean.numpy(), expected, atol=1e-6)


def test_tta_leaves_out_copies_that_do_not_show_a_voxel():
    subject = smooth()
    pipeline = mj.RandomCrop((12, 12, 12))
    keys = jax.random.split(KEY, 5)
    mean = mj.tta(lambda batch: jnp.zeros((5, 2, 12, 12, 12)), subject, pipeline, keys).numpy()
    values = np.unique(np.round(mean, 5))
    np.testing.assert_array_equal(values, [0, 0.5])
    with pytest.raises(ValueError, match="apply_fn must give logits"):
        mj.tta(lambda batch: jnp.zeros((5, 2, 12, 12)), subject, pipeline, keys)


@pytest.mark.parametrize("interpolation", [None, "nearest", "linear", "cubic"])
def test_a_label_map_comes_back_with_labels_that_it_had(interpolation):
    """Whatever is asked of images: 'cubic' would make values that are no labels."""
    labels = np.zeros((1, 20, 20, 20), np.uint8)
    labels[0, 5:15, 5:15, 5:15], labels[0, 8:12, 8:12, 8:12] = 1, 7
    subject = mj.Subject(t1=mj.ScalarImage(labels.astype(np.float32)), label=mj.LabelMap(labels))
    for t in (mj.RandomAffine(degrees=8), mj.Resample(1.3), mj.Flip(0)):
        result = back(t, subject, interpolation=interpolation)
        assert set(np.unique(result.label.numpy())) == {0, 1, 7}
        assert (result.label.numpy() != labels).mean() < 0.05


def test_points_through_a_flow_are_where_it_takes_the_image():
    """The flow is evaluated at where the points have come to: it must give where they were."""
    n = 40
    points = np.random.default_rng(0).uniform(12, 28, (100, 3)).astype(np.float32)
    subject = mj.Subject(x=mj.ScalarImage(np.zeros((1, n, n, n), np.float32)), p=mj.Points(points))
    t = mj.RandomDiffeomorphicDeformation(4, (8, 8))
    params = t.sample(jax.random.key(1), subject)
    there = t.apply(subject, params)
    moved = np.asarray(there.p.xyz)
    assert np.abs(moved - points).max() > 8
    velocity = np.moveaxis(np.asarray(params["draw"]["velocity"], float), 3, 0)
    assert np.abs(flowed(velocity, 48, moved.T * 48 / n) * n / 48 - points.T).max() < 0.02
    again = t.invert(there, params, like=subject)
    assert np.abs(np.asarray(again.p.xyz) - points).max() < 0.02


def flowed(velocity, lattice, index):
    """Scaling and squaring in float64 by SciPy, on the lattice and read linearly, as the transform says."""
    grid = np.indices((lattice,) * 3).astype(float)
    at = grid * velocity.shape[1] / lattice
    steps = np.stack([map_coordinates(v, at, order=1, mode="nearest") for v in velocity])
    field = steps * (lattice / 40) / 128
    for _ in range(7):
        field = field + np.stack([map_coordinates(f, grid + field, order=1, mode="nearest") for f in field])
    return index + np.stack([map_coordinates(f, index, order=1, mode="nearest") for f in field])


def test_a_copy_that_a_coin_left_out_goes_back_as_what_it_was():
    subject = small_subject(OBLIQUE, SHAPE)
    noise, gamma = (t(keep={"t1": "before"}) for t in (mj.RandomNoise, mj.RandomGamma))
    for t in (mj.OneOf([noise, gamma]), mj.Compose([noise, mj.Flip(1), mj.RandomNoise(keep={"t1": "before"}, p=1.0)])):
        for key in jax.random.split(KEY, 3):
            params = t.sample(key, subject)
            result = t.invert(t.apply(subject, params), params, like=subject)
            if isinstance(t, mj.OneOf):
                np.testing.assert_array_equal(result.before.numpy(), subject.t1.numpy())
            else:  # noise is drawn again from its params, and taken off
                np.testing.assert_allclose(result.before.numpy(), subject.t1.numpy(), atol=1e-5)
