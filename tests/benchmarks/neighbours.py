"""torch_bridge among its neighbours: against MONAI's dictionary transforms, and in front of a network.

python tests/benchmarks/neighbours.py [monai network] [--repeats N]

monai: a batch of two 96x96x96 volumes with their labels, by MONAI's random transforms one element after the other and
by `Augment`; goal 8 times.  network: a step of a small U-Net, of which two threads of torch share the cores with JAX's
pool, with `Augment` before it and without; goal at most 1.1 times. Contestants take turns; means are compared, for what is drawn decides
what a batch costs.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from timer import seconds

import torch_bridge as tio

KEYS = ["image", "label"]
SIZE = 96


def volumes(count: int = 2) -> list[dict[str, torch.Tensor]]:
    """Elements of a batch, as MONAI's loaders decollate them."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, SIZE, SIZE, SIZE, generator=generator) for _ in range(count)]
    return [{"image": image, "label": (image > 0.5).float()} for image in images]


def pipeline() -> tio.Compose:
    """The transforms that `of_monai` has, with its probabilities."""
    return tio.Compose(
        [
            tio.RandomAffine(scales=(0.9, 1.1), degrees=15, p=0.5),
            tio.RandomFlip(axes=(0, 1, 2), flip_probability=0.5),
            tio.RandomNoise(std=(0, 0.1), p=0.3),
            tio.RandomBlur(std=(0.5, 1), p=0.2),
            tio.RandomGamma(log_gamma=(-0.3, 0.3), p=0.3),
        ]
    )


def of_monai() -> Any:
    """MONAI's."""
    from monai import transforms as mt

    angle = 15 * torch.pi / 180
    return mt.Compose(
        [
            mt.RandAffined(KEYS, prob=0.5, rotate_range=[angle] * 3, scale_range=[0.1] * 3, mode=("bilinear", "nearest")),
            *(mt.RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)),
            mt.RandGaussianNoised("image", prob=0.3, std=0.1),
            mt.RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
            mt.RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.35)),
        ]
    )  # fmt: skip


def means(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The mean time of each in seconds, after one call to warm up, all taking turns."""
    for run in contestants.values():
        seconds(run)
    spent = [{name: seconds(run) for name, run in contestants.items()} for _ in range(repeats)]
    return {name: sum(each[name] for each in spent) / repeats for name in contestants}


def against_monai(options: argparse.Namespace) -> None:
    """Print how many times MONAI's milliseconds a batch takes."""
    from monai.data import list_data_collate

    elements, monai, augment = volumes(), of_monai(), tio.Augment(pipeline(), labels=["label"])
    contestants = {
        "monai": lambda: list_data_collate([monai(dict(each)) for each in elements]),
        "medjax": lambda: augment(list_data_collate(elements)),
    }
    mean = means(contestants, options.repeats)
    print(f"monai: {1e3 * mean['monai']:.0f} ms, medjax {1e3 * mean['medjax']:.0f} ms a batch, "
          f"{mean['monai'] / mean['medjax']:.1f} times; goal 8")  # fmt: skip


def before_network(options: argparse.Namespace) -> None:
    """Print how many times as long a step of a network takes with an augmentation before it."""
    from monai.networks.nets.unet import UNet

    torch.set_num_threads(2)
    network = UNet(3, 1, 2, channels=(16, 32, 64), strides=(2, 2), num_res_units=1)
    augment, batch = (
        tio.Augment(pipeline(), labels=["label"]),
        {n: torch.stack([e[n] for e in volumes()]) for n in KEYS},
    )

    def step(batch: dict[str, torch.Tensor]) -> None:
        loss = torch.nn.functional.cross_entropy(network(batch["image"]), batch["label"][:, 0].long())
        network.zero_grad()
        loss.backward()

    mean = means({"bare": lambda: step(batch), "augmented": lambda: step(augment(batch))}, options.repeats)
    print(f"network: bare {1e3 * mean['bare']:.0f} ms, augmented {1e3 * mean['augmented']:.0f} ms a step, "
          f"{mean['augmented'] / mean['bare']:.2f} times; goal at most 1.1")  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["monai", "network"])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    for name in options.names:
        {"monai": against_monai, "network": before_network}[name](options)


if __name__ == "__main__":
    main()
