"""Gradients beside a series: read, turned with it, and written again."""

import re

import numpy as np
import pytest
from conftest import OBLIQUE

import medjax as mj

AFFINES = {"radiological": np.diag([-2.0, 2, 2, 1]), "neurological": np.diag([2.0, 2, 2, 1]), "oblique": OBLIQUE}


def series(folder, affine, count=5, ending="", name="dwi.nii.gz"):
    """A series in a file with text files beside it; its b-values and b-vectors."""
    rng = np.random.default_rng(0)
    mj.ScalarImage(rng.normal(size=(count, 5, 4, 3)).astype(np.float32), affine).save(folder / name)
    bvals, bvecs = rng.integers(0, 3000, count).astype(float), rng.normal(size=(3, count))
    bvecs = bvecs / np.linalg.norm(bvecs, axis=0)
    bvecs[:, 0] = bvals[0] = 0
    np.savetxt(folder / f"dwi.bval{ending}", bvals[None], fmt="%g")
    np.savetxt(folder / f"dwi.bvec{ending}", bvecs, fmt="%.8f")
    return folder / name, bvals, bvecs


def in_the_world(bvecs, affine):
    """By the rule of FSL's FDT: along the voxel axes, the first reversed where these are right-handed."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return sum(np.outer(bvecs[i] * (-1 if i == 0 and np.linalg.det(axes) > 0 else 1), axes[:, i]) for i in range(3))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("ending", ["", "s"])
def test_what_lies_beside_a_series_is_read_and_written_again(tmp_path, affine, ending):
    path, bvals, bvecs = series(tmp_path, affine, ending=ending)
    values, directions = mj.fsl_gradients(path)
    np.testing.assert_array_equal(values, bvals)
    np.testing.assert_allclose(directions.xyz, in_the_world(bvecs, affine), atol=1e-6)
    for given in (tmp_path / f"dwi.bvec{ending}", str(tmp_path / f"dwi.bvec{ending}"), bvecs, bvecs.T):
        for where in (affine, mj.ScalarImage(path)):
            again = mj.Directions.from_fsl(given, where)
            np.testing.assert_allclose(again.xyz, directions.xyz, atol=1e-6)
    (tmp_path / "out").mkdir()
    mj.save_fsl_gradients(tmp_path / "out" / "dwi.nii.gz", values, directions, mj.ScalarImage(path))
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "out" / "dwi.bval"), bvals)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "out" / "dwi.bvec"), bvecs, atol=1e-6)
    assert not list((tmp_path / "out").glob(".medjax*"))


def test_directions_that_were_turned_are_written_for_the_grid_that_they_came_to(tmp_path):
    """In another order of axes the same directions have other b-vectors; a quarter turn of the content turns them."""
    path, _, bvecs = series(tmp_path, OBLIQUE)
    values, directions = mj.fsl_gradients(path)
    subject = mj.Subject(dwi=mj.ScalarImage(path), gradients=directions, bvals=values)
    other = mj.ToOrientation("PIR")(subject)
    mj.save_fsl_gradients(tmp_path / "new.nii", other.bvals, other.gradients, other.dwi)
    other.dwi.save(tmp_path / "new.nii")
    np.testing.assert_allclose(mj.fsl_gradients(tmp_path / "new.nii")[1].xyz, directions.xyz, atol=1e-5)
    written = np.loadtxt(tmp_path / "new.bvec")
    np.testing.assert_allclose(
        in_the_world(written, np.asarray(other.dwi.affine)), in_the_world(bvecs, OBLIQUE), atol=1e-5
    )
    turned = mj.Affine(degrees=(0, 0, 90))(subject)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(np.abs(turned.gradients.xyz), np.abs(directions.xyz @ quarter.T), atol=1e-5)


def test_what_is_wrong_with_the_files_is_said(tmp_path):
    path, *_ = series(tmp_path, OBLIQUE)
    (tmp_path / "dwi.bval").write_text("0 1000 1000\n")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'dwi.bval'} has 3 entries, but {path} has 5 volumes")):
        mj.fsl_gradients(path)
    for text, said in (("0 1 2 x 4", "no table of numbers"), ("0 1\n2\n", "no table"), ("", "no numbers"),
                       ("0 1 2 nan 3", "not finite"), ("0 1 2 -5 3", "at least 0"), ("0 1\n1 2\n", "one row")):  # fmt: skip
        (tmp_path / "dwi.bval").write_text(text)
        with pytest.raises(ValueError, match=rf"dwi\.bval .*{said}"):
            mj.fsl_gradients(path)
    (tmp_path / "dwi.bval").write_text("0, 1, 2, 3, 4")
    (tmp_path / "dwi.bvec").write_text("0 1\n0 1\n")
    with pytest.raises(ValueError, match=r"dwi\.bvec must hold three rows of b-vectors, got 2 of 2 numbers"):
        mj.fsl_gradients(path)
    (tmp_path / "dwi.bvec").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is neither dwi\.bvec nor dwi\.bvecs"):
        mj.fsl_gradients(path)
    with pytest.raises(ValueError, match="bvals must be 2 numbers, one for each direction, got shape"):
        mj.save_fsl_gradients(tmp_path / "a.nii", [1.0], mj.Directions(np.eye(3)[:2]), OBLIQUE)
