"""Every argument of every transform refuses nonsense by its own name; a sweep over all fields and many values."""

import json
import re
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_subject
from test_laws import CASES, transform_of

import medjax as mj
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
            assert mj.to_config(mj.from_config(config)) == mj.to_config(t), (f.name, kind)


def test_the_sweep_is_as_wide_as_it_says():
    assert sum(len(fields(cls)) for cls in REGISTRY.values()) * len(NONSENSE) >= 4000
