"""The code of the README runs as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import small_subject


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    """The Python blocks of the README, and its files in the current folder."""
    for i in range(4):
        subject = small_subject(np.diag([1.0, 1.0, 1.2, 1.0]), (40, 44, 38 + i), seed=i)
        subject.t1.save(tmp_path / f"sub-{i}_T1w.nii.gz")
        mask = subject.label.replace(data=(subject.label.numpy() > 0).astype(np.uint8))
        mask.save(tmp_path / f"sub-{i}_seg.nii.gz")
    monkeypatch.chdir(tmp_path)
    return re.findall(r"```python\n(.*?)```", (Path(__file__).parent.parent / "README.md").read_text(), re.DOTALL)


def test_the_training_loop_in_jax_runs(blocks, capsys):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax and flax promote
        exec(compile(blocks[0], "README.md", "exec"), {})
    losses = [float(line) for line in capsys.readouterr().out.split()]
    assert len(losses) == 4 and np.isfinite(losses).all()


def test_the_training_loop_in_torch_runs(blocks):
    names = {}
    exec(compile(blocks[1], "README.md", "exec"), names)
    assert len(blocks) == 2 and np.isfinite(names["loss"].item())
