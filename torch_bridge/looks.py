"""Pictures of images: slices, histograms, animations, and the viewer on the desk. Needs what it names, when called."""

import base64
import io
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medjax import geometry
from medjax.errors import needs_extra
from medjax.io import objects

PLANES = {"Sagittal": (0, 1, 2), "Coronal": (1, 0, 2), "Axial": (2, 0, 1)}
"""The axis that a plane is cut across, and those that run to the right and up in it."""


class Looks:
    """Abstract. What an image shows of itself."""

    data: torch.Tensor
    affine: np.ndarray
    type: str
    is_2d: Callable[[], bool]
    check_is_2d: Callable[[], None]

    def plot(self, return_fig: bool = False, show: bool = True, **options: Any) -> Any:
        """Draw the three middle slices; see `plot_image` for the options."""
        figure = plot_image(self, **options)
        return shown(figure, show, return_fig)

    def show(self, viewer_path: str | Path | None = None) -> None:
        """Open the image in a viewer; None for that of SITK_SHOW_COMMAND, or one that is found (Slicer, ITK-SNAP).

        Raises RuntimeError if there is none.
        """
        viewer, image = objects.sitk().ImageViewer(), self.as_sitk()  # pyright: ignore
        if self.type == "label":
            viewer.SetFileExtension(".seg.nrrd")
        if viewer_path is not None:
            viewer.SetApplication(str(viewer_path))
        try:
            viewer.Execute(image)
        except RuntimeError as error:
            found = guess_external_viewer()
            if found is None:
                raise RuntimeError(
                    "no viewer was found: give viewer_path, or set the environment variable SITK_SHOW_COMMAND"
                ) from error
            viewer.SetApplication(str(found))
            viewer.Execute(image)

    def hist(self, show: bool = True, **options: Any) -> Any:
        """Draw a histogram of the voxels; options go to matplotlib's `hist`."""
        plt = pyplot()
        figure, ax = plt.subplots()
        ax.hist(self.data.flatten().numpy(), **{"bins": 256, "density": True, **options})
        ax.set_xlabel("intensity")
        ax.set_ylabel("density")
        return shown(figure, show, True)

    def as_pil(self, transpose: bool = True) -> Any:
        """A picture of Pillow, of uint8, of an image of one slice and 1, 3 or 4 channels; values are clamped."""
        from PIL import Image

        self.check_is_2d()
        tensor = self.data
        if len(tensor) not in (1, 3, 4):
            raise NotImplementedError(f"a picture has 1, 3 or 4 channels, got {len(tensor)}")
        tensor = tensor.expand(3, *tensor.shape[1:]) if len(tensor) == 1 else tensor
        flat = tensor[..., 0].permute(2, 1, 0) if transpose else tensor[..., 0].permute(1, 2, 0)
        return Image.fromarray(flat.clamp(0, 255).cpu().numpy().astype(np.uint8))

    def to_gif(
        self, axis: int, duration: float, output_path: str | Path, loop: int = 0, rescale: bool = True,
        optimize: bool = True, reverse: bool = False,
    ) -> None:  # fmt: skip
        """Write slices across a voxel axis as an animation of `duration` seconds.

        loop: how often, 0 for ever.  rescale: to 0 and 255.  optimize: a smaller palette.  reverse: last slice first.
        """
        from PIL import Image

        frames = [Image.fromarray(frame) for frame in frames_of(self.data, axis, rescale)]
        frames = frames[::-1] if reverse else frames
        each = 1000 * duration / len(frames)
        if each < 10:
            warnings.warn(
                f"{len(frames)} frames take {len(frames) / 100:g} s instead of {duration:g}: a frame of a GIF is shown "
                "for 10 ms at least",
                RuntimeWarning,
                stacklevel=2,
            )
        frames[0].save(
            output_path, save_all=True, append_images=frames[1:], optimize=optimize, duration=max(each, 10), loop=loop
        )

    def to_video(
        self, output_path: str | Path, frame_rate: float | None = 15, seconds: float | None = None,
        direction: str = "I", verbosity: str = "error",
    ) -> None:  # fmt: skip
        """Write a video of the slices; see `make_video`."""
        make_video(self.to_ras(), output_path, seconds, frame_rate, direction, verbosity)  # pyright: ignore

    def _repr_html_(self) -> str:
        """A picture for notebooks; text without matplotlib."""
        return as_html(self)


