"""Label maps of 8.7 million voxels: the vote of the corners by the number of labels, and components against bare cc3d.

python tests/benchmarks/labels.py
"""

import cc3d
import jax
import numpy as np
from scipy.ndimage import gaussian_filter
from timer import alternate, volume

import medjax as mj

LABELS = (3, 30, 300)
NEIGHBOURS = {1: 6, 2: 18, 3: 26}


def parcels(count: int) -> np.ndarray:
    """A map of `count` labels in blobs, (1, 197, 233, 189), int16."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(197, 233, 189)).astype(np.float32), 4)
    ends = np.quantile(noise[::4, ::4, ::4], np.linspace(0, 1, count + 1)[1:-1])
    return np.searchsorted(ends, noise).astype(np.int16)[None]


def main() -> None:
    """Print ratios: of the vote to that of three labels, and of components to the time of cc3d alone."""
    move = jax.jit(mj.Affine((1.1, 0.9, 1.05), (5, -8, 10), (2, 3, -4), label_interpolation="linear"))
    maps = {count: mj.LabelMap(parcels(count)).replace(affine=np.eye(4)) for count in LABELS}
    key = jax.random.key(0)
    best = alternate({str(count): lambda image=image: move(image, key).data for count, image in maps.items()})
    for count in LABELS:
        print(
            f"vote of {count:3} labels: {best[str(count)] / best['3']:.2f} of 3 labels ({best[str(count)] * 1e3:.0f} ms)"
        )

    _, grey, _ = volume()
    tissue = (grey + 2 * (parcels(3) == 2) * grey).astype(np.uint8)
    image = mj.LabelMap.of(jax.device_put(tissue), np.eye(4))
    for connectivity, neighbours in NEIGHBOURS.items():
        keep = jax.jit(mj.KeepLargestComponent(connectivity=connectivity))
        best = alternate(
            {
                "medjax": lambda keep=keep: keep(image, key).data,
                "cc3d": lambda n=neighbours: cc3d.connected_components(tissue[0], connectivity=n),
            }
        )
        print(
            f"largest component, {neighbours} neighbours: {best['medjax'] / best['cc3d']:.2f} of bare cc3d (goal 1.5)"
        )


if __name__ == "__main__":
    main()
