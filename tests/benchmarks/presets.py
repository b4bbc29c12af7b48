"""nnU-Net's augmentation of a batch of 2 x 128^3, against batchgeneratorsv2's own list on the same cores.

Both start from the initial patch that nnU-Net cuts, 205^3 here; numbers are means over draws, taking turns.
python tests/benchmarks/presets.py [draws]
"""

import sys
import time
import types
import warnings

import jax
import numpy as np
import torch
from timer import volume

import medjax as mj

# batchgeneratorsv2's blur imports a picture for its own demonstration from scikit-image, which need not be there.
sys.modules.setdefault("skimage.data", types.SimpleNamespace(camera=None))  # pyright: ignore[reportArgumentType]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform
    from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

PATCH, BATCH = (128, 128, 128), 2


def peer() -> ComposeTransforms:
    """nnUNetTrainer's list."""
    return ComposeTransforms(
        [
            SpatialTransform(
                PATCH, 0, False, p_rotation=0.2, rotation=(-np.pi / 6, np.pi / 6), p_scaling=0.2, scaling=(0.7, 1.4),
                p_synchronize_scaling_across_axes=1,
            ),
            RandomTransform(GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
            RandomTransform(GaussianBlurTransform((0.5, 1.0), False, False, 0.5), 0.2),
            RandomTransform(MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False), 0.15),
            RandomTransform(ContrastTransform(BGContrast((0.75, 1.25)), True, False), 0.15),
            RandomTransform(SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5), 0.25),
            RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 1, False, 1, 1), 0.1),
            RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 0, False, 1, 1), 0.3),
            MirrorTransform((0, 1, 2)),
            RemoveLabelTansform(-1, 0),
        ]
    )  # fmt: skip


def main(draws: int) -> None:
    torch.set_num_threads(2)
    t1, label, _ = volume()
    t1 = ((t1 - t1.mean()) / t1.std()).astype(np.float32)
    label = label.astype(np.int16)
    corner = [max(0, (n - 205) // 2) for n in t1.shape[1:]]
    box = (slice(None), *(slice(c, c + 205) for c in corner))
    ours = mj.presets.nnunet(PATCH)
    subject = mj.Subject(image=mj.ScalarImage(t1), label=mj.LabelMap(label))
    batch = mj.stack([subject] * BATCH)
    theirs, cut = peer(), (np.ascontiguousarray(t1[box]), np.ascontiguousarray(label[box]))
    run = jax.jit(lambda batch, key: ours.batch(batch, key))

    def mine(seed: int) -> None:
        jax.block_until_ready(run(batch, jax.random.key(seed)))

    def other(seed: int) -> None:
        for _ in range(BATCH):
            theirs(image=torch.from_numpy(cut[0].copy()), segmentation=torch.from_numpy(cut[1].copy()))

    times: dict[str, list[float]] = {"medjax": [], "batchgeneratorsv2": []}
    mine(-1)
    other(-1)
    for seed in range(draws):
        for name, go in (("medjax", mine), ("batchgeneratorsv2", other)):
            start = time.perf_counter()
            go(seed)
            times[name].append(time.perf_counter() - start)
    mean = {name: 1e3 * np.mean(t) for name, t in times.items()}
    for name, t in times.items():
        print(f"{name:18} mean {mean[name]:7.1f} ms, median {1e3 * np.median(t):7.1f} ms, least {1e3 * min(t):7.1f} ms")
    print(f"ratio of means {mean['batchgeneratorsv2'] / mean['medjax']:.2f} over {draws} batches of {BATCH}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
