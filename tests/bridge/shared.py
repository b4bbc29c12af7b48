"""What the tests of torch_bridge share: subjects of tensors, and a time limit for each test, whose failures are hangs."""

import faulthandler
import sys

import numpy as np
import pytest
import torch
from conftest import OBLIQUE, blobs

import torch_bridge as tio


@pytest.fixture(autouse=True)
def time_limit():
    """A test that hangs prints its stacks and ends the process."""
    faulthandler.dump_traceback_later(150, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


def tensors(seed=0, shape=(20, 24, 16), **items):
    """A subject of tensors on an oblique grid: t1 float32, t2 int16, label int64."""
    data = torch.from_numpy(blobs(shape, seed))[None]
    return tio.Subject(
        t1=tio.ScalarImage(tensor=data.clone(), affine=OBLIQUE),
        t2=tio.ScalarImage(tensor=(100 * data).to(torch.int16), affine=OBLIQUE),
        label=tio.LabelMap(tensor=(data > 0.5).long() + (data > 0.6).long(), affine=OBLIQUE),
        **items,
    )


def files(folder, count=4, shape=(20, 24, 16)):
    """Subjects of the same in files."""
    subjects = []
    for i in range(count):
        subject = tensors(i, shape)
        for name, image in subject.get_images_dict(intensity_only=False).items():
            image.save(folder / f"{i}_{name}.nii.gz")
        subjects.append(
            tio.Subject(
                t1=tio.ScalarImage(folder / f"{i}_t1.nii.gz"),
                label=tio.LabelMap(folder / f"{i}_label.nii.gz"),
                number=i,
                name=f"subject-{i}",
            )
        )
    return subjects


def voxels(subject):
    """Copies of the voxels by name."""
    return {name: np.array(image.numpy()) for name, image in subject.get_images_dict(intensity_only=False).items()}
