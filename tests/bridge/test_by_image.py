"""Arguments that are dictionaries by the name of the image, against the installed torchio."""

import pickle

import pytest
import torch
import torchio
from bridge.shared import time_limit as time_limit

import torch_bridge as tio


def pair():
    """The same subject for torchio and for the bridge."""
    t1, t2 = torch.rand(2, 1, 8, 6, 7, generator=torch.Generator().manual_seed(0))
    return tuple(
        module.Subject(
            t1=module.ScalarImage(tensor=t1.clone()),
            t2=module.ScalarImage(tensor=t2.clone()),
            label=module.LabelMap(tensor=(t1 > 0.5).float()),
        )
        for module in (torchio, tio)
    )


def agree(ours, theirs):
    for name, image in theirs.get_images_dict(intensity_only=False).items():
        torch.testing.assert_close(ours[name].data, image.data, atol=1e-5, rtol=1e-5)


CALLS = {
    "all by image": lambda m: m.Noise({"t1": 1, "t2": -2}, {"t1": 0, "t2": 0}, {"t1": 0, "t2": 5}),
    "one by image": lambda m: m.Noise(mean={"t1": 1, "t2": -2}, std=0, seed=0),
    "of those included": lambda m: m.Gamma({"t1": 2.0}, include=["t1"]),
    "gamma": lambda m: m.Gamma(gamma={"t1": 2.0, "t2": 0.5}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_each_image_gets_its_own(call):
    theirs, ours = pair()
    t = call(tio)
    agree(t(ours), call(torchio)(theirs))
    agree(pickle.loads(pickle.dumps(t))(ours), call(torchio)(theirs))
    agree(tio.Compose([tio.Flip(0), t, tio.Flip(0)])(ours), call(torchio)(theirs))
    agree(ours, theirs)


def test_vectors_by_image_are_those_of_one_transform_for_each():
    _, ours = pair()
    given = {"t1": [0.1, 0.2, 0, -0.1], "t2": [0.3, 0, 0.1, 0]}
    expected = tio.Compose([tio.BiasField(value, 1, include=[name]) for name, value in given.items()])(ours)
    agree(tio.BiasField(given, {"t1": 1, "t2": 1})(ours), expected)
    agree(tio.BiasField(given, 1)(ours), expected)


def test_a_transform_says_whether_its_arguments_are_by_image():
    for module in (torchio, tio):
        assert module.Noise({"t1": 0}, {"t1": 1}, {"t1": 0}).arguments_are_dict()
        assert not module.Noise(0, 1, 0).arguments_are_dict()
        with pytest.raises(ValueError, match="dict"):
            module.Noise(0, {"t1": 1}, {"t1": 0}).arguments_are_dict()


def test_the_history_takes_back_what_each_image_got():
    _, ours = pair()
    t = tio.Noise({"t1": 1, "t2": -2}, 0, 0)
    result = t(ours)
    assert [step.name for step in result.history] == ["Noise", "Noise"]
    agree(result.apply_inverse_transform(), ours)
    agree(t.inverse()(result), ours)


def test_an_image_without_its_own_is_an_error():
    _, ours = pair()
    with pytest.raises(ValueError, match="'t2'"):
        tio.Gamma({"t1": 2.0})(ours)
    with pytest.raises(ValueError, match="same ones"):
        tio.Noise({"t1": 0}, {"t2": 1}, 0)
    with pytest.raises(ValueError, match="std"):
        tio.Noise(0, {"t1": 1, "t2": -1}, 0)
