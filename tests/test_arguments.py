"""Every argument of every transform refuses nonsense by its own name; a sweep over all fields and many values."""

import json
import pkgutil
import re
from collections import Counter
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_subject
from test_laws import CASES

import medjax as mj
from medjax.config import functions_in
from medjax.transforms.transform import REGISTRY

NONSENSE = {
    "None": None,
    "empty text": "",
    "text of a truth value": "false",
    "text": "abc",
    "text of a number": "1",
    "near miss": "lineer",
    "bytes": b"1",
    "True": True,
    "a NumPy truth value": np.True_,
    "-1": -1,
    "0": 0,
    "2.0": 2.0,
    "1.7": 1.7,
    "-0.5": -0.5,
    "nan": np.nan,
    "inf": np.inf,
    "-inf": -np.inf,
    "1e300": 1e300,
    "a huge int": 10**30,
    "an int of 5000 digits": 10**5000,
    "complex": 1j,
    "[]": [],
    "()": (),
    "[1, 2]": [1, 2],
    "[2, 1]": [2, 1],
    "four": (1, 2, 3, 4),
    "nested": [[1, 2], [3]],
    "deep": [[[[[1]]]]],
    "of texts": ["a", "b"],
    "of None": [None, None, None],
    "of nan": [np.nan] * 3,
    "of truth values": (True, False, True),
    "{}": {},
    "a dictionary": {"a": 1},
    "of ints": {1: 2.5},
    "a set": {1, 2},
    "object": object(),
    "a class": int,
    "a function": len,
    "a range": range(3),
    "an array ()": np.array(1.7),
    "an empty array": np.zeros((0, 3)),
    "an array (2, 2, 2)": np.zeros((2, 2, 2)),
    "an array of texts": np.array(["a", "b"]),
    "an array of truth values": np.array([True, False]),
    "an array of complex": np.array([1j]),
    "an array of objects": np.array([object(), None]),
    "an array of dates": np.array(["2020-01-01"], "datetime64[D]"),
    "a JAX array": np.zeros((3, 3), np.int8),
    "a key": None,
    "an image": None,
    "a transform": None,
}


def value_of(kind):
    """A value of NONSENSE; what needs JAX is made when a test runs."""
    late = {
        "a JAX array": lambda: jnp.zeros((3, 3), jnp.int8),
        "a key": lambda: jax.random.key(0),
        "an image": lambda: mj.ScalarImage(np.zeros((1, 2, 2, 2), np.float32)),
        "a transform": lambda: mj.Flip(0),
    }
    return late[kind]() if kind in late else NONSENSE[kind]


def built(name, field, value):
    """The transform with one argument replaced, or the error that names the argument."""
    try:
        return REGISTRY[name](**{**CASES[name].args, field: value})
    except (TypeError, ValueError) as error:
        assert re.search(rf"\b{field}\b", str(error)), f"the error of {name}.{field} does not name it: {error}"
        return None


def is_lost(config):
    """Whether a configuration cannot hold what the transform holds, a function or an image, which it says."""
    return isinstance(config, ValueError)


def config_of(t):
    try:
        return json.loads(json.dumps(mj.to_config(t)))
    except ValueError as error:
        assert "define it in a module" in str(error)
        return error


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_field_has_a_converter(name):
    assert [f.name for f in fields(REGISTRY[name]) if f.metadata.get("convert") is None] == []


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_nonsense_is_refused_by_name_or_round_trips(name):
    for f in fields(REGISTRY[name]):
        for kind in NONSENSE:
            t = built(name, f.name, value_of(kind))
            if t is None or is_lost(config := config_of(t)):
                continue
            functions = {called: pkgutil.resolve_name(called) for called in functions_in(config)}
            assert mj.to_config(mj.from_config(config, functions)) == mj.to_config(t), (f.name, kind)


