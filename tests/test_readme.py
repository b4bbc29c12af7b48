"""The code of the README runs as it stands there."""

import re
from pathlib import Path

import jax
import numpy as np
from conftest import small_subject


def test_the_training_loop_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for i in range(4):
        subject = small_subject(np.diag([1.0, 1.0, 1.2, 1.0]), (40, 44, 38 + i), seed=i)
        subject.t1.save(tmp_path / f"sub-{i}_T1w.nii.gz")
        mask = subject.label.replace(data=(subject.label.numpy() > 0).astype(np.uint8))
        mask.save(tmp_path / f"sub-{i}_seg.nii.gz")
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax and flax promote
        exec(compile(code, "README.md", "exec"), {})
    losses = [float(line) for line in capsys.readouterr().out.split()]
    assert len(losses) == 4 and np.isfinite(losses).all()
