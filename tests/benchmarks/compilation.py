"""Compile time of the guide's pipeline in a fresh process, without and with a warm persistent cache, and import time.

python tests/benchmarks/compilation.py
"""

import os
import subprocess
import sys
import tempfile

PIPELINE = """
import time
start = time.perf_counter()
import jax, numpy as np
import medjax as mj
from pipelines import guide
t1 = np.random.default_rng(0).integers(0, 1000, (1, 197, 233, 189)).astype(np.int16)
subject = mj.Subject(t1=mj.ScalarImage(t1), label=mj.LabelMap((t1 > 500).astype(np.uint8)))
pipeline = guide(mj)
key = jax.random.key(0)
jax.block_until_ready(key)
begin = time.perf_counter()
jax.block_until_ready(pipeline(subject, key).t1.data)
print(time.perf_counter() - begin, time.perf_counter() - start)
"""


def run(code: str, **environment: str) -> list[float]:
    """The numbers that a fresh process prints."""
    here = os.path.dirname(os.path.abspath(__file__))
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    text = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    return [float(word) for word in text.split()]


def main() -> None:
    """Print compile plus first run, cold and cached, and what an import costs."""
    with tempfile.TemporaryDirectory() as cache:
        settings = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        cold, warm = run(PIPELINE, **settings), run(PIPELINE, **settings)
    print(f"guide's pipeline, first call: {cold[0]:.1f} s cold (goal 8), {warm[0]:.1f} s with the cache (goal 3)")
    timed = "import time; s = time.perf_counter(); import {}; print(time.perf_counter() - s)"
    base = min(run(timed.format("jax, flax"))[0] for _ in range(5))
    ours = min(run(timed.format("medjax"))[0] for _ in range(5))
    print(f"import medjax: {ours / base:.2f} times import jax, flax (goal 1.5)")


if __name__ == "__main__":
    main()
