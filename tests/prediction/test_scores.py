"""Planes of scores as windows finish."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from medjax.prediction.scores import Windowing, planes_of, stacked


def network(batch):
    x = batch["t1"].data
    return jnp.concatenate([x, 2 * x, 1 - x], 1)


@pytest.mark.parametrize("memory", [None, 0])
def test_planes_come_as_windows_finish_and_no_others_are_held(memory):
    data = blobs((27, 12, 10))
    subject = mj.Subject(t1=mj.ScalarImage(data[None]))
    want = np.stack([data, 2 * data, 1 - data])
    came, before = [], np.zeros((3, 12, 10))
    for part in planes_of(network, subject, Windowing((8, 12, 10), (3, 0, 0), 1, memory, False), whole=False):
        buffer = np.array(part.buffer)
        assert buffer.shape == (3, 9, 12, 10) and part.first == sum(c.shape[1] for c in came)
        np.testing.assert_array_equal(buffer[:, 0], before)
        came.append(buffer[:, 1 : 1 + part.done])
        before = came[-1][:, -1]
    assert len(came) > 3
    np.testing.assert_allclose(np.concatenate(came, 1), want, atol=1e-5)


def test_models_that_are_not_alike():
    with pytest.raises(ValueError, match="models must be"):
        stacked([{"a": jnp.zeros(2)}, {"a": jnp.zeros(3)}])
