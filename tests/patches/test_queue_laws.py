"""What holds of the queue for every transform and any pipeline: a patch is the box of its volume, transformed with its key."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject
from hypothesis import assume, given
from hypothesis import strategies as st
from transforms.test_properties import AFFINES, INDEXING, RANDOM, RESCALING, few

import medjax as mj
from medjax.errors import UnknownShape
from medjax.transforms.transform import REGISTRY
from tests.test_laws import CASES

KEY = jax.random.key(5)


def compare(pipeline, subject, sampler, n=2):
    """n patches of a subject are boxes of it transformed as a whole, which is another program; the locations."""
    dataset = mj.SubjectsDataset([subject], pipeline)
    (batch,) = mj.PatchQueue(dataset, sampler, n, KEY, samples_per_volume=n, num_threads=1)
    for patch in mj.unstack(batch):
        whole = pipeline(subject, patch["key"])
        low, high = np.asarray(patch[mj.LOCATION]).reshape(2, 3)
        assert (low >= 0).all() and tuple(high - low) == sampler.patch_size
        assert list(patch.images) == list(whole.images)
        for name, image in whole.images.items():
            assert (high <= image.spatial_shape).all()
            expected = image.numpy()[(slice(None), *map(slice, low, high))]
            found = np.asarray(patch[name].data)
            assert found.shape == expected.shape and type(patch[name]) is type(image)
            # Coordinates are float32, 300 mm from the origin: a voxel on the edge of a label may fall on either side.
            apart = np.abs(found.astype(float) - expected)
            assert (apart > 2e-3 * max(np.ptp(image.numpy().astype(float)), 1e-3)).mean() < 0.02, name
            origin = np.asarray(image.affine)[:3, :3] @ low + np.asarray(image.affine)[:3, 3]
            np.testing.assert_allclose(patch[name].affine[:3, 3], origin, atol=1e-3)
    return np.asarray(batch[mj.LOCATION])


TWINS = [name for name in CASES if f"Random{name}" in CASES]
"""What they do, their random forms do as well."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in TWINS else n for n in CASES])
def test_every_transform_goes_through_the_queue(name):
    """Each between others that are random, so that it runs on boxes if it can, which reach the borders.

    Behind a change of shape where its own depends on values.
    """
    case, t = CASES[name], REGISTRY[name](**CASES[name].args)
    cut = mj.CropOrPad((10, 10, 10) if case.cube else (10, 11, 9))
    fixed = [cut] if case.cube or case.reshapes or name in ("Crop", "RandomCrop") else []
    pipeline = mj.Compose([mj.RandomFlip((0, 1)), *fixed, t, *fixed, mj.RandomNoise(p=0.7)])
    subject = small_subject(OBLIQUE, (12, 13, 11))
    shape = pipeline(subject, KEY).t1.spatial_shape
    compare(pipeline, subject, mj.UniformSampler(tuple(n - 2 for n in shape)))


@pytest.mark.parametrize(
    "affine, members",
    [
        (np.eye(4) * (1, 1, 1, 1), [mj.RandomAffine(), mj.Resample(0.5), mj.Blur(1.5)]),
        (np.diag([2.0, 1, 0.5, 1])[:, [2, 0, 1, 3]], [mj.RandomFlip((0, 1, 2)), mj.ToCanonical(p=0.5), mj.Blur((0.5, 1, 2))]),
        (OBLIQUE, [mj.RandomFlip((0, 1)), mj.Resample(0.6, p=0.5), mj.OneOf([mj.Blur(1.2), mj.RandomBlur((0, 0.8))])]),
        (OBLIQUE, [mj.RandomAffine(), mj.RandomGhosting(), mj.Resize((20, 18, 16)), mj.Blur(1.2), mj.Median(3)]),
        (OBLIQUE, [mj.RandomFlip((0,)), mj.CropOrPad(None, mask_name="label"), mj.Resize(12), mj.Blur(1.5), mj.RandomNoise()]),
    ],
)  # fmt: skip
def test_a_margin_is_that_of_the_spacing_a_local_transform_meets(affine, members):
    """Behind a change of spacing or of axes, on a coin or not, and behind one that hangs on a mask."""
    compare(mj.Compose(members), small_subject(affine, (12, 13, 11)), mj.UniformSampler((7, 8, 7)), 4)


# -- any pipeline

