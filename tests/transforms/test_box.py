"""A patch is the box of the transformed volume, and what is computed for it is as little as can be.

That it is so for every transform and any pipeline is a law of the queue (`tests/patches/test_queue_laws.py`)."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import OBLIQUE, small_subject

import medjax as mj
from medjax.transforms import box
from medjax.transforms.place import place_of
from medjax.transforms.program import flatten, flatten_params, shown, split, walk
from medjax.transforms.run import draw, execute

SIZE = (4, 5, 3)
SHAPE = (12, 13, 11)
AROUND = [mj.RandomFlip((0, 1)), mj.RandomNoise(p=0.7)]


def patches(pipeline, subject, key, starts):
    """The boxes that begin at `starts`, without the rest; one program."""
    steps, parts = flatten(pipeline), split(pipeline)
    flat = flatten_params(pipeline, draw(pipeline, key, subject))
    places = {name: place_of(image, jnp) for name, image in subject.images.items()}
    way = [(begin, end) for _, begin, end in walk(steps, parts.head, flat, places)]
    grids = box.ends(steps, parts, flat, way[-1][1] if way else places).end
    margin = box.margin_of(steps, parts.box, grids, {name: name == "label" for name in grids})

    @jax.jit
    def run(subject, key, start):
        flat = flatten_params(pipeline, draw(pipeline, key, subject))
        head = execute(steps, parts.head, flat, subject)[0]
        return box.boxed(steps, parts, flat, head, lambda *_: start, SIZE, margin)

    return [run(mj.Subject(subject.images), key, jnp.asarray(start, jnp.int32)) for start in starts]


def same(pipeline, subject, key):
    """Patches at both corners and in the middle are those of the whole volume."""
    whole = pipeline(subject, key)
    room = np.subtract(whole.t1.spatial_shape, SIZE)
    starts = ((0, 0, 0), tuple(room // 2), tuple(room))
    for start, found in zip(starts, patches(pipeline, subject, key, starts), strict=True):
        where = (slice(None), *(slice(a, a + n) for a, n in zip(start, SIZE, strict=True)))
        for name, image in whole.images.items():
            expected = image.numpy()[where]
            if isinstance(image, mj.LabelMap):
                assert (np.asarray(found[name].data) != expected).mean() < 0.02
            else:
                scale = max(np.ptp(image.numpy()), 1e-3)
                # Coordinates are float32, 300 mm from the origin.
                np.testing.assert_allclose(found[name].data, expected, atol=1e-3 * scale)
            moved = np.asarray(image.affine)[:3, :3] @ start + np.asarray(image.affine)[:3, 3]
            np.testing.assert_allclose(found[name].affine[:3, 3], moved, atol=1e-3)


def test_a_box_has_room_for_the_blurs_behind_one_another():
    pipeline = mj.Compose([mj.RandomFlip((0, 1)), mj.RandomBlur((0.5, 1.0)), mj.RandomNoise(p=0.7), mj.Blur(0.8)])
    assert split(pipeline).box == ((0,), (1,), (2,), (3,))
    same(pipeline, small_subject(OBLIQUE, SHAPE), jax.random.key(3))


def test_the_three_parts():
    pipeline = mj.Compose(
        [
            mj.ToCanonical(),
            mj.ZNormalization(),
            mj.RandomGamma(),
            mj.RandomAffine(),
            mj.RandomGhosting(),
            mj.RandomElasticDeformation(),
            mj.CropOrPad(96),
            mj.RandomBiasField(),
            mj.RandomBlur(),
        ]
    )
    parts = split(pipeline)
    assert (parts.head, parts.whole, parts.box) == (((0,), (1,)), ((2,), (3,), (4,)), ((5, 6), (7,), (8,)))
    text = shown(pipeline)
    assert "once per volume: ToCanonical, ZNormalization" in text
    assert "RandomGhosting needs the whole image" in text
    assert "per patch on the box: RandomElasticDeformation, CropOrPad, RandomBiasField, RandomBlur" in text


def test_statistics_after_a_random_member_are_of_the_whole_volume():
    pipeline = mj.Compose([mj.RandomAffine(), mj.ZNormalization(), mj.RandomNoise(p=0.5)])
    assert "ZNormalization measures what a random member has changed" in shown(pipeline)
    same(pipeline, small_subject(OBLIQUE, SHAPE), jax.random.key(1))
    before = mj.Compose([mj.ZNormalization(), mj.RandomAffine(), mj.RandomNoise(p=0.5)])
    assert "per patch on the volume: nothing" in shown(before)


def test_a_choice_is_random_though_its_members_are_not():
    pipeline = mj.Compose([mj.ToCanonical(), mj.Compose([mj.Gamma(2.0)], p=0.5), mj.OneOf([mj.Clamp(0, 1)])])
    assert split(pipeline).head == ((0,),)


def test_what_spacing_a_mask_leaves_is_known_on_the_volume_alone():
    """Behind a box of a mask that is resized, a blur in mm reaches as far as the mask is small: it runs on the volume."""
    located = mj.CropOrPad(None, mask_name="label")
    for local, whole in ((mj.Blur(1.0), ((0,), (1, 2), (3,))), (mj.Gamma(2.0), ((0,),))):
        assert split(mj.Compose([mj.RandomFlip(), located, mj.Resize(8), local])).whole == whole
    known = [mj.RandomFlip(), mj.Resize(8), mj.RandomCrop(4, label_name="label"), mj.Blur(1.0)]
    assert split(mj.Compose(known)).whole == ()