def plot_image(
    image: Any, *, radiological: bool = True, channel: int | None = None, axes: Sequence[Any] | None = None,
    cmap: Any = None, output_path: str | Path | None = None, xlabels: bool = True,
    percentiles: tuple[float, float] = (0, 100), figsize: Any = None, title: str | None = None, reorient: bool = True,
    indices: Any = None, rgb: bool = True, savefig_kwargs: Any = None, **imshow: Any,
) -> Any:  # fmt: skip
    """Three slices of an image on axes of matplotlib; gives the figure.

    radiological: the patient's left on the right.  channel: which one, None for the first, or for the colours of three
    if `rgb`.  axes: three to draw on.  cmap: a colour map, or {label: colour}.  output_path: a file to write too.
    percentiles: of the intensities that black and white are.  reorient: to R, A, S first.  indices: of the slices, None
    for the middle ones.  The rest goes to matplotlib's `imshow`.  Raises ImportError without the `plot` extra.
    """
    plt = pyplot()
    if axes is None:
        _, axes = plt.subplots(1, 3, figsize=figsize)
    image = image.to_ras() if reorient else image
    data = image.data.detach().cpu().numpy()
    colours = rgb and len(data) == 3 and image.type == "intensity" and channel is None
    volume = np.moveaxis(data, 0, -1) if colours else data[channel or 0]
    volume = coloured(volume, cmap) if isinstance(cmap, dict) else volume
    middle = np.array(volume.shape[:3]) // 2 if indices is None else indices
    plain: dict[str, Any] = (
        {} if isinstance(cmap, dict) else {"cmap": cmap or ("gray" if image.type != "label" else "tab20")}
    )
    if image.type == "label":
        plain["interpolation"] = "none"
    elif volume.ndim == 3:
        plain["vmin"], plain["vmax"] = np.percentile(volume, percentiles)
    spacing = geometry.spacing(image.affine)
    for ax, (name, (across, right, up)) in zip(np.ravel(np.asarray(axes, object)), PLANES.items(), strict=True):
        section = np.swapaxes(np.take(volume, int(middle[across]), axis=across), 0, 1)
        ax.imshow(section, origin="lower", aspect=spacing[up] / spacing[right], **{**plain, **imshow})
        ax.set_title(name)
        if xlabels:
            ax.set_xlabel("RAS"[right])
        ax.set_ylabel("RAS"[up])
        if radiological:
            ax.invert_xaxis()
    figure = np.ravel(np.asarray(axes, object))[0].figure
    if title is not None:
        figure.suptitle(title)
    if output_path is not None:
        figure.savefig(output_path, **(savefig_kwargs or {}))
    return figure


def plot_subject(subject: Any, show: bool = True, output_path: Any = None, figsize: Any = None, **options: Any) -> Any:
    """Three slices of each image of a subject, a row an image; options as in `plot_image`."""
    plt, images = pyplot(), subject.get_images_dict(intensity_only=False)
    figure, axes = plt.subplots(len(images), 3, figsize=figsize, squeeze=False)
    colours = options.pop("cmap_dict", {})
    for row, (name, image) in zip(axes, images.items(), strict=True):
        own = {"cmap": colours[name]} if name in colours else {}
        plot_image(image, axes=row, **{**options, **own})
        row[0].set_ylabel(name)
    if output_path is not None:
        figure.savefig(output_path)
    if show:
        plt.show()
    return figure


def coloured(labels: np.ndarray, colours: dict[int, Any]) -> np.ndarray:
    """Labels in colours, (..., 3) of uint8; those without one are black."""
    from matplotlib.colors import to_rgb

    made = np.zeros((*labels.shape, 3), np.uint8)
    for label, colour in colours.items():
        made[labels == label] = (255 * np.array(to_rgb(colour))).astype(np.uint8) if isinstance(colour, str) else colour
    return made


