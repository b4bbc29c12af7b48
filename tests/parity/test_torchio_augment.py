"""Swap and Anisotropy give TorchIO 1.2.1's numbers."""

import numpy as np
import pytest
from conftest import OBLIQUE, small_subject

import medjax as mj
from parity.peer import agree, equal, run, tio

RAS = np.diag([1.0, 2, 1.5, 1])


@pytest.mark.parametrize("axis, size", [(0, 23), (1, 31), (2, 18)])
@pytest.mark.parametrize("factor", [1.0, 1.63, 2.4, 4.9])
@pytest.mark.parametrize("affine", [RAS, OBLIQUE], ids=["RAS", "oblique"])
@pytest.mark.parametrize("name, tolerance", [("linear", 1e-4), ("nearest", 0)])
def test_anisotropy(axis, size, factor, affine, name, tolerance):
    """Where TorchIO sees the slices: it is black beyond them. An exact tie of nearest is left out."""
    subject = small_subject(affine)
    got = mj.Anisotropy(axis, factor, name, scalars_only=False)(subject)
    peer = tio.RandomAnisotropy(axis, (factor, factor), image_interpolation=name, scalars_only=False)
    want = run(peer, subject)
    count = int(size / factor)
    at = (np.arange(size) - (size - 1) / 2) / factor + (count - 1) / 2
    seen = (at > -0.49) & (at < count - 0.51) & (np.abs(at - np.floor(at) - 0.5) > 1e-3)
    voxels = (size - 1) / 2 + (np.arange(count) - (count - 1) / 2) * factor
    tied = np.abs(voxels - np.floor(voxels) - 0.5) < 1e-3
    for end in (np.floor(at), np.floor(at) + 1):
        seen &= ~tied[np.clip(end, 0, count - 1).astype(int)]
    where = np.broadcast_to(seen.reshape([1] + [-1 if a == axis else 1 for a in range(3)]), (1, 23, 31, 18))
    if tolerance:
        agree(got.t1, want.t1, where, tolerance)
    else:
        equal(got.t1, want.t1, where)
    sharp = where & (np.abs(at - np.floor(at) - 0.5) > 1e-3).reshape([1] + [-1 if a == axis else 1 for a in range(3)])
    equal(got.label, want.label if name == "nearest" else nearest_label(axis, factor, subject), sharp)


def nearest_label(axis, factor, subject):
    """TorchIO interpolates label maps as it does images only if told so; by nearest they are classes."""
    peer = tio.RandomAnisotropy(axis, (factor, factor), image_interpolation="nearest", scalars_only=False)
    return run(peer, subject).label


def test_swap():
    draw = np.random.default_rng(0)
    size = np.array((5, 4, 3))
    corners = draw.integers(0, np.array((23, 31, 18)) - size + 1, (200, 2, 3))
    corners = corners[(np.abs(corners[:, 0] - corners[:, 1]) >= size).any(1)]
    pairs = [(tuple(map(int, first)), tuple(map(int, second))) for first, second in corners]
    subject = small_subject(RAS)
    equal(mj.Swap(tuple(size.tolist()), pairs)(subject).t1, run(tio.Swap(tuple(size.tolist()), pairs), subject).t1)
