"""Peak memory of augmenting one volume of 8.7 million voxels: highest resident size less that before the call.

python tests/benchmarks/memory.py
"""

import os
import subprocess
import sys
import tempfile

CODE = """
import resource, sys
import jax, numpy as np
import medjax as mj
from pipelines import guide
t1 = np.random.default_rng(0).integers(0, 1000, (1, 197, 233, 189), np.int16)
subject = mj.Subject(t1=mj.ScalarImage(t1), label=mj.LabelMap((t1 > 500).astype(np.uint8)))
key = jax.block_until_ready(jax.random.key(0))
if sys.argv[1] == "run":
    augment = mj.Compose([mj.RandomAffine(), mj.RandomElasticDeformation(), mj.RandomBiasField(), mj.RandomNoise(),
                          mj.RandomGamma(), mj.RandomBlur(), mj.RandomFlip()])
    pipeline = guide(mj) if sys.argv[2] == "guide" else augment
    jax.block_until_ready(jax.tree.leaves(pipeline(subject, key)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
VOLUME = 197 * 233 * 189 * 4


def peak(environment: dict[str, str], *arguments: str) -> float:
    """Highest resident size of a fresh process, in bytes."""
    here = os.path.dirname(os.path.abspath(__file__))
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", CODE, *arguments]
    return float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print the peaks over the baseline, in float32 volumes."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for which in ("guide", "augment"):
            peak(settings, "run", which)
            above = peak(settings, "run", which) - peak(settings, "stop", which)
            print(f"{which}: {above / VOLUME:.1f} float32 volumes above the baseline (goal 6)")


if __name__ == "__main__":
    main()
