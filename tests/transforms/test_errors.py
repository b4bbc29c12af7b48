"""Bad input gets one clear error that names the argument, before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject

import medjax as mj

KEY = jax.random.key(0)
RANDOM = [
    mj.RandomAffine(),
    mj.RandomNoise(),
    mj.RandomFlip(),
    mj.CropOrPad(9, location="random"),
    mj.Gamma(2.0, p=0.5),
]


def called(t):
    return type(t).__name__


def moved(image, by):
    affine = np.asarray(image.affine).copy()
    affine[:3, 3] += by
    return image.replace(affine=affine)


# -- keys


@pytest.mark.parametrize("t", [*RANDOM, mj.Compose([mj.Blur(1), mj.RandomGamma()])], ids=called)
def test_a_random_transform_without_a_key(t):
    for call in (t, t.batch):
        x = small_subject() if call is t else mj.stack([small_subject()] * 2)
        with pytest.raises(TypeError, match=f"{type(t).__name__} draws random numbers, so it needs a key"):
            call(x)


def test_what_is_not_random_needs_none():
    mj.Compose([mj.Flip(0), mj.Gamma(2.0)])(small_subject())


@pytest.mark.parametrize(
    "key, message",
    [
        (0, "int 0"),
        (1.5, "float"),
        ("0", "str"),
        (np.int64(3), "key must be one key"),
        (jax.random.split(KEY, 3), r"one key is due, got an array of keys of shape \(3,\)"),
        (np.zeros(2, np.int32), "int32"),
        (np.zeros(3, np.uint32), r"uint32 and shape \(3,\)"),
        (np.zeros((4, 2), np.uint32), r"shape \(4, 2\)"),
    ],
    ids=str,
)
def test_a_key_of_the_wrong_kind(key, message):
    with pytest.raises(TypeError, match=message):
        mj.RandomGamma()(small_subject(), key)
    with pytest.raises(TypeError, match=r"key"):
        mj.RandomGamma().sample(key, small_subject())


@pytest.mark.parametrize("count", [1, 3])
def test_keys_that_are_not_one_for_each_element(count):
    batch = mj.stack([small_subject()] * 2)
    with pytest.raises(TypeError, match=f"key holds {count} keys for a batch of 2"):
        mj.RandomGamma().batch(batch, jax.random.split(KEY, count))
    with pytest.raises(TypeError, match=r"key"):
        mj.RandomGamma().batch(batch, 7)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_raw_keys_are_taken(impl):
    typed = jax.random.key(3, impl=impl)
    got, want = (mj.RandomGamma()(small_subject(), key) for key in (jax.random.key_data(typed), typed))
    np.testing.assert_array_equal(got.t1.numpy(), want.t1.numpy())
    batch = mj.stack([small_subject()] * 2)
    keys = jax.random.split(typed, 2)
    got, want = (mj.RandomGamma().batch(batch, key) for key in (jax.random.key_data(keys), keys))
    np.testing.assert_array_equal(got.t1.data, want.t1.data)


# -- subjects


@pytest.mark.parametrize(
    "t", [mj.Affine(degrees=5), mj.ToCanonical(), mj.Resample(2.0), mj.Compose([mj.Gamma(2.0), mj.Flip(0)])], ids=called
)
def test_images_that_do_not_overlap(t):
    subject = small_subject()
    subject = subject.replace(label=moved(subject.label, (200, 0, 0)))
    with pytest.raises(ValueError, match=r"t1 and label do not overlap in the world.* mm.*check their affines"):
        t(subject)


def test_one_element_of_a_batch_whose_images_do_not_overlap():
    good = small_subject()
    bad = good.replace(label=moved(good.label, (0, -500, 0)))
    with pytest.raises(ValueError, match=r"t1 and label do not overlap"):
        mj.Affine(degrees=5).batch(mj.stack([good, bad]))


def test_images_that_do_not_move_need_not_overlap():
    subject = small_subject()
    subject = subject.replace(label=moved(subject.label, (200, 0, 0)))
    assert mj.Gamma(2.0)(subject).t1.shape == subject.t1.shape
    assert mj.Affine(degrees=5, include=["t1"])(subject).t1.shape == subject.t1.shape


def test_images_that_barely_overlap_are_taken():
    subject = small_subject(np.eye(4))
    for shift, fits in (((22, 0, 0), True), ((0, 0, -17.5), True), ((23.1, 0, 0), False), ((0, 0, 18.1), False)):
        other = subject.replace(label=moved(subject.label, shift))
        if fits:
            mj.Flip(0)(other)
        else:
            with pytest.raises(ValueError, match=r"overlap"):
                mj.Flip(0)(other)


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_name_that_is_no_image_of_the_subject(option):
    t = mj.Compose([mj.Blur(1), mj.Gamma(2.0, **{option: ["t1", "flair"]})])
    for call in (t, jax.jit(t)):
        with pytest.raises(ValueError, match=r"Gamma names image 'flair'; the subject has t1, label"):
            call(small_subject())


def test_names_that_are_no_sequence_of_names():
    with pytest.raises(TypeError, match=r"include must be a sequence of image names, got 't1'"):
        mj.Gamma(2.0, include="t1")
    with pytest.raises(TypeError, match=r"exclude"):
        mj.Gamma(2.0, exclude=[1])
    with pytest.raises(ValueError, match=r"include or exclude, not both"):
        mj.Gamma(2.0, include=["t1"], exclude=["label"])
    with pytest.raises(TypeError, match=r"keep"):
        mj.Gamma(2.0, keep={"t1": 3})
    with pytest.raises(ValueError, match=r"'flair'"):
        mj.Gamma(2.0, keep={"flair": "old"})(small_subject())


def test_a_kept_copy_is_an_image_from_then_on():
    """It is what the image was before, for spatial transforms too, and later members reach it by its name."""
    subject = small_subject()
    got = mj.Flip(0, keep={"t1": "old"})(subject)
    np.testing.assert_array_equal(got.old.numpy(), subject.t1.numpy())
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy()[:, ::-1])
    t = mj.Compose([mj.Flip(0, keep={"t1": "old"}), mj.Gamma(2.0, include=["old"])])
    np.testing.assert_allclose(t(subject).old.numpy(), subject.t1.numpy() ** 2, atol=1e-6)


MASKED = [mj.ZNormalization("brain"), mj.RescaleIntensity(masking_method="brain"), mj.CropOrPad(9, mask_name="brain")]


@pytest.mark.parametrize("t", MASKED, ids=called)
def test_a_mask_name_that_is_no_label_map_of_the_subject(t):
    for brain in (None, small_subject().t1):
        with pytest.raises(ValueError, match=r"mask.*='brain' is no label map of the subject.*'label'"):
            t(small_subject() if brain is None else small_subject().replace(brain=brain))


EMPTY = [mj.ZNormalization("label"), mj.RescaleIntensity(masking_method="label"), mj.CropOrPad(9, mask_name="label")]


@pytest.mark.parametrize("t", EMPTY, ids=called)
def test_an_empty_mask(t):
    subject = small_subject()
    subject = subject.replace(label=subject.label.replace(data=np.zeros_like(subject.label.data)))
    with pytest.raises(ValueError, match=r"mask 'label' has no"):
        t(subject)


def test_an_empty_mask_in_a_batch_says_where():
    good = small_subject()
    bad = good.replace(label=good.label.replace(data=np.zeros_like(good.label.data)))
    for t in (mj.ZNormalization("label"), mj.CropOrPad((9, 9, 9), mask_name="label")):
        with pytest.raises(ValueError, match=r"element 1.*mask 'label' has no|mask 'label' has no.*element 1"):
            t.batch(mj.stack([good, bad]))


def test_labels_that_no_voxel_of_the_mask_has():
    with pytest.raises(ValueError, match=r"mask 'label' with labels \(7,\) has no voxels"):
        mj.CropOrPad(9, mask_name="label", labels=[7])(small_subject())


def test_voxels_without_variance():
    subject = small_subject()
    with pytest.raises(ValueError, match=r"t1 are all equal"):
        mj.ZNormalization()(subject.replace(t1=subject.t1.replace(data=np.ones_like(subject.t1.data))))


# -- what is no subject


@pytest.mark.parametrize(
    "x, kind",
    [
        ("t1.nii.gz", TypeError),
        (3, TypeError),
        (None, TypeError),
        ([blobs()], TypeError),
        (blobs(), ValueError),
        ({"t1": blobs()}, ValueError),
        ({"t1": 3}, ValueError),
        (mj.Subject(age=3), ValueError),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_subject_image_or_array(x, kind):
    with pytest.raises(kind, match=r"Subject, an Image, an array|must be an array|has no images"):
        mj.Flip(0)(x)


def test_labels_of_a_dict_that_are_not_there():
    with pytest.raises(ValueError, match=r"labels names 'seg', which is not among 'image'"):
        mj.Flip(0)({"image": blobs()[None]}, labels=["seg"])


def forms(subjects):
    """A batch, or with one subject that one, as a subject, an image, an array and a dictionary of arrays."""
    x = subjects[0] if len(subjects) == 1 else mj.stack(subjects)
    return {"subject": x, "image": x.t1, "array": x.t1.numpy(), "dictionary": {"t1": jnp.asarray(x.t1.numpy())}}


DOORS = {
    "call": lambda t, x: t(x, jax.random.key(0)),
    "sample": lambda t, x: t.sample(jax.random.key(0), x),
    "apply": lambda t, x: t.apply(x, t.sample(jax.random.key(0), small_subject())),
    "invert": lambda t, x: t.invert(x, t.sample(jax.random.key(0), small_subject()), like=small_subject()),
    "jit": lambda t, x: jax.jit(t)(x, jax.random.key(0)),
}
ONE_OF_EACH_KIND = [mj.ZNormalization(), mj.Clamp(0, 50), mj.Affine(degrees=3), mj.CropOrPad(8), mj.RemoveLabels([1])]


@pytest.mark.parametrize("form", forms([small_subject()]))
@pytest.mark.parametrize("door", DOORS)
def test_a_batch_where_one_subject_is_due(door, form):
    batch = forms([small_subject(), small_subject()])[form]
    for t in ONE_OF_EACH_KIND if door == "call" else ONE_OF_EACH_KIND[:1]:
        with pytest.raises(ValueError, match=r"this is a batch of 2: use pipeline.batch\("):
            DOORS[door](t, batch)


@pytest.mark.parametrize("form", forms([small_subject()]))
@pytest.mark.parametrize("transformed", [lambda t, x: t.batch(x), lambda t, x: jax.jit(t.batch)(x)], ids=["", "jit"])
def test_one_subject_where_a_batch_is_due(form, transformed):
    for t in ONE_OF_EACH_KIND:
        with pytest.raises(ValueError, match=r"this is one subject: call it, pipeline\(subject, key\)"):
            transformed(t, forms([small_subject()])[form])


def test_batches_are_told_from_subjects_by_their_affines_too_and_files_are_not_read():
    one, batch = small_subject().t1, mj.stack([small_subject()] * 2).t1
    with pytest.raises(ValueError, match=r"batch of 2.*the affine of image is \(2, 4, 4\)"):
        mj.Flip(0)(mj.ScalarImage.of(one.data, batch.affine))
    with pytest.raises(ValueError, match=r"one subject.*the affine of image is \(4, 4\)"):
        mj.Flip(0).batch(mj.ScalarImage.of(batch.data, one.affine))
    with pytest.raises(ValueError, match=r"one subject.*t1 is what a file holds"):
        mj.Flip(0).batch(mj.Subject(t1=mj.ScalarImage("absent.nii")))


def test_under_vmap_an_element_is_one_subject():
    batch = mj.stack([small_subject(seed=i) for i in range(2)])
    got = jax.vmap(mj.ZNormalization())(batch).t1.data
    want = [(x - x.mean()) / x.std(ddof=1) for x in np.asarray(batch.t1.data, np.float64)]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_what_is_no_batch():
    with pytest.raises(ValueError, match="the array must be an array"):
        mj.Flip(0).batch(blobs())
    with pytest.raises(ValueError, match="not a batch"):
        mj.Flip(0).batch({"a": blobs()[None, None], "b": np.stack([blobs()[None]] * 2)})


# -- arguments


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mj.Affine(scales=(1, -1, 1)), "scales must be at least"),
        (lambda: mj.Affine(scales=0), "scales"),
        (lambda: mj.RandomAffine(scales=-0.1), "scales must not be negative"),
        (lambda: mj.RandomAffine(scales=1.5), "scales"),
        (lambda: mj.RandomAffine(scales=(-0.5, 1)), "scales"),
        (lambda: mj.RandomAffine(degrees=-3), "degrees"),
        (lambda: mj.RandomAffine(degrees=(3, 1)), "degrees has low > high"),
        (lambda: mj.RandomBlur((2, 1)), "std has low > high"),
        (lambda: mj.RandomAffine(translation=(0, 1, 2, 1, 0, 1)), "translation has low > high"),
        (lambda: mj.RandomGamma((1, 0)), "log_gamma has low > high"),
        (lambda: mj.RandomBlur(-1), "std"),
        (lambda: mj.RandomAffine(degrees=(1, 2, 3, 4)), "degrees must be a number, a pair, three numbers or six"),
        (lambda: mj.RandomGamma((1, 2, 3)), "log_gamma must be a number or a pair"),
        (lambda: mj.RandomAffine(degrees=np.nan), "degrees must be finite"),
        (lambda: mj.Gamma(np.inf), "gamma must be finite"),
        (lambda: mj.Gamma(2, p=1.1), "p must be at most 1"),
        (lambda: mj.RandomFlip(p=-0.1), "p must be at least 0"),
        (lambda: mj.Resample(1, p=2), "p must be at most 1"),
        (lambda: mj.RandomFlip(flip_probability=2), "flip_probability"),
        (lambda: mj.Affine(center="middle"), "center='middle' is not one of 'image', 'origin'"),
        (lambda: mj.Affine(image_interpolation="liner"), "image_interpolation.* Did you mean 'linear'"),
        (lambda: mj.Affine(default_pad_value="minimun"), "default_pad_value.* Did you mean 'minimum'"),
        (lambda: mj.Affine(default_pad_value=np.inf), "default_pad_value"),
        (lambda: mj.Blur((1, 2)), "std must be one number"),
    ],
)
def test_numbers_and_names_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mj.RandomAffine(degrees="ten"), "degrees must be made of numbers"),
        (lambda: mj.Affine(default_pad_value=[1]), "default_pad_value must be a number or a name"),
        (lambda: mj.RandomAffine(degree=3), "degree"),
        (lambda: mj.Gamma(gama=3), "gama"),
        (lambda: mj.BiasField(), "coefficients"),
        (lambda: mj.Compose([mj.Flip(0), blobs]), "transforms must hold transforms.* Lambda"),
        (lambda: mj.Compose(3), "transforms"),
    ],
)
def test_arguments_of_the_wrong_type_or_misspelt(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_choices_that_belong_to_the_members_of_a_pipeline():
    with pytest.raises(ValueError, match=r"members of Compose"):
        mj.Compose([mj.Flip(0)], include=["t1"])


# -- shapes that depend on values

OPEN = [
    mj.Resample(1.3),
    mj.ToCanonical(),
    mj.CropOrPad(mask_name="label"),
    mj.CropOrPad((9, 9, 9), units="mm"),
    mj.Compose([mj.CropOrPad((9, 9, 9)), mj.Gamma(2.0), mj.Resample(2.0)]),
]


@pytest.mark.parametrize("t", OPEN, ids=called)
def test_a_final_shape_that_depends_on_values_under_jit(t):
    message = "the shape after .* depends on values .* end the run with a fixed shape, as CropOrPad"
    with pytest.raises(TypeError, match=message):
        jax.jit(t)(small_subject())
    with pytest.raises(TypeError, match=message):
        jax.jit(jax.vmap(t))(mj.stack([small_subject()] * 2))


def test_the_same_with_a_fixed_shape_at_the_end_is_taken():
    t = mj.Compose([mj.ToCanonical(), mj.Resample(1.3), mj.CropOrPad((9, 10, 11))])
    assert jax.jit(t)(small_subject()).t1.shape == (1, 9, 10, 11)


def test_a_result_without_voxels():
    with pytest.raises(ValueError, match=r"no voxels.*target spacing is larger than the image"):
        mj.Resample(500.0)(mj.ScalarImage(blobs()[None], OBLIQUE))


# -- configuration


@pytest.mark.parametrize(
    "config, message",
    [
        ({"name": "RandomAfine"}, "no transform 'RandomAfine'. Did you mean 'RandomAffine'"),
        ({"name": "RandomAffine", "degree": 3}, "RandomAffine has no argument 'degree'.*Did you mean 'degrees'"),
        ({"name": "Compose", "transforms": [{"name": "Gama", "gamma": 2}]}, "Did you mean 'Gamma'"),
        ({"degrees": 3}, "dictionary with 'name'"),
        (["RandomAffine"], "dictionary"),
        ({"name": "Gamma", "gamma": -1}, "gamma"),
    ],
)
def test_configurations_that_make_no_sense(config, message):
    with pytest.raises(ValueError, match=message):
        mj.from_config(config)


def test_a_function_that_no_configuration_can_hold():
    with pytest.raises(ValueError, match=r"masking_method holds .* define it in a module"):
        mj.to_config(mj.ZNormalization(lambda x: x > 0))


# -- space


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mj.Resize(0), r"target_shape must be one positive size or three \(-1 keeps an axis\), got 0"),
        (lambda: mj.Resize((4, -2, 4)), r"target_shape must be .* got \(4, -2, 4\)"),
        (lambda: mj.Resize((4, 4)), "target_shape"),
        (lambda: mj.Resize(2.5), "target_shape"),
        (lambda: mj.CropOrPad(0), "target_shape must be one positive size or three .* got 0"),
        (lambda: mj.CropOrPad((4, -1, 4)), "target_shape"),
        (lambda: mj.Resample(((4, 0, 4), np.eye(4))), r"the shape of target must be positive, got \(4, 0, 4\)"),
        (lambda: mj.Resample(((4, 4, 4), np.zeros((4, 4)))), "the affine of target is singular"),
        (lambda: mj.RandomCrop(0), "size must be one or three whole numbers of at least 1, got 0"),
        (lambda: mj.RandomCrop((4, 4)), "size"),
        (lambda: mj.RandomCrop(4, labels=[1]), "labels selects values of a label map: give label_name"),
        (lambda: mj.EnsureShapeMultiple(0), "target_multiple must be .* at least 1, got 0"),
        (lambda: mj.EnsureShapeMultiple((4, 0, 4)), "target_multiple"),
        (lambda: mj.EnsureShapeMultiple(4, method="padd"), "method='padd' .* Did you mean 'pad'"),
        (lambda: mj.Crop(-1), "cropping must be one, three or six whole numbers of voxels >= 0, got -1"),
        (lambda: mj.Crop((1, 2)), "cropping"),
        (lambda: mj.Pad((1, 2, 3, 4)), "padding must be one, three or six"),
        (lambda: mj.Pad(1.5), "padding"),
        (lambda: mj.Pad(1, "reflct"), "padding_mode='reflct' .* Did you mean 'reflect'"),
        (lambda: mj.Pad(1, np.nan), "padding_mode"),
        (lambda: mj.ToOrientation("RLS"), "orientation must hold one of L/R, one of P/A and one of I/S.* got 'RLS'"),
        (lambda: mj.ToOrientation("XYZ"), "orientation"),
        (lambda: mj.Affine(shears=(1, 0, 1, 0, 0, 0)), r"shears=\[1.*\] fold the world"),
        (lambda: mj.RandomAffine(shears=0.5), "shears must be at (most|least)"),
        (lambda: mj.RandomAffine(shears=(0.1, -0.1)), "shears has low > high"),
        (lambda: mj.Affine(order="objct"), "order='objct' .* Did you mean 'object'"),
    ],
)  # fmt: skip
def test_grids_and_maps_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "t, message",
    [
        (mj.Crop((12, 0, 0)), r"cropping=\(12, 12, 0, 0, 0, 0\) leaves nothing of an image of shape \(23, 31, 18\)"),
        (mj.Compose([mj.Crop((6, 0, 0)), mj.Crop((6, 0, 0))]), r"leaves nothing of an image of shape \(11, 31, 18\)"),
        (mj.Compose([mj.Resize(5), mj.Crop(3)]), r"leaves nothing of an image of shape \(5, 5, 5\)"),
        (mj.RandomCrop(24), r"size=\(24, 24, 24\) does not fit into .* \(23, 31, 18\); pad it first, by CropOrPad"),
        (mj.RandomCrop(24, label_name="label"), "does not fit into an image"),
        (mj.Compose([mj.Affine(degrees=5), mj.Crop((0, 2, 0)), mj.RandomCrop(28)]), r"shape \(23, 27, 18\)"),
        (mj.RandomCrop(4, label_name="t1"), r"label_name='t1' is no label map of the subject, which has \['label'\]"),
        (mj.CopyAffine("flair"), "target='flair' is no image of the subject, which has t1, label"),
        (mj.Resample("flair"), "target='flair' is no file and no image of the subject, which has t1, label"),
        (mj.Resample(((9, 9, 9), np.eye(4))), "the target of Resample and t1 do not overlap in the world"),
        (mj.Resample((1, 2, 40)), "no voxels.*the target spacing is larger than the image"),
        (mj.Pad(1, -1), "a fill of -1 does not fit label map 'label' of uint8"),
        (mj.EnsureShapeMultiple(8, padding_mode=0.5), "a fill of 0.5 does not fit label map 'label'"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, mj.Transform) else "",
)
def test_grids_that_a_subject_cannot_have(t, message):
    with pytest.raises(ValueError, match=message):
        t(small_subject(), KEY)


def test_crops_larger_than_the_image_are_refused_under_jit_and_in_batches_too():
    batch = mj.stack([small_subject()] * 2)
    for t, message in ((mj.Crop((12, 0, 0)), "leaves nothing"), (mj.RandomCrop(24), "does not fit")):
        with pytest.raises(ValueError, match=message):
            jax.jit(t)(small_subject(), KEY)
        with pytest.raises(ValueError, match=message):
            t.batch(batch, KEY)


def test_images_that_are_cropped_at_one_place_must_share_a_grid():
    subject = small_subject()
    with pytest.raises(ValueError, match=r"RandomCrop needs images on one grid, but 't1' .* 'label'.*Resample\('t1'\)"):
        mj.RandomCrop(5)(subject.replace(label=moved(subject.label, (1, 0, 0))), KEY)


@pytest.mark.parametrize(
    "t", [mj.Crop(1), mj.Compose([mj.Affine(degrees=5), mj.Crop((1, 2, 0))]), mj.Resize(12), mj.ToOrientation("PIR")],
    ids=called,
)  # fmt: skip
def test_a_prediction_of_the_wrong_shape_is_not_brought_back(t):
    """Nor is an image whose shape is that of the input, which the pipeline has changed."""
    subject = small_subject()
    params, end = t.sample(None, subject), t(subject).t1.spatial_shape
    for shape in ((23, 31, 18), (7, 7, 7)):
        wrong = mj.LabelMap(np.zeros((1, *shape), np.uint8))
        message = (
            rf"image has shape \({shape[0]}, {shape[1]}, {shape[2]}\), but the pipeline ends in .*{end[0]}, {end[1]}"
        )
        with pytest.raises(ValueError, match=message):
            t.invert(wrong, params, like=subject)
    right = mj.LabelMap(np.zeros((1, *end), np.uint8))
    assert t.invert(right, params, like=subject).spatial_shape == (23, 31, 18)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda two: mj.OneOf({two[0]: 1, two[1]: -1}), "weights"),
        (lambda two: mj.OneOf(two, weights=(1, np.nan)), "weights"),
        (lambda two: mj.OneOf({two[0]: 0, two[1]: 0}), "weights must not all be 0"),
        (lambda two: mj.SomeOf(two, num=(0, 3)), r"num=\[0.0, 3.0\] exceeds the 2 transforms"),
        (lambda two: mj.SomeOf(two, num=(2, 1)), "num must be a whole number"),
        (lambda two: mj.SomeOf(two, num=-1), "num"),
        (lambda two: mj.SomeOf(two, num=(1, 1.5)), "num"),
    ],
)
def test_choices_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make([mj.Flip(0), mj.Blur(1)])
