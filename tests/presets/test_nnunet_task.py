"""nnU-Net's label maps: regions, the label to ignore, the mask of normalisation, the cascade; and DA5's turns."""

import jax
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from conftest import small_subject
from scipy.stats import chisquare, kstest

import medjax as mj
from medjax.transforms.program import flatten, runs_of

N = 2000
KEYS = jax.random.split(jax.random.key(11), N)
REGIONS = ((1, 3), 3)
# What a task asks for, both presets do by the same members: the longer list is compiled when asked.
PRESETS = [mj.presets.nnunet, pytest.param(mj.presets.nnunet_da5, marks=pytest.mark.long)]


def cube(dtype=np.uint8, seed=0):
    s = small_subject(np.diag([1.0, 1.0, 3.0, 1.0]), (24, 24, 24), seed)
    label = s.label.replace(data=s.label.numpy().astype(dtype))
    return s.replace(label=label, previous=label)


def members(t, *names):
    return [m for m in t.members if type(m).__name__ in names]


def only(t, *names):
    """The preset without its intensities, which cost the time to compile; those named are kept, and certain."""

    def kept(m):
        return m.spatial or m.labels_only or (m.group and all(c.spatial for c in m.members))

    steps = [m.replace(p=1.0) if type(m).__name__ in names else m for m in t.members if kept(m)
             or type(m).__name__ in names]  # fmt: skip
    return t.replace(transforms=steps)


@pytest.mark.parametrize("make", PRESETS)
def test_regions_of_every_target_are_those_of_batchgenerators(make):
    s, arguments = cube(), dict(classes=(1, 3), deep_supervision=(1, 0.5))
    plain, regions = only(make(16, **arguments)), only(make(16, **arguments, regions=REGIONS))
    ignoring = only(make(16, deep_supervision=(1, 0.5), regions=(3,), ignore_label=1))
    for key in KEYS[:2]:
        before, after = plain(s, key), regions(s, key)
        peer = ConvertSegmentationToRegionsTransform(REGIONS)
        for name in ("label", "label_1"):
            x = torch.from_numpy(before[name].numpy().astype(np.int16))
            np.testing.assert_array_equal(after[name].numpy(), peer(segmentation=x)["segmentation"].numpy())
            assert after[name].dtype == np.uint8
    out = ignoring(s, KEYS[0])
    assert out.label.shape == (2, 16, 16, 16) and out.label_1.shape == (2, 8, 8, 8)
    assert members(ignoring, "Regions")[-1].regions == ((3,), (1,))


def test_regions_are_drawn_as_foreground_unless_classes_are_given():
    groups = lambda **more: [c.labels for c in mj.presets.nnunet(16, **more)[3].members]  # noqa: E731
    assert groups(regions=REGIONS) == [(1, 3), (3,), None]
    assert groups(regions=REGIONS, classes=(3,)) == [(3,), None]
    assert groups(regions=REGIONS, ignore_label=7)[-1] == (-1, 0, 1, 3)


def test_no_patch_is_centred_on_the_label_to_ignore():
    label = np.full((1, 24, 24, 24), 7, np.uint8)
    label[0, 9, 14, 11] = 2
    s = mj.Subject(label=mj.LabelMap(label))
    t = mj.presets.nnunet(16, classes=(2, 3), ignore_label=7)
    crops = mj.Compose(t.transforms[:1] + t.transforms[3:5])
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: crops(s, key).label.data[0, 8, 8, 8]))(KEYS))
    p = 1 - 0.33 / 2 * (1 - 1 / 9**3)  # class 3 is absent, then the place is uniform
    assert abs(np.mean(drawn == 2) - p) < 4 * np.sqrt(p * (1 - p) / N)


@pytest.mark.parametrize("make", PRESETS)
def test_images_are_0_outside_of_the_mask(make):
    """The volume is smaller than the patch: what is beyond it is outside too."""
    s = cube(np.int16)
    label = s.label.numpy().copy()
    label[0, :9] = -1
    s = s.replace(label=s.label.replace(data=label))
    t = only(make((26, 24, 24), classes=(1, 3), nonzero_mask=True), "RandomNoise", "Mask")
    place = [type(m).__name__ for m in t.members].index("Mask")
    before, after = t.replace(transforms=t.transforms[:place])(s, KEYS[0]), t(s, KEYS[0])
    assert (before.label.numpy() == -1).sum() > 9 * 24**2 and (before.t1.numpy() != 0).all()
    data = dict(
        image=torch.from_numpy(before.t1.numpy().copy()), segmentation=torch.from_numpy(before.label.numpy().copy())
    )
    want = MaskImageTransform([0]).apply(data)["image"].numpy()
    np.testing.assert_array_equal(after.t1.numpy(), want)
    np.testing.assert_array_equal(after.label.numpy(), np.maximum(before.label.numpy(), 0))
    assert repr(make(16, nonzero_mask=True, classes=(1,))).count("one gather") == 1


def test_a_mask_needs_a_signed_type():
    with pytest.raises(ValueError, match="-1 does not fit label map 'label' of uint8"):
        mj.presets.nnunet(16, classes=(1, 3), nonzero_mask=True)(cube(), KEYS[0])


