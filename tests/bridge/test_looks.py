"""What an image shows of itself: animations against the installed torchio, videos and viewers by stand-in programs."""

import os
import time

import numpy as np
import pytest
import torch
import torchio
from bridge.shared import time_limit as time_limit
from PIL import Image

import torch_bridge as tio


def volume(module, channels=1, top=200, affine=None):
    """An image of random values."""
    data = top * torch.rand(channels, 5, 6, 7, generator=torch.Generator().manual_seed(channels))
    return module.ScalarImage(tensor=data, affine=affine)


def program(folder, name, lines):
    """A program of the shell in a folder."""
    path = folder / name
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return path


def frames(path):
    """The pictures of an animation, how long each is shown and how often all are."""
    with Image.open(path) as gif:
        shown = []
        for i in range(gif.n_frames):
            gif.seek(i)
            shown.append((np.asarray(gif.convert("RGB")).astype(int), gif.info["duration"]))
        return shown, gif.info.get("loop")


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(
    "channels, options", [(1, {}), (3, {}), (1, {"rescale": False, "reverse": True, "loop": 2, "optimize": False})]
)
def test_an_animation_shows_what_that_of_torchio_shows(tmp_path, axis, channels, options):
    found = []
    for module in (tio, torchio):
        volume(module, channels).to_gif(axis, 2, tmp_path / "made.gif", **options)
        found.append(frames(tmp_path / "made.gif"))
    (ours, loop), (theirs, expected_loop) = found
    assert len(ours) == len(theirs) == 5 + axis and loop == expected_loop
    for (picture, duration), (expected, expected_duration) in zip(ours, theirs, strict=True):
        assert duration == expected_duration and picture.shape == expected.shape
        assert np.abs(picture - expected).max() <= (1 if channels == 1 else 40)  # 256 colours for all of them


def test_an_animation_that_is_too_fast_is_slowed_down(tmp_path):
    for module in (tio, torchio):
        with pytest.warns(RuntimeWarning, match="GIF"):
            volume(module).to_gif(0, 0.01, tmp_path / "made.gif")
        assert {duration for _, duration in frames(tmp_path / "made.gif")[0]} == {10}


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A stand-in for ffmpeg, which keeps what it is told and given."""
    program(tmp_path, "ffmpeg", f'echo "$@" > {tmp_path}/told\ncat > {tmp_path}/given\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize("direction, target", [("I", "IPL"), ("S", "SPL"), ("A", "AIL"), ("P", "PIL"), ("R", "RIP")])
def test_a_video_shows_slices_towards_a_direction(ffmpeg, direction, target):
    affine = np.array([[0, 0, 1.0, 3], [-2.0, 0, 0, 1], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    volume(tio, affine=affine).to_video(ffmpeg / "made.mp4", direction=direction)
    expected = torchio.ToOrientation(target)(volume(torchio, affine=affine))
    given = np.fromfile(ffmpeg / "given", np.uint8).reshape(expected.spatial_shape)
    np.testing.assert_array_equal(given, expected.numpy()[0].astype(np.uint8))
    told = (ffmpeg / "told").read_text()
    _, height, width = expected.spatial_shape
    _, tall, wide = np.array(expected.spacing) / min(expected.spacing[1:])
    assert f"-s {width}x{height} -r 15 " in told and told.split()[-1] == str(ffmpeg / "made.mp4")
    made = [int(n) for n in told.split("scale=")[1].split()[0].split(":")]
    assert all(n % 2 == 0 for n in made) and np.abs(np.array(made) - (width * wide, height * tall)).max() <= 1


def test_a_video_of_other_values_and_of_a_given_length(ffmpeg):
    image = tio.ScalarImage(tensor=3 * volume(tio).data - 100)
    with pytest.warns(RuntimeWarning, match="rescaled"):
        image.to_video(ffmpeg / "made.mp4", frame_rate=None, seconds=2)
    given = np.fromfile(ffmpeg / "given", np.uint8)
    assert given.min() == 0 and given.max() == 255 and "-r 3.5 " in (ffmpeg / "told").read_text()


def test_a_video_that_cannot_be_made(tmp_path, monkeypatch):
    image, path = volume(tio), tmp_path / "made.mp4"
    for options in ({"seconds": 2}, {"frame_rate": None}, {"direction": "X"}):
        with pytest.raises(ValueError, match="direction|seconds"):
            image.to_video(path, **options)
    with pytest.raises(ValueError, match="channel"):
        volume(tio, 2).to_video(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="ffmpeg"):
        image.to_video(path)


@pytest.mark.parametrize("named", ["viewer_path", "SITK_SHOW_COMMAND", "PATH"])
def test_a_viewer_gets_the_image(tmp_path, monkeypatch, named):
    read = f'for last; do true; done\ncp "$last" {tmp_path}/copied.part && mv {tmp_path}/copied.part {tmp_path}/shown'
    viewer = program(tmp_path, "itksnap", read)
    monkeypatch.setenv("SITK_SHOW_EXTENSION", ".nii")
    if named != "viewer_path":
        monkeypatch.setenv(named, str(viewer) if named != "PATH" else f"{tmp_path}:{os.environ['PATH']}")
    image = tio.LabelMap(tensor=(volume(tio).data > 100).byte()) if named == "PATH" else volume(tio)
    image.show(viewer if named == "viewer_path" else None)
    deadline = time.monotonic() + 60
    while not (tmp_path / "shown").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    suffix = ".seg.nrrd" if named == "PATH" else ".nii"
    (tmp_path / "shown").rename(tmp_path / f"shown{suffix}")
    torch.testing.assert_close(torchio.ScalarImage(tmp_path / f"shown{suffix}").data, image.data, check_dtype=False)


def test_no_viewer_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv("SITK_SHOW_COMMAND", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="SITK_SHOW_COMMAND"):
        volume(tio).show()