def frames_of(tensor: torch.Tensor, axis: int, rescale: bool) -> list[np.ndarray]:
    """Slices across a voxel axis, uint8, (rows, columns) or with three colours, turned as TorchIO turns them."""
    data = tensor.detach().cpu().float().numpy()
    if rescale:
        low, high = data.min(), data.max()
        data = (data - low) / max(high - low, np.finfo(np.float32).tiny) * 255
    data = np.clip(data if len(data) == 3 else data[:1], 0, 255).astype(np.uint8)
    slices = np.transpose(data, (*np.roll([1, 2, 3], -axis), 0))  # (n, across, up, C), or (n, up, across, C) for axis 1
    slices = slices[:, ::-1] if axis == 1 else slices.swapaxes(1, 2)[:, ::-1, ::-1]
    return [np.ascontiguousarray(each[..., 0] if each.shape[-1] == 1 else each) for each in slices]


TURNED = {"I": "IPL", "S": "SPL", "A": "AIL", "P": "PIL", "R": "RIP", "L": "LIP"}
"""Towards what the slices, the rows and the columns of a video follow each other."""


def make_video(
    image: Any, output_path: str | Path, seconds: float | None = None, frame_rate: float | None = None,
    direction: str = "I", verbosity: str = "error",
) -> None:  # fmt: skip
    """Write the slices of an image of one channel that lies along R, A, S as a video, by the program ffmpeg.

    frame_rate: slices in a second; or seconds: how long all of them take.  direction: towards which they follow.
    Voxels are squares of the smaller side, on a picture of even sides. What reaches below 0 or above 255 is rescaled.
    Raises ValueError unless one of the two is given, and for several channels, RuntimeError without ffmpeg.
    """
    if (frame_rate is None) == (seconds is None):
        raise ValueError(f"give frame_rate or seconds, one of the two, got {frame_rate!r} and {seconds!r}")
    turned = TURNED.get(direction.upper()) if isinstance(direction, str) else None
    if turned is None:
        raise ValueError(f"direction must be one of {', '.join(TURNED)}, got {direction!r}")
    if len(image.data) != 1:
        raise ValueError(f"a video shows one channel, got {len(image.data)}")
    if shutil.which("ffmpeg") is None:
        raise RuntimeError("a video needs the program ffmpeg, which was not found")
    volume, sides = image.data[0].detach().cpu().numpy(), np.array(image.spacing)
    low, high = float(volume.min()), float(volume.max())
    if low < 0 or high > 255:
        warnings.warn(f"values from {low:g} to {high:g} are rescaled to 0 and 255", RuntimeWarning, stacklevel=3)
        volume = (volume - low) / (high - low) * 255
    axes = ["RLAPSI".index(letter) // 2 for letter in turned]
    volume = np.flip(np.transpose(volume, axes), tuple(i for i, letter in enumerate(turned) if letter in "LPI"))
    frames, (_, tall, wide) = volume.astype(np.uint8), sides[axes]
    count, height, width = frames.shape
    even = (max(2, 2 * round(n * side / min(tall, wide) / 2)) for n, side in ((width, wide), (height, tall)))
    rate = count / seconds if frame_rate is None else frame_rate  # pyright: ignore
    given = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
    made = ["-vf", "scale={}:{}".format(*even), "-pix_fmt", "yuv420p", os.fspath(output_path)]
    subprocess.run(["ffmpeg", "-y", "-loglevel", verbosity, *given, *made], input=frames.tobytes(), check=True)


def guess_external_viewer() -> Path | None:
    """The program that SITK_SHOW_COMMAND names, or ITK-SNAP or Slicer where they are found."""
    named = os.environ.get("SITK_SHOW_COMMAND")
    found = (shutil.which(name) for name in ("itksnap", "ITK-SNAP", "Slicer"))
    program = named or next((each for each in found if each), None)
    return None if program is None else Path(program)


def as_html(item: Any) -> str:
    """The picture of an image or a subject as an element of HTML; its text without matplotlib."""
    try:
        figure = item.plot(return_fig=True, show=False)
    except ImportError:
        return repr(item)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    pyplot().close(figure)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"/>'


def shown(figure: Any, show: bool, return_fig: bool) -> Any:
    """The figure, if it is asked for; shown, if that is."""
    if show:
        pyplot().show()
    return figure if return_fig else None


def pyplot() -> Any:
    """matplotlib.pyplot, or the ImportError that says what to install."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        needs_extra("matplotlib", "plot", "a picture")
    return plt
