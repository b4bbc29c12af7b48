"""Small helpers that TorchIO's users import: subjects of batches, predictions into subjects, made-up data sets."""

import ast
import gzip
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from medjax.arguments import sizes
from torch_bridge.constants import AFFINE, DATA, LABEL, TYPE
from torch_bridge.files import stem
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.looks import guess_external_viewer as guess_external_viewer
from torch_bridge.subject import HISTORIES, Batch, Subject


def to_tuple(value: Any, length: int = 1) -> tuple[Any, ...]:
    """What is iterable as a tuple; anything else `length` times."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return tuple(value)
    return length * (value,)


def guess_type(text: str) -> Any:
    """What a text says as a Python literal; itself if it says none."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def normalize_path(path: str | Path) -> Path:
    """An absolute path, `~` being the home."""
    return Path(path).expanduser().resolve()


def get_stem(path: str | Path | Sequence[str | Path]) -> Any:
    """The name of a file without its suffixes; of several a list."""
    return [stem(each) for each in path] if isinstance(path, list | tuple) else stem(path)


def get_first_item(data_loader: Iterable[Any]) -> Any:
    """The first of what a loader gives."""
    return next(iter(data_loader))


def get_batch_images_and_size(batch: dict[str, Any]) -> tuple[list[str], int]:
    """Names of the images of a batch, and how many subjects it has. Raises RuntimeError without an image."""
    sizes = {name: len(item[DATA]) for name, item in batch.items() if isinstance(item, dict) and DATA in item}
    if not sizes:
        raise RuntimeError(f"the batch has no image, only {', '.join(batch)}")
    return list(sizes), next(iter(sizes.values()))


def get_subjects_from_batch(batch: dict[str, Any]) -> list[Subject]:
    """The subjects of a batch, in memory of their own; of a plain dictionary of images and lists, too."""
    names, size = get_batch_images_and_size(batch)
    if isinstance(batch, Batch):
        return [subject.owned() for subject in batch.unstacked()]
    return [Subject({n: image_of(i, k) if n in names else i[k] for n, i in batch.items()}) for k in range(size)]


def image_of(item: dict[str, Any], i: int) -> Image:
    """Image i of a dictionary of tensors (B, C, I, J, K), affines (B, 4, 4) and lists of B."""
    cls = LabelMap if item[TYPE][i] == LABEL else ScalarImage
    return cls(tensor=item[DATA][i].clone(), affine=item[AFFINE][i])


def history_collate(batch: Sequence[Subject], collate_transforms: bool = True) -> Any:
    """A batch of subjects, for `collate_fn=`; `batch["history"]` has the history of each.

    collate_transforms: False for `batch["applied_transforms"]`, their records. Anything but subjects is {}.
    """
    if not batch or not isinstance(batch[0], Subject):
        return {}
    made = default_collate(list(batch))
    made._shows = HISTORIES[0 if collate_transforms else 1]
    return made


def parse_spatial_shape(shape: Any) -> tuple[int, ...]:
    """Three whole numbers of at least 1, from one or three."""
    return sizes("shape", shape)


def add_images_from_batch(
    subjects: Sequence[Subject], tensor: torch.Tensor, class_: type[Image] | None = None, name: str = "prediction"
) -> None:
    """Put image i of a tensor (B, C, I, J, K) into subject i, on the grid of its first image.

    class_: None for ScalarImage.
    """
    for subject, data in zip(subjects, tensor, strict=True):
        subject.add_image((class_ or ScalarImage)(tensor=data, affine=subject.get_first_image().affine), name)


def create_dummy_dataset(
    num_images: int,
    size_range: tuple[int, int],
    directory: str | Path | None = None,
    suffix: str = ".nii.gz",
    force: bool = False,
    verbose: bool = False,
) -> list[Subject]:
    """Subjects of files of noise and labels 0, 1 and 2, written unless they are there.

    size_range: of the axes, [low, high).  directory: None for the system's temporary one.  force: write them anew.
    """
    folder = Path(tempfile.gettempdir() if directory is None else directory)
    folders = {"one_modality": folder / "dummy_images", "segmentation": folder / "dummy_labels"}
    stems = {"one_modality": "image", "segmentation": "label"}
    if force:
        for each in folders.values():
            shutil.rmtree(each)
    missing = not folders["one_modality"].is_dir()
    subjects = []
    for i in range(num_images):
        paths = {name: each / f"{stems[name]}_{i}{suffix}" for name, each in folders.items()}
        if missing:
            random = np.random.default_rng(i)
            noise = random.random((1, *random.integers(*size_range, size=3)))
            for name, made in {"one_modality": 255 * noise, "segmentation": np.digitize(noise, (0.33, 0.66))}.items():
                paths[name].parent.mkdir(parents=True, exist_ok=True)
                ScalarImage(tensor=made.astype(np.uint8)).save(paths[name])
            if verbose:
                print(f"image {i} of {num_images} written")
        subjects.append(
            Subject(
                one_modality=ScalarImage(paths["one_modality"]),
                segmentation=LabelMap(paths["segmentation"]),
            )
        )
    return subjects


def apply_transform_to_file(
    input_path: str | Path, transform: Any, output_path: str | Path, class_: str = "ScalarImage", verbose: bool = False
) -> None:
    """Write what a transform makes of the image of a file. class_: 'ScalarImage' or 'LabelMap'."""
    cls = {"ScalarImage": ScalarImage, "LabelMap": LabelMap}[class_]
    subject = transform(Subject(image=cls(input_path)))
    subject.image.save(output_path)
    if verbose:
        print(f"Applied transform: {transform}")


def compress(input_path: str | Path, output_path: str | Path | None = None) -> Path:
    """Write a file compressed by gzip; None for a path that ends in .nii.gz."""
    output = Path(input_path).with_suffix(".nii.gz") if output_path is None else Path(output_path)
    with open(input_path, "rb") as source, gzip.open(output, "wb") as target:
        shutil.copyfileobj(source, target)
    return output
