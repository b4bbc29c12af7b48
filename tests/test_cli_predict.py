"""`medjax predict`: a network in a file, without any code of it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, blobs

import medjax as mj
from medjax.cli import main

PATCH = (12, 10, 8)
CENTRES = jnp.linspace(0, 1, 3).reshape(1, 3, 1, 1, 1)


def scores(x):
    """Three classes, by how near an intensity is to 0, 1/2 and 1."""
    return -((x - CENTRES) ** 2)


def exported(folder, shape, function=scores):
    path = folder / "network.jax"
    given = jax.ShapeDtypeStruct(shape, jnp.float32)
    path.write_bytes(jax.export.export(jax.jit(function))(given).serialize())
    return path


@pytest.fixture
def volumes(tmp_path):
    paths = [tmp_path / f"case{n}.nii.gz" for n in range(2)]
    for n, path in enumerate(paths):
        mj.ScalarImage(blobs((17, 15, 11), n)[None], OBLIQUE).save(path)
    return paths


@pytest.mark.parametrize("batch", ["1", "b"])
def test_labels_are_those_of_the_classes_that_are_nearest(batch, volumes, tmp_path, capsys):
    shape = jax.export.symbolic_shape(f"{batch}, 1, 12, 10, 8") if batch == "b" else (1, 1, *PATCH)
    network, out = exported(tmp_path, shape), tmp_path / "out"
    more = ["--batch-size", "3"] if batch == "b" else []
    line = ["predict", str(network), "ToOrientation('LPS')", *map(str, volumes), str(out)]
    assert main([*line, "--labels", "0", "4", "9", "--flips", "0", *more]) == 0
    assert capsys.readouterr().out.split() == [str(out / path.name) for path in volumes]
    for path in volumes:
        given, found = mj.ScalarImage(path), mj.LabelMap(out / path.name)
        nearest = np.abs(given.numpy()[0] - np.array([0, 0.5, 1]).reshape(3, 1, 1, 1)).argmin(0)
        np.testing.assert_array_equal(found.numpy()[0], np.array([0, 4, 9])[nearest])
        np.testing.assert_allclose(found.affine, given.affine, atol=1e-5)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda folder: exported(folder, (1, *PATCH), jnp.negative), r"\(B, C, \*patch_size\)"),
        (lambda folder: exported(folder, jax.export.symbolic_shape("1, 1, a, b, c")), "fixed patch_size"),
        (lambda folder: folder / "case0.nii.gz", "holds no function"),
        (lambda folder: folder / "none.jax", "none.jax"),
    ],
)
def test_a_file_that_holds_no_network_is_named(make, said, volumes, tmp_path, capsys):
    assert main(["predict", str(make(tmp_path)), "Resample(1.0)", str(volumes[0]), str(tmp_path / "out")]) == 1
    assert re.search(said, capsys.readouterr().err)
