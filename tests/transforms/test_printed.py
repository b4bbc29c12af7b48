"""A pipeline prints as the tree that was built, with what is read together."""

import re

import pytest

import medjax as mj
from medjax.transforms.program import flatten, runs_of

PIPELINES = [
    mj.Compose([mj.OneOf([mj.RandomFlip(0), mj.RandomFlip(1)]), mj.Compose([mj.RandomNoise()], p=0.2)]),
    mj.Compose(
        {
            "space": mj.Compose(
                [mj.Resample(1.2), mj.RandomAffine(p=0.5), mj.OneOf({mj.RandomFlip(0): 2, mj.Flip(1): 1})]
            ),
            "crop": mj.CropOrPad(32),
            "noise": mj.SomeOf([mj.RandomNoise(), mj.RandomGamma()], num=(0, 1), p=0.7),
        }
    ),
    mj.RandomAffineElasticDeformation(p=0.5),
    mj.LastElements([mj.Compose([]), mj.Compose([mj.Pad(1), mj.Gamma(2.0), mj.Pad(2), mj.Crop(1)])], fraction=0.4),
    mj.presets.nnunet_da5(16),
]


@pytest.mark.parametrize("t", PIPELINES)
def test_nothing_is_lost_and_nothing_is_there_twice(t):
    lines = [re.sub(r"^[ ┌│└]*(\w+: )?", "", line) for line in repr(t).splitlines()]
    steps = [
        line.split(",  one gather")[0].rstrip(",") for line in lines if not line.endswith("[") and line.strip("],")
    ]
    assert steps == [repr(step.transform) for step in flatten(t)]
    assert repr(t).count("[\n") == sum(text.endswith("[") for text in lines)
    together = [group for group in runs_of(flatten(t)) if len(group) > 1]
    assert repr(t).count("one gather") == repr(t).count("┌") == repr(t).count("└") == len(together)


def test_what_decides_is_printed():
    text = repr(PIPELINES[1])
    for part in (
        "space: Compose[",
        "OneOf(weights=(2.0, 1.0))[",
        "crop: CropOrPad(",
        "noise: SomeOf(p=0.7, num=(0.0, 1.0))[",
    ):
        assert part in text
    assert repr(PIPELINES[0]).splitlines()[-4] == "    Compose(p=0.2)["
    assert text.splitlines()[9].startswith("  └ crop: CropOrPad(") and text.splitlines()[9].endswith("  one gather")
