"""A synthetic 160^3 image of a label map: `presets.synthseg` against cornucopia's SynthFromLabelTransform on 2 cores.

cornucopia lives in an environment of its own (pip install cornucopia torch==2.13.0), whose Python is given; it runs as
a process of its own that waits while it is not its turn. It takes up to minutes an image: with all its steps, with
linear instead of cubic splines, and with those steps left out that SynthSeg has not. Numbers are means over draws.
python tests/benchmarks/synthseg.py PYTHON [draws]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from timer import volume

import medjax as mj

SIZE, CLASSES = 160, 16
STEPS = {"gmm_fwhm": False, "motion_fwhm": False, "snr": False}  # which SynthSeg has not
PEERS = {"as it comes": {}, "splines of order 1": {"order": 1}, "SynthSeg's steps": {"order": 1, **STEPS}}
PEER = """
import json, sys, time
import cornucopia as cc, numpy as np, torch
torch.set_num_threads(2)
label = torch.from_numpy(np.load(sys.argv[1]).astype(np.int32))
synth = cc.SynthFromLabelTransform(patch=int(sys.argv[2]), **json.loads(sys.argv[3]))
for line in sys.stdin:
    torch.manual_seed(int(line))
    start = time.perf_counter()
    image, made = synth(label).values()
    seconds = time.perf_counter() - start
    assert tuple(image.shape) == tuple(made.shape) == (1,) + (int(sys.argv[2]),) * 3
    print("seconds", seconds, flush=True)
"""


def labels() -> np.ndarray:
    """The middle of the MNI152 T1 in classes of intensity, (1, 160, 160, 160) uint8; 0 outside of the head."""
    t1 = volume()[0]
    corner = [(n - SIZE) // 2 for n in t1.shape[1:]]
    cut = t1[(slice(None), *(slice(c, c + SIZE) for c in corner))]
    edges = np.quantile(cut[cut > 0], np.linspace(0, 1, CLASSES)[1:-1])
    return np.where(cut > 0, 1 + np.digitize(cut, edges), 0).astype(np.uint8)


def turn(peer: subprocess.Popen, seed: int) -> float:
    """Seconds of one image of a peer."""
    assert peer.stdin is not None and peer.stdout is not None
    peer.stdin.write(f"{seed}\n")
    peer.stdin.flush()
    for line in peer.stdout:
        if line.startswith("seconds"):
            return float(line.split()[1])
    raise RuntimeError("the peer ended")


def main(python: str, draws: int) -> None:
    label = labels()
    preset = mj.presets.synthseg(range(CLASSES), patch_size=SIZE)
    subject = mj.Subject(label=mj.LabelMap(label))
    times: dict[str, list[float]] = {name: [] for name in ("medjax", *PEERS)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "label.npy"
        np.save(path, label)
        peers = {
            name: subprocess.Popen(
                [python, "-W", "ignore", "-c", PEER, str(path), str(SIZE), json.dumps(arguments)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for name, arguments in PEERS.items()
        }  # fmt: skip
        for seed in range(-1, draws):  # one call each to warm up
            start = time.perf_counter()
            jax.block_until_ready(preset(subject, jax.random.key(seed + 1)).image.data)
            found = {"medjax": time.perf_counter() - start}
            found |= {name: turn(peer, seed + 1) for name, peer in peers.items()}
            if seed >= 0:
                for name, seconds in found.items():
                    times[name].append(seconds)
        for peer in peers.values():
            peer.communicate()
    mean = {name: np.mean(t) for name, t in times.items()}
    for name, t in times.items():
        ratio = mean[name] / mean["medjax"]
        spread = f"median {1e3 * np.median(t):7.0f} ms, least {1e3 * min(t):7.0f} ms"
        print(f"{name:20} mean {1e3 * mean[name]:7.0f} ms, {spread}, ratio of means {ratio:.2f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2)
