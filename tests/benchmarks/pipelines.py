"""The pipelines that benchmarks share, for medjax and for TorchIO alike."""

from typing import Any


def guide(library: Any) -> Any:
    """The 'Compose Transforms' pipeline of TorchIO's guide."""
    return library.Compose(
        [
            library.Resample(1.0),
            library.CropOrPad((160, 192, 160)),
            library.ZNormalization(masking_method="label"),
            library.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
            library.RandomElasticDeformation(p=0.5),
            library.RandomBiasField(p=0.5),
            library.RandomNoise(std=(0, 0.05), p=0.5),
            library.RandomFlip(axes=("LR",), flip_probability=0.5),
        ]
    )
