"""The parts of the demo: what is held out stays held out, scores are right, pictures are written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from medjax import cli, demo


@pytest.fixture(scope="module")
def brain():
    data = blobs((80, 170, 76))
    label = ((data > 0.45).astype(np.uint8) + (data > 0.55)).astype(np.uint8)
    return demo.prepared(mj.Subject(image=mj.ScalarImage(data[None]), label=mj.LabelMap(label[None])))


def test_no_cut_touches_what_is_held_out(brain):
    split = demo.cut_in_two(brain)
    held = split.held_out.label.numpy() > 0
    assert held.sum() / (brain.label.numpy() > 0).sum() == pytest.approx(1 / 3, abs=0.02)
    image = brain.image.numpy().copy()
    image[:, :, split.cut :] = np.nan
    arrays = {
        "image": jnp.asarray(demo.cut_in_two(brain.replace(image=brain.image.replace(data=image))).training.image.data)
    }
    places = jnp.asarray(demo.starts(split.training.label.numpy()))
    for i in range(50):
        cut = demo.cuts(arrays, places, jax.random.key(i))["image"]
        assert cut.shape[2:] == (demo.PATCH + 2 * demo.MARGIN,) * 3 and not np.isnan(cut).any()


def test_the_labels_of_a_user_are_numbered_and_brought_to_the_grid_of_the_image():
    data = blobs((20, 24, 16))
    label = np.zeros((1, 10, 12, 8), np.int16)
    label[0, 5:, :6], label[0, 5:, 6:] = 1002, 17
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5
    made = demo.prepared(mj.Subject(image=mj.ScalarImage(data[None]), label=mj.LabelMap(label, coarse)))
    assert made.names == ("label 17", "label 1002")
    assert made.label.spatial_shape == (20, 24, 16)
    assert set(np.unique(made.label.numpy()[0, 10:, :12])) == {2}
    assert set(np.unique(made.label.numpy()[0, 10:, 12:])) == {1}
    with pytest.raises(ValueError, match="0 labels"):
        demo.prepared(made.replace(label=made.label.replace(data=made.label.numpy() * 0)))


def test_what_the_demo_cannot_do_is_said(brain, tmp_path, capsys):
    assert cli.main(["demo", "--steps", "1", "--out", str(tmp_path / "a")]) == 1
    assert "--steps must be at least 2" in capsys.readouterr().err
    assert cli.main(["demo", "--image", "a.nii.gz", "--out", str(tmp_path / "a")]) == 1
    assert "give both --image and --label" in capsys.readouterr().err
    with pytest.raises(ValueError, match="too small"):
        demo.cut_in_two(mj.CropOrPad((80, 40, 76))(brain))
    assert not (tmp_path / "a").exists()


def test_dice_is_that_of_sets():
    draw = np.random.default_rng(0)
    found, truth = draw.integers(0, 3, (2, 6, 7, 8))
    for c, score in demo.dice_scores(found, truth, 3).items():
        a, b = (set(map(tuple, np.argwhere(v == c))) for v in (found, truth))
        assert score == pytest.approx(2 * len(a & b) / (len(a) + len(b)))


def test_folding_is_undone_by_unfolding():
    x = jnp.arange(2 * 4 * 6 * 8 * 3, dtype=jnp.float32).reshape(2, 4, 6, 8, 3)
    np.testing.assert_array_equal(demo.unfolded(demo.folded(x)), x)


def test_training_and_prediction_run(brain, tmp_path):
    split = demo.cut_in_two(brain)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax and flax promote
        model = demo.train(split.training, 3, jax.random.key(0), 2)
    found = demo.predict(model, split.held_out)
    assert found.shape == split.held_out.image.spatial_shape
    demo.picture(split.held_out, found, tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 1000


def test_info_says_what_a_file_holds(tmp_path, capsys):
    mj.ScalarImage(np.zeros((1, 4, 5, 6), np.int16), np.diag([-1, 1, 2, 1])).save(tmp_path / "a.nii.gz")
    assert cli.main(["info", str(tmp_path / "a.nii.gz")]) == 0
    assert "1 x 4 x 5 x 6 int16, 1 x 1 x 2 mm, LAS" in capsys.readouterr().out
    assert cli.main(["info", str(tmp_path / "b.nii.gz")]) == 1
    assert "b.nii.gz" in capsys.readouterr().err
