"""The patch queue against TorchIO's, from eight .nii.gz files of 8.7 million voxels to batches of 8 patches of 64^3.

python -m tests.benchmarks.patch_queue
"""

import tempfile
import time
import warnings
from pathlib import Path

import jax
import nibabel
import numpy as np
import torch
import torchio as tio

import medjax as mj
from tests.benchmarks.timer import volume

FILES, SAMPLES, BATCH, PATCH = 8, 10, 8, 64


def write(folder: Path, files: int = FILES) -> list[tuple[Path, Path]]:
    """Copies of the MNI152 T1, int16, with their labels."""
    data, label, affine = volume()
    pairs = []
    for i in range(files):
        pairs.append((folder / f"{i}_t1.nii.gz", folder / f"{i}_label.nii.gz"))
        nibabel.Nifti1Image(data[0] + np.int16(i), affine).to_filename(pairs[-1][0])
        nibabel.Nifti1Image(label[0], affine).to_filename(pairs[-1][1])
    return pairs


def waits(batches) -> np.ndarray:
    """Seconds between batches."""
    times = [time.perf_counter()]
    for batch in batches:
        jax.block_until_ready(jax.tree.leaves(batch))
        times.append(time.perf_counter())
    return np.diff(times)


def ours(pairs: list[tuple[Path, Path]], epochs: int) -> np.ndarray:
    """medjax: every patch has an augmentation of its own."""
    pipeline = mj.Compose(
        [
            mj.ZNormalization(),
            mj.RandomAffine(p=0.75),
            mj.RandomElasticDeformation(p=0.5),
            mj.RandomBiasField(p=0.5),
            mj.RandomNoise(p=0.5),
        ]
    )
    subjects = [mj.Subject(t1=mj.ScalarImage(a), label=mj.LabelMap(b)) for a, b in pairs]
    dataset = mj.SubjectsDataset(subjects, pipeline)
    queue = mj.PatchQueue(dataset, mj.UniformSampler(PATCH), BATCH, jax.random.key(0), epochs=epochs)
    print(queue)
    return waits(queue)


def theirs(pairs: list[tuple[Path, Path]]) -> np.ndarray:
    """TorchIO with two workers: a volume is augmented once for its ten patches."""
    pipeline = tio.Compose(
        [
            tio.ZNormalization(),
            tio.RandomAffine(p=0.75),
            tio.RandomElasticDeformation(p=0.5),
            tio.RandomBiasField(p=0.5),
            tio.RandomNoise(p=0.5),
        ]
    )
    subjects = [tio.Subject(t1=tio.ScalarImage(a), label=tio.LabelMap(b)) for a, b in pairs]
    dataset = tio.SubjectsDataset(subjects, transform=pipeline)
    queue = tio.Queue(dataset, 40, SAMPLES, tio.data.UniformSampler(PATCH), num_workers=2)
    return waits(b["t1"]["data"].numpy() for b in tio.SubjectsLoader(queue, batch_size=BATCH, num_workers=0))


def main() -> None:
    """Print patches per second and the longest wait of both."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pairs = write(Path(folder))
        fast = ours(pairs, 8)
        warm = fast[len(fast) // 4 :]
        rate = BATCH * len(warm) / warm.sum()
        print(f"medjax: {rate:.1f} patches/s after warm-up, longest wait {warm.max() / warm.mean():.1f} mean intervals")
        start = time.perf_counter()
        slow = theirs(pairs)
        peer = FILES * SAMPLES / (time.perf_counter() - start)
        print(f"TorchIO: {peer:.2f} patches/s, longest wait {slow.max():.1f} s; ratio {rate / peer:.0f}")


if __name__ == "__main__":
    main()