SUBJECT = small_subject()
GRID = mj.GridSampler(SUBJECT, 8)
OTHERS = {
    "UniformSampler": (mj.UniformSampler, dict(patch_size=4)),
    "WeightedSampler": (mj.WeightedSampler, dict(patch_size=4, probability_map="t1")),
    "LabelSampler": (mj.LabelSampler, dict(patch_size=4, label_name="label", label_probabilities={1: 0.5})),
    "GridSampler": (mj.GridSampler, dict(subject=SUBJECT, patch_size=4, patch_overlap=2, padding_mode="edge")),
    "GridAggregator": (mj.GridAggregator, dict(sampler=GRID, overlap_mode="crop", downsampling_factor=1)),
    "sliding_window": (
        mj.sliding_window,
        dict(
            apply_fn=lambda batch: next(iter(batch.images.values())).data,
            subject=SUBJECT,
            patch_size=40,
            patch_overlap=0,
            batch_size=1,
            overlap_mode="crop",
            reduce=None,
            on_host=False,
            progress=False,
        ),
    ),
    "tta": (mj.tta, dict(apply_fn=lambda batch: batch.t1.data, subject=SUBJECT, pipeline=mj.Flip(0), keys=None)),
    "stack": (mj.stack, dict(subjects=[SUBJECT], shape=(32, 32, 32))),
    "ScalarImage": (mj.ScalarImage, dict(source=np.zeros((1, 2, 2, 2), np.float32), affine=np.eye(4))),
    "LabelMap": (mj.LabelMap, dict(source="absent.nii", affine=None, reader=None, series=None)),
    "Points": (mj.Points, dict(xyz=np.zeros((2, 3)), labels=None)),
    "Directions": (mj.Directions, dict(xyz=np.zeros((2, 3)), labels=["a", "b"])),
    "Landmarks": (mj.Landmarks, dict(landmarks=np.arange(3.0), percentiles=(0, 50, 100))),
    "nnunet": (
        mj.presets.nnunet,
        dict(
            patch_size=16,
            label="label",
            p_foreground=0.3,
            classes=(1, 2),
            regions=None,
            ignore_label=3,
            previous=None,
            cascade_labels=(1, 2),
            nonzero_mask=False,
            last_elements=False,
            deep_supervision=(1, 0.5),
        ),
    ),
    "synthseg": (
        mj.presets.synthseg,
        dict(
            labels=(0, 1, 2),
            patch_size=16,
            map_size=None,
            target_labels={1: 2},
            flip_pairs=((1, 2),),
            remove=(1,),
            label="label",
            image="image",
        ),
    ),
}


def kind_is_wrong(right, value):
    """Whether a value is of another type than a right one, so that nothing else can be to blame."""
    return not isinstance(value, (type(right), int, float, str, type(None))) and getattr(value, "ndim", 1) > 0


@pytest.mark.parametrize("name", OTHERS)
def test_other_public_names_refuse_nonsense_by_name(name):
    function, arguments = OTHERS[name]
    for argument in arguments:
        for kind in NONSENSE:
            value = value_of(kind)
            if argument in ("apply_fn", "reduce") and callable(value):
                continue  # what a function of the user's makes of its arguments is its own business
            try:
                function(**{**arguments, argument: value})
            except (TypeError, ValueError) as error:
                known = argument if kind_is_wrong(arguments[argument], value) else "|".join((*arguments, "t1", "label"))
                assert re.search(rf"\b({known})\b", str(error)), f"{argument}, {kind}: {error}"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:max_displacement")
@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_was_built_of_nonsense_computes_or_says_what_is_wrong(name):
    """A finite result, or an error that names the argument, the transform or an image of the subject."""
    subject = mj.CropOrPad(9)(small_subject())
    found = Counter()
    for f in fields(REGISTRY[name]):
        for kind in NONSENSE:
            t = built(name, f.name, value_of(kind))
            if t is None:
                found["refused when built"] += 1
                continue
            if callable(value_of(kind)):  # what a function of the user's makes of its arguments is its own business
                found["a function"] += 1
                continue
            try:
                got = t(subject, jax.random.key(0))
            except (TypeError, ValueError) as error:
                assert re.search(rf"\b({f.name}|{name}|t1|label|images?)\b", str(error)), f"{f.name}, {kind}: {error}"
                found["refused when called"] += 1
                continue
            for image in got.images.values():
                assert np.isfinite(image.numpy().astype(np.float64)).all(), (f.name, kind)
            found["finite"] += 1
    print(name, dict(found))
    assert found.total() == len(fields(REGISTRY[name])) * len(NONSENSE)


@pytest.mark.parametrize(
    "t",
    [
        mj.CoarseDropout([]),
        mj.RandomCoarseDropout(num_boxes=0),
        mj.RandomElasticDeformation(include=[]),
        mj.RandomCrop(4, label_name="label", include=[]),
    ],
    ids=lambda t: type(t).__name__,
)
def test_nothing_to_do_changes_nothing(t):
    subject = small_subject()
    got = t(subject, jax.random.key(0))
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())


def test_the_sweep_is_as_wide_as_it_says():
    assert sum(len(fields(cls)) for cls in REGISTRY.values()) * len(NONSENSE) >= 4000
