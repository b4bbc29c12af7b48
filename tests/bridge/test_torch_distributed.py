"""Augmentation under torch.distributed, in processes of its own with a time limit: what fails here hangs."""

import pytest
import torch
from bridge.test_processes import program


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")
def test_ranks_augment_differently_resume_exactly_and_share_the_subjects():
    assert "done" in program("programs.py", "shares", seconds=300)
