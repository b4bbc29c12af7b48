"""After a warm-up nothing is compiled; what cannot be warmed up is refused."""

import jax
import numpy as np
import pytest
from conftest import compilations, small_subject

import medjax as mj

PIPELINE = mj.Compose(
    [mj.RandomAffine(degrees=10, p=0.5), mj.ZNormalization(masking_method="label"), mj.RandomNoise(p=0.5)]
)


@pytest.fixture
def files(tmp_path):
    """A subject of files, unread."""
    subject = small_subject()
    subject.t1.save(tmp_path / "t1.nii.gz"), subject.label.save(tmp_path / "label.nii.gz")
    return mj.Subject(t1=mj.ScalarImage(tmp_path / "t1.nii.gz"), label=mj.LabelMap(tmp_path / "label.nii.gz"), name="a")


def test_a_call_after_it_compiles_nothing_and_no_voxel_is_read_for_it(files):
    with compilations() as count:
        assert mj.warmup(PIPELINE, files) > 0
        assert count() > 0
    assert all(image.held()[0] is None for image in files.images.values())
    with compilations() as count:
        PIPELINE(files, jax.random.key(3))
        PIPELINE(small_subject(seed=1), jax.random.key(4))
        assert count() == 0


def test_a_batch_after_it_compiles_nothing(files):
    mj.warmup(PIPELINE, files, batch=3)
    batch = mj.stack([small_subject(seed=seed) for seed in range(3)])
    with compilations() as count:
        PIPELINE.batch(batch, jax.random.key(3))
        assert count() == 0


def test_shapes_by_name_stand_for_float_images():
    pipeline = mj.Compose([mj.RandomGamma(), mj.RandomBlur(p=0.5)])
    mj.warmup(pipeline, {"t1": (2, 9, 8, 7), "t2": (1, 9, 8, 7)})
    rng = np.random.default_rng(0)
    images = {"t1": rng.random((2, 9, 8, 7), np.float32), "t2": rng.random((1, 9, 8, 7), np.float32)}
    subject = mj.Subject({name: mj.ScalarImage(data, np.eye(4)) for name, data in images.items()})
    with compilations() as count:
        pipeline(subject, jax.random.key(1))
        assert count() == 0


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((lambda x: x, {"t1": (1, 4, 4, 4)}), TypeError, "pipeline must be a transform, got function"),
        ((mj.Flip(0), [(1, 4, 4, 4)]), TypeError, r"shapes must be a Subject or shapes \(C, I, J, K\) by name"),
        ((mj.Flip(0), {}), TypeError, "shapes must be a Subject"),
        ((mj.Flip(0), {"t1": (4, 4, 4)}), ValueError, r"shapes\['t1'\] must be \(C, I, J, K\), got \(4, 4, 4\)"),
        ((mj.Flip(0), {"t1": (0, 4, 4, 4)}), ValueError, r"shapes\['t1'\]"),
    ],
)
def test_what_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        mj.warmup(*arguments)
    with pytest.raises(ValueError, match="batch"):
        mj.warmup(mj.Flip(0), {"t1": (1, 4, 4, 4)}, batch=0)
