"""Configuration: through plain dictionaries, JSON and back, a transform does the same."""

import json

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject

import medjax as mj

KEY = jax.random.key(0)


def bright(x):
    """A masking function that is found by module and name."""
    return x > 0.5


FUNCTIONS = {f"{__name__}:bright": bright}
TRANSFORMS = [
    mj.RandomAffine((0.9, 1.2), (1, 2, 3), 4, isotropic=True, center="origin", default_pad_value="otsu", p=0.5),
    mj.Affine(1.1, (1, 2, 3), include=["t1"]),
    mj.RandomElasticDeformation((5, 6, 7), (1, 2, 3), 1, label_interpolation="linear", default_pad_label=2),
    mj.ElasticDeformation(np.arange(4**3 * 3).reshape(4, 4, 4, 3) / 100),
    mj.Flip((0, "AP")), mj.RandomFlip(["LR", 2], 0.3), mj.ToCanonical(exclude=["label"]),
    mj.Resample((1, 2, 0.7), antialias=True), mj.Resample("label"), mj.Resample(((9, 8, 7), OBLIQUE)),
    mj.CropOrPad((9, None, 12), "edge", mask_name="label", labels=[1, 3]), mj.CropOrPad(3.5, units="mm", location="random"),
    mj.RandomBiasField(0.3, 2, shared=True), mj.BiasField([0.1, 0.2, 0.3, 0.4], 1), mj.Blur((1, 2, 3)), mj.RandomBlur(2),
    mj.Gamma(1.3, keep={"t1": "old"}), mj.RandomGamma(0.2, channelwise=False), mj.Noise(1, 2, 3), mj.RandomNoise(1, (0, 3)),
    mj.ZNormalization("label", per_channel=True), mj.ZNormalization(mj.ZNormalization.mean), mj.ZNormalization(bright),
    mj.ZNormalization((1, 2, 3)), mj.RescaleIntensity((-1, 1), (1, 99), "Left", (0, 0.5), clip=True),
    mj.Compose([mj.RandomGamma(), mj.Compose([mj.Flip(0)], p=0.25)]), mj.Compose({"a": mj.Flip(0), "b": mj.Blur(1)}),
]  # fmt: skip


@pytest.mark.parametrize("t", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_a_configuration_survives_json(t):
    config = mj.to_config(t)
    text = json.dumps(config)
    back = mj.from_config(json.loads(text), FUNCTIONS)
    assert type(back) is type(t)
    assert mj.to_config(back) == config
    assert jax.tree.structure(back) == jax.tree.structure(t)
    for got, want in zip(jax.tree.leaves(back), jax.tree.leaves(t), strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_is_built_again_does_the_same():
    t = mj.Compose([mj.RandomAffine(p=0.5), mj.RandomGamma(), mj.ZNormalization(bright)])
    got, want = (
        p(small_subject(), KEY) for p in (mj.from_config(json.loads(json.dumps(mj.to_config(t))), FUNCTIONS), t)
    )
    np.testing.assert_array_equal(got.t1.numpy(), want.t1.numpy())
    np.testing.assert_array_equal(got.t1.affine, want.t1.affine)


def test_names_of_a_dictionary_stay():
    t = mj.from_config(mj.to_config(mj.Compose({"first": mj.Flip(0), "second": mj.Gamma(2.0)})))
    assert isinstance(t["second"], mj.Gamma) and len(t) == 2


def test_a_configuration_is_plain():
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(k, str) and plain(v) for k, v in value.items())
        return (
            all(map(plain, value)) if type(value) is list else value is None or type(value) in (str, int, float, bool)
        )

    for t in TRANSFORMS:
        assert plain(mj.to_config(t))


def test_only_what_is_given_need_be_said():
    t = mj.from_config({"name": "RandomAffine", "degrees": 5})
    np.testing.assert_array_equal(t.degrees, np.full((3, 2), [-5, 5]))
    assert mj.to_config(t) == mj.to_config(mj.RandomAffine(degrees=5))


def nested(depth):
    t = {"name": "Noise"}
    for _ in range(depth):
        t = {"name": "Compose", "transforms": [t]}
    return t


def cycle():
    t = {"name": "Compose", "transforms": []}
    t["transforms"] += [t, t]
    return t


def laughs():
    values = [1.0]
    for _ in range(40):
        values = [values] * 10
    return {"name": "Noise", "std": values}


@pytest.mark.parametrize(
    "config, message",
    [
        (
            {"name": "Lambda", "function": {"function": "os:system"}},
            "names the functions 'os:system', which are not given",
        ),
        ({"name": "Lambda", "function": {"function": "no_such_module:x"}}, "'no_such_module:x'"),
        ({"name": "Lambda", "function": {"function": ["os"]}}, "is a name, got a list"),
        ({"name": "Lambda", "function": print}, "got a builtin_function_or_method"),
        ({"name": ["Noise"]}, r"no transform \['Noise'\]"),
        ({"name": "Noise", 3: 4}, "are strings, got 3"),
        ({"name": "Noise", "mean": 10**400}, "at most 64 bits"),
        ({"name": "Noise", "mean": {"a": 1}}, "^Noise: "),
        ({"name": "Lambda"}, "^Lambda: .*function"),
        (nested(100000), "nested 64 deep"),
        (cycle(), "holds itself"),
        (laughs(), "holds itself"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_configuration_is_data(config, message, monkeypatch):
    """Nothing is imported or called, and each kind of nonsense is one error."""
    monkeypatch.setattr("importlib.import_module", None)
    with pytest.raises(ValueError, match=message):
        mj.from_config(config)


def test_functions_are_named_by_who_knows_them():
    functions = {"bright": lambda x: x > 0.5}
    t = mj.Compose([mj.ZNormalization(functions["bright"])])
    config = json.loads(json.dumps(mj.to_config(t, functions)))
    assert mj.from_config(config, functions)[0].masking_method is functions["bright"]
    with pytest.raises(ValueError, match="'bright', which are not given; given are 'dark'"):
        mj.from_config(config, {"dark": bright})


def test_any_data_is_a_transform_or_a_value_error():
    """Configurations with one value, somewhere, replaced by another."""
    values = [None, True, -1, 1e308, float("nan"), 2**64, "", "x" * 10**5, [], {}, [[]], {"name": "Noise"}, {"name": None},
              {"function": "x:y"}, ["a", 1, None]]  # fmt: skip
    for t in TRANSFORMS[::3]:
        config = json.loads(json.dumps(mj.to_config(t)))
        for argument in config:
            for value in values:
                try:
                    mj.from_config({**config, argument: value}, FUNCTIONS)
                except ValueError as error:
                    assert len(str(error)) < 3000 + 10**5
