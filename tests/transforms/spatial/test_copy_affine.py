"""CopyAffine: headers change, voxels do not."""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject

import medjax as mj

WRONG = OBLIQUE + np.array([[0, 0.01, 0, 0.3], [0.02, 0, 0, -0.2], [0, 0, 0.01, 0.1], [0, 0, 0, 0]])


def mislabelled():
    """A T1 whose header is right, a T2 and labels whose headers are not, and a landmark on a voxel of the T1."""
    good = small_subject()
    mark = mj.Points(np.array([(OBLIQUE @ [5, 6, 7, 1])[:3], (OBLIQUE @ [20, 3, 11, 1])[:3]]))
    return mj.Subject(
        t1=good.t1, t2=mj.ScalarImage((blobs(seed=1) * 999).astype(np.int16)[None], WRONG),
        label=good.label.replace(affine=WRONG), mark=mark,
    )  # fmt: skip


def test_affines_are_those_of_the_target_and_voxels_are_untouched():
    subject = mislabelled()
    got = mj.CopyAffine("t1")(subject)
    for name in ("t1", "t2", "label"):
        np.testing.assert_allclose(got[name].affine, OBLIQUE, atol=1e-12)
        assert got[name].dtype == subject[name].dtype
        np.testing.assert_array_equal(got[name].numpy(), subject[name].numpy())
    np.testing.assert_allclose(got.mark.xyz, subject.mark.xyz, atol=1e-3)


def test_landmarks_stay_on_the_voxels_of_the_first_image():
    subject = mislabelled()
    got = mj.CopyAffine("t2")(subject)
    np.testing.assert_allclose(got.t1.affine, WRONG, atol=1e-12)
    for xyz, voxel in zip(np.asarray(got.mark.xyz), ((5, 6, 7), (20, 3, 11))):
        np.testing.assert_allclose(xyz, (WRONG @ [*voxel, 1])[:3], atol=2e-3)


def test_what_is_not_included_keeps_its_header():
    got = mj.CopyAffine("t1", exclude=["t2"])(mislabelled())
    np.testing.assert_array_equal(got.t2.affine, WRONG)
    np.testing.assert_allclose(got.label.affine, OBLIQUE, atol=1e-12)


@pytest.mark.parametrize("moves", [
    [mj.Affine(degrees=(5, 10, -15), translation=(1, 2, 0))],
    [mj.Flip(0), mj.Crop((1, 2, 3))],
    [mj.Resize((20, 20, 20)), mj.Affine(scales=1.1)],
], ids=["affine", "indexing", "resize"])  # fmt: skip
def test_in_a_run_it_is_as_if_the_headers_had_been_right(moves):
    subject = mislabelled()
    t = mj.Compose([mj.CopyAffine("t1"), *moves])
    assert repr(t).count("one gather") == 1
    corrected = subject.replace(**{n: subject[n].replace(affine=OBLIQUE) for n in ("t2", "label")})
    got, want = t(subject), mj.Compose(moves)(corrected)
    for name in ("t1", "t2", "label"):
        np.testing.assert_allclose(got[name].affine, want[name].affine, atol=1e-9)
        assert got[name].dtype == want[name].dtype
        scale = np.ptp(want[name].numpy())
        assert np.mean(np.abs(got[name].numpy() - want[name].numpy().astype(float)) > 1e-3 * scale) < 1e-3
    np.testing.assert_allclose(got.mark.xyz, want.mark.xyz, atol=2e-3)


def test_after_a_move_the_moved_voxels_are_relabelled():
    """A grid of its own for each image until then; what the affine did stays done."""
    subject = mislabelled()
    move = mj.Affine(degrees=(0, 0, 20))
    got = mj.Compose([move, mj.CopyAffine("t1")])(subject)
    want = move(subject)
    np.testing.assert_allclose(got.t2.affine, OBLIQUE, atol=1e-9)
    np.testing.assert_allclose(got.t2.numpy(), want.t2.numpy(), atol=0.5)
    assert np.mean(got.label.numpy() != want.label.numpy()) < 1e-3


def test_the_way_back_gives_the_old_headers():
    subject = mislabelled()
    t = mj.CopyAffine("t1")
    back = t.invert(t(subject), t.sample(None, subject), like=subject)
    for name in ("t1", "t2", "label"):
        np.testing.assert_array_equal(back[name].affine, subject[name].affine)
        np.testing.assert_array_equal(back[name].numpy(), subject[name].numpy())


def test_a_target_that_is_not_there_or_has_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"target='flair' is no image of the subject, which has t1, t2, label"):
        mj.CopyAffine("flair")(mislabelled())
    other = mj.ScalarImage(blobs((9, 8, 7))[None], OBLIQUE)
    with pytest.raises(ValueError, match=r"images of one shape"):
        mj.CopyAffine("t1")(mislabelled().replace(t2=other))
