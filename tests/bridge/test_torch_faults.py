"""What must not be lost or left by torch_bridge, in processes of their own with a time limit."""

import pytest
from bridge.test_processes import program


def test_what_does_not_fit_in_memory_is_an_error_of_its_subject():
    assert "done" in program("faults.py", "memory", seconds=240)


@pytest.mark.parametrize("times", [2, pytest.param(40, marks=pytest.mark.long)])
def test_loaders_and_queues_dropped_half_way_leave_nothing(times):
    assert "done" in program("faults.py", "dropped", str(times), seconds=600)


@pytest.mark.parametrize("batches", [40, pytest.param(300, marks=pytest.mark.long)])
def test_memory_is_flat_over_batches(batches):
    assert "done" in program("faults.py", "flat", str(batches), seconds=600)
