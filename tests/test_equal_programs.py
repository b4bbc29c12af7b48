"""Compiled programs: what is made anew and is equal shares them, and many shapes need few."""

import copy
import pickle
from dataclasses import dataclass

import jax
import numpy as np
import pytest
import torch
from conftest import compilations, small_subject

import medjax as mj
import torch_bridge as tio


def key():
    return jax.random.key(3)


def subject(shape=(9, 8, 7), seed=0):
    return small_subject(np.eye(4), shape, seed)


def pipeline(of=mj):
    return of.Compose([of.RandomFlip((0, 1)), of.OneOf([of.RandomNoise(), of.RemapLabels({1: 2})]), of.CropOrPad(6)])


def dataset(count=3):
    return mj.SubjectsDataset([subject(seed=seed) for seed in range(count)], pipeline())


def of_torch():
    images = [(torch.from_numpy(s.t1.numpy()), torch.from_numpy(s.label.numpy())) for s in dataset().subjects]
    subjects = [tio.Subject(t1=tio.ScalarImage(tensor=t1), label=tio.LabelMap(tensor=seg)) for t1, seg in images]
    return tio.SubjectsDataset(subjects, pipeline(tio))


SAMPLERS = {
    "uniform": lambda library: library.UniformSampler(4),
    "weighted": lambda library: library.WeightedSampler((4, 3, 2), "t1"),
    "label": lambda library: library.LabelSampler(4, "label", {1: 0.5, 3: 1}),
}


def voxels(batch):
    """A network."""
    return batch.t1.data


def aggregated():
    sampler = mj.GridSampler(subject(), 4, 2)
    aggregator = mj.GridAggregator(sampler, "hann")
    state = aggregator.init(1)
    for patch in sampler:
        state = aggregator.add(state, patch.t1.data[None], patch[mj.LOCATION][None])
    return aggregator.finish(state)


def inverted():
    steps = mj.Compose([mj.RandomAffine(), mj.RandomFlip()])
    params = steps.sample(key(), subject())
    return steps.invert(steps.apply(subject(), params), params, like=subject())


DOORS = {
    "call": lambda: pipeline()(subject(), key()),
    "batch": lambda: pipeline().batch(mj.stack([subject(), subject()]), key()),
    "invert": inverted,
    "tta": lambda: mj.tta(voxels, subject(), mj.RandomFlip(0), jax.random.split(key(), 2)),
    "loader": lambda: list(mj.loader(dataset(), 2, key())),
    "aggregator": aggregated,
    "windows": lambda: mj.sliding_window(voxels, subject(), 4, batch_size=2),
    "differentiable": lambda: tio.differentiable(mj.RandomNoise())(torch.zeros(1, 4, 4, 4), 1),
}
for kind, made in SAMPLERS.items():
    DOORS |= {
        f"{kind} sampler": lambda made=made: made(mj).batch(subject(), key(), 2),
        f"{kind} queue": lambda made=made: list(mj.PatchQueue(dataset(), made(mj), 2, key(), samples_per_volume=2)),
        f"{kind} queue of torch": lambda made=made: list(tio.Queue(of_torch(), 4, 2, made(tio))),
    }


@pytest.mark.parametrize("door", DOORS)
def test_what_is_made_anew_of_the_same_compiles_nothing(door):
    DOORS[door]()
    with compilations() as count:
        DOORS[door]()
    assert count() == 0


@dataclass(frozen=True, eq=False)
class Corner(mj.UniformSampler):
    """A sampler of the user's, a dataclass without equality."""

    corner: str = "low"


class Named(mj.UniformSampler):
    """A sampler of the user's that is no dataclass of its own."""

    def __init__(self, size, name):
        super().__init__(size)
        vars(self)["name"] = name


@pytest.mark.parametrize("library", [mj, tio])
def test_samplers_are_equal_if_all_that_they_hold_is(library):
    """Those that give other patches are not, the order of classes too, and a class of its own never."""
    makers = [
        lambda: library.UniformSampler(4), lambda: library.UniformSampler((4, 4, 5)),
        lambda: library.WeightedSampler(4, "t1"), lambda: library.WeightedSampler(4, "t2"),
        lambda: library.LabelSampler(4), lambda: library.LabelSampler(4, "label"),
        lambda: library.LabelSampler(4, "label", {1: 1, 2: 3}), lambda: library.LabelSampler(4, "label", {2: 3, 1: 1}),
        lambda: library.LabelSampler(4, "label", {1: 1, 2: 2}),
        lambda: Corner(4), lambda: Corner(4, "high"), lambda: Named(4, "a"), lambda: Named(4, "b"),
    ]  # fmt: skip
    found = {}
    for number, make in enumerate(makers):
        found[make()] = number
        assert found[make()] == number and make() == make() and make() != 4
        assert found[copy.deepcopy(make())] == found[pickle.loads(pickle.dumps(make()))] == number
    assert len(found) == len(makers) and list(found.values()) == list(range(len(makers)))
    assert library.UniformSampler(4) == library.UniformSampler((4, 4, 4)) != Corner(4)


def test_patches_of_many_shapes_need_a_program_for_each_bucket():
    """Of 17 to 32 voxels along an axis two lengths are made, so 8 shapes of however many there are."""
    rng = np.random.default_rng(0)
    shapes = [tuple(rng.integers(17, 33, 3).tolist()) for _ in range(28)]
    corners = [(a, b, c) for a in (24, 32) for b in (24, 32) for c in (24, 32)]

    def patches(shapes):
        subjects = [subject(shape, seed) for seed, shape in enumerate(shapes)]
        data = mj.SubjectsDataset(subjects, mj.Compose([mj.RandomFlip(0), mj.RandomNoise()]))
        queue = mj.PatchQueue(data, mj.LabelSampler(8), 2, key(), samples_per_volume=2, shuffle_subjects=False)
        return list(queue)

    patches(corners * 4)  # as many, so that nothing hangs on the number of subjects
    with compilations() as count:
        patches(corners[:1] + shapes + corners[:3])
    assert count() == 0