VOXELS = {
    "blur": lambda: mj.Blur((1.4, 0.6, 1.0)),
    "random blur": lambda: mj.RandomBlur((0, 1.5)),
    "blur in voxels": lambda: mj.RandomBlur((0, 1.2), units="voxels"),
    "median": lambda: mj.Median(3),
    "sharpen": lambda: mj.RandomSharpen(),
    "noise": lambda: mj.RandomNoise(),
    "gamma": lambda: mj.RandomGamma(),
    "bias": lambda: mj.RandomBiasField(),
    "splines": lambda: mj.RandomBSplineBiasField(4),
    "gradient": lambda: mj.RandomBrightnessGradient(),
    "dropout": lambda: mj.RandomCoarseDropout((2, 4)),
    "ghosts": lambda: mj.RandomGhosting(),
    "normal": lambda: mj.ZNormalization(masking_method="label"),
    "mask": lambda: mj.Mask("label", -0.5),
    "landmarks": lambda: mj.HistogramStandardization({"t1": [[0, 30, 100], [2, 45, 97]]}),
    "labels": lambda: mj.RandomLabelMorphology((1, 3), radius=(0.5, 2)),
}
SPACE = {
    **INDEXING,
    **RESCALING,
    **RANDOM,
    "box of the mask": lambda shape: mj.CropOrPad((12, 11, 10), mask_name="label"),
}
TOGETHER = {
    "all": lambda members: mj.Compose(members, p=0.6),
    "one": lambda members: mj.OneOf(members),
    "some": lambda members: mj.SomeOf(members, num=(0, len(members))),
}


@st.composite
def pipelines(draw):
    """Members of all kinds in any order, some on a coin, some in a group; where a second image is on another grid, one
    that brings them together."""
    shape = (13, 12, 14)
    affine = draw(st.sampled_from(AFFINES))
    names = draw(st.lists(st.sampled_from([*SPACE, *VOXELS]), min_size=2, max_size=5))
    members = [VOXELS[n]() if n in VOXELS else SPACE[n](shape) for n in names]
    for i in range(len(members)):
        if draw(st.integers(0, 3)) == 0:
            members[i] = members[i].replace(p=0.5)
    if draw(st.booleans()):
        first = draw(st.integers(0, len(members) - 2))
        last = draw(st.integers(first + 2, len(members)))
        members[first:last] = [TOGETHER[draw(st.sampled_from(sorted(TOGETHER)))](members[first:last])]
    members.insert(draw(st.integers(0, len(members))), mj.RandomFlip((0, 1, 2)))
    members.append(VOXELS[draw(st.sampled_from(["blur", "random blur", "median", "noise"]))]())
    other = draw(st.sampled_from(["same", "turned", "coarser"]))
    if other != "same":
        together = mj.Resample("t1") if other == "coarser" else mj.ToCanonical()
        members.insert(draw(st.integers(0, 1)), together)
    labelled = draw(st.booleans())
    size = draw(st.sampled_from([(5, 4, 6), (8, 7, 7)]))
    sampler = mj.LabelSampler(size, "label", {1: 1, 3: 2}) if labelled else mj.UniformSampler(size)
    return mj.Compose(members), subject_of(shape, affine, other), sampler


def subject_of(shape, affine, other):
    """An image and its labels, and a second image on the same grid, on it with its axes turned, or on a coarser one."""
    subject = small_subject(affine, shape)
    second = mj.ScalarImage(blobs(shape, 7)[None], affine)
    if other == "turned":
        second = mj.Transpose()(mj.ToOrientation("PIL")(second))
    if other == "coarser":
        second = mj.Resample(tuple(1.6 * s for s in second.spacing))(second)
    return mj.Subject(t1=subject.t1, t2=second, label=subject.label)


REFUSED = (
    "one grid",
    "larger than the images",
    "leaves nothing",
    "no patch of",
    "not fit",
    "are equal",
    "no voxels",
    "no two voxels",
)


def holds(case):
    """The queue gives boxes, or refuses by name: what does not fit, and a shape that hangs on values."""
    pipeline, subject, sampler = case
    try:
        compare(pipeline, subject, sampler)
    except (ValueError, TypeError) as error:
        cause = error
        while cause is not None and not isinstance(cause, UnknownShape):
            cause = cause.__cause__
        if cause is None and not any(text in str(error) for text in REFUSED):
            raise
        assume(False)


@few(4)
@given(pipelines())
def test_patches_of_any_pipeline_are_boxes(case):
    holds(case)


@pytest.mark.long
@few(300)
@given(pipelines())
def test_patches_of_hundreds_of_pipelines_are_boxes(case):
    holds(case)