@pytest.mark.parametrize("make", PRESETS)
def test_the_previous_stage_has_its_coins_and_ends_one_hot(make):
    t, s = only(make(16, classes=(3, 1), previous="previous")), cube()
    morphology, removal = members(t, "RandomLabelMorphology", "RandomRemoveComponents")
    assert morphology.include == removal.include == ("previous",) and morphology.labels == removal.labels == (1, 3)
    first = [type(m).__name__ for m in t.members].index("RandomLabelMorphology")
    params = jax.jit(jax.vmap(lambda key: t.sample(key, s)["members"][first : first + 2]))(KEYS)
    for drawn, p in zip(params, (0.4, 0.2), strict=True):
        assert abs(drawn["on"].mean() - p) < 4 * np.sqrt(p * (1 - p) / N)
        assert drawn["draw"]["previous"]["chosen"].all()
    draw = params[0]["draw"]["previous"]
    assert kstest(np.ravel(draw["radius"]), "uniform", (1, 7)).pvalue > 1e-3
    assert chisquare(np.bincount(np.ravel(draw["operation"]), minlength=4)).pvalue > 1e-3
    off = np.flatnonzero(~params[0]["on"] & ~params[1]["on"])[0]
    out = t(s, KEYS[off])
    assert out.previous.dtype == np.uint8
    np.testing.assert_array_equal(out.previous.numpy(), [out.label.numpy()[0] == n for n in (1, 3)])
    on = np.flatnonzero(params[0]["on"])[0]
    out = t(s, KEYS[on])
    assert (out.previous.numpy() != [out.label.numpy()[0] == n for n in (1, 3)]).any()


def test_every_mode_gives_the_same_for_a_cascade():
    arguments = dict(previous="previous", cascade_labels=(1, 3), deep_supervision=(0.5,))
    t = only(mj.presets.nnunet_da5(16, regions=REGIONS, **arguments), "RandomLabelMorphology", "RandomRemoveComponents")
    subjects, keys = [cube(seed=seed) for seed in range(3)], KEYS[:3]
    run = jax.jit(lambda s, key: t(s, key))
    batch = mj.unstack(t.batch(mj.stack(subjects), keys))
    for s, key, batched in zip(subjects, keys, batch, strict=True):
        eager = t(s, key)
        for other in (run(s, key), batched):
            for name, image in eager.images.items():
                np.testing.assert_allclose(other[name].numpy(), image.numpy(), atol=1e-5)


@pytest.mark.parametrize("size, axes", [
    (16, (0, 1, 2)), ((8, 16, 16), (1, 2)), ((16, 8, 16), (0, 2)), ((8, 10, 12), None),
])  # fmt: skip
def test_da5_turns_the_axes_of_one_size(size, axes):
    t = mj.presets.nnunet_da5(size)
    found = members(t, "RandomRotate90", "RandomPermuteAxes")
    assert [m.axes for m in found] == ([] if axes is None else [axes] * 2)
    assert all(m.p == 0.5 for m in found) and repr(t).count("one gather") == 1
    steps = flatten(t)
    names = [type(steps[i].transform).__name__ for i in runs_of(steps)[0]]
    assert names[-2:] == (["RandomRotate90", "RandomPermuteAxes"] if axes else ["RandomCrop", "CropOrPad"])
    if axes:
        assert found[0].turns == (0, 1, 2, 3)


@pytest.mark.parametrize("make", PRESETS)
def test_configuration_goes_round(make):
    t = make((8, 16, 16), regions=(2, (1, 3)), ignore_label=4, previous="previous", nonzero_mask=True)
    assert repr(mj.from_config(mj.to_config(t))) == repr(t)


@pytest.mark.parametrize("arguments, match", [
    (dict(regions=()), "regions"), (dict(regions=3), "regions"), (dict(ignore_label=3), "ignore_label needs"),
    (dict(classes=(1, 3), ignore_label=3), "ignore_label=3 is among"), (dict(nonzero_mask=True), "nonzero_mask needs"),
    (dict(previous="previous"), "cascade_labels"), (dict(previous="previous", cascade_labels=(0, 1)), "cascade_labels"),
])  # fmt: skip
def test_bad_arguments_are_named(arguments, match):
    for make in (mj.presets.nnunet, mj.presets.nnunet_da5):
        with pytest.raises((TypeError, ValueError), match=match):
            make(8, **arguments)


def test_the_last_elements_of_a_batch_show_the_foreground():
    label = np.zeros((1, 40, 40, 40), np.uint8)
    label[0, 30:33, 30:33, 30:33] = 2
    subject = mj.Subject(t1=mj.ScalarImage(label.astype(np.float32)), label=mj.LabelMap(label))
    t = mj.presets.nnunet((8, 8, 8), classes=(2,), last_elements=True)
    crop = mj.Compose(t.members[3:5])
    got = crop.batch(mj.stack([subject] * 6), jax.random.key(1))
    seen = (np.asarray(got.label.data) == 2).any((1, 2, 3, 4))
    assert seen[4:].all() and seen[:4].sum() <= 2  # a patch at random shows it with 2 %
