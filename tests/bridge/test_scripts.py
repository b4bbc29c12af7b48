"""What users of TorchIO wrote runs with its import changed: the same keys, shapes and types, and where nothing is drawn
the same voxels."""

import warnings

import numpy as np
import pytest
import torch
import torchio
from bridge.scripts import PROGRAMS
from bridge.shared import time_limit as time_limit

import torch_bridge


def compared(ours, theirs, name):
    """Assert that two results agree; of what was drawn, in shape and type."""
    if isinstance(theirs, torch.Tensor | np.ndarray):
        assert type(ours) is type(theirs) and ours.shape == theirs.shape and ours.dtype == theirs.dtype, name
        if not name.endswith("_drawn"):
            scale = max(1.0, float(abs(theirs).max()))
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-4 * scale, err_msg=name)
    elif isinstance(theirs, tuple | list) and theirs and isinstance(theirs[0], float):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=name)
    else:
        assert ours == theirs, name


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_program_of_torchios_users_runs(program, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = program(torchio, tmp_path)
        ours = program(torch_bridge, tmp_path)
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        compared(ours[name], value, name)
