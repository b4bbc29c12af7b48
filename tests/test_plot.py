"""Pictures show slices in world orientation, with the aspect of the spacing."""

import jax
import numpy as np
from conftest import OBLIQUE, small_subject

import medjax as mj
from medjax.pictures import slice_of


def test_a_slice_has_anterior_on_top_whatever_the_orientation():
    data = np.zeros((1, 6, 8, 4), np.float32)
    data[0, :, 6, :] = 1  # anterior in RAS
    ras = mj.ScalarImage(data, np.diag([1, 2, 1, 1]))
    flipped = mj.ScalarImage(data[:, :, ::-1], np.array([[1, 0, 0, 0], [0, -2, 0, 14], [0, 0, 1, 0], [0, 0, 0, 1]]))
    for image in (ras, flipped):
        section, aspect = slice_of(image, "axial")
        assert section.shape == (8, 6) and section[1].all() and section.sum() == 6
        assert aspect == 2


def test_figures_have_an_axes_for_every_slice():
    subject = small_subject(OBLIQUE, (9, 10, 8))
    assert len(mj.plot_subject(subject).axes) == 6
    assert len(mj.plot_batch(mj.stack([subject] * 3)).axes) == 6
    made = mj.plot_transforms(subject, [mj.Flip(0), mj.RandomNoise()], jax.random.key(0))
    assert [ax.get_title() for ax in made.axes[:3]] == ["as it is", "Flip", "RandomNoise"]
