"""Volumes whose voxels know where they are, grids, and what samplers draw from them."""

import jax
import numpy as np
from conftest import OBLIQUE

import medjax as mj

KEY = jax.random.key(11)
N = 6000
SIZE = (4, 5, 3)
SHAPE = (23, 31, 18)
GRIDS = [
    ((8, 8, 8), 0),
    ((8, 9, 7), (2, 4, 2)),
    ((10, 12, 18), (4, 0, 6)),
    ((23, 31, 18), 0),
    ((9, 30, 5), (8, 2, 4)),
    ((1, 31, 3), (0, 2, 0)),
]
ODD = [((8, 9, 7), (3, 1, 5)), ((5, 5, 5), (1, 4, 3))]


def volume(channels=2, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(channels, *SHAPE)).astype(dtype)


def subject_of(data):
    return mj.Subject(image=mj.ScalarImage(data, OBLIQUE))


def batches(data, locations, size=7):
    """Patches of an array at locations, in batches."""
    for n in range(0, len(locations), size):
        part = np.asarray(locations[n : n + size])
        boxes = [tuple(slice(a, b) for a, b in zip(place[:3], place[3:])) for place in part]
        yield np.stack([data[(slice(None), *box)] for box in boxes]), part


def starts(sampler, subject, n=N, key=KEY):
    """First voxels (n, 3) of patches."""
    return np.asarray(sampler.batch(subject, key, n)[mj.LOCATION])[:, :3]


def histogram(found, shape):
    return np.bincount(np.ravel_multi_index(tuple(found.T), shape), minlength=np.prod(shape))


def ramp(shape=(7, 9, 8), **images):
    """A subject whose voxels hold their own index."""
    return mj.Subject(ramp=mj.ScalarImage(np.stack(np.indices(shape)).astype(np.int16), OBLIQUE), **images)


def mapped(weights, kind=mj.ScalarImage, name="map"):
    weights = np.asarray(weights)
    return ramp(weights.shape[-3:], **{name: kind(weights.reshape(-1, *weights.shape[-3:]), OBLIQUE)})


def labelled():
    label = np.zeros((7, 9, 8), np.uint8)
    label[2:5, 2:7, 2] = 1
    label[3, 4, 3:6] = 2
    label[0, 0, 0] = 7  # no centre of a patch
    return label


def drawn_labels(sampler, subject, n=N):
    centre = starts(sampler, subject, n) + np.array(SIZE) // 2
    return labelled()[tuple(centre.T)], centre
