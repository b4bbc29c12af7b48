"""From the slices of one series to a volume, or the reason why they are none."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float

from medjax.io.dicom import pixels
from medjax.io.dicom.described import described, maker_of
from medjax.io.dicom.files import Head, choose, named, search
from medjax.io.dicom.frames import Frame, frames_of, groups_of
from medjax.io.registry import Header

_LPS = np.array([-1.0, -1.0, 1.0])  # between the world of DICOM and RAS
_TOLERANCE = 0.1  # of the step: positions are often rounded to 0.1 mm, a missing slice moves others by half a step
_SAME_PLACE = 0.01  # of a pixel's side
_LEAN = 0.5  # degrees

Volumes = list[list[Frame]]
"""[C][K], each along the normal."""


class Series(NamedTuple):
    """An image series: UID, modality, files, shape (C, I, J, K); if it is no volume, None and the reason."""

    uid: str
    modality: str
    files: list[Path]
    shape: tuple[int, int, int, int] | None
    problem: str | None


def read_header(paths: Sequence[Path], series: str | None) -> Header:
    """See `medjax.io.dicom.read_header`."""
    return arranged(paths, series)[1]


def arranged(paths: Sequence[Path], series: str | None) -> tuple[Volumes, Header]:
    """The slices of one series in their order, and its header."""
    heads = choose(paths, series)
    volumes = _arrange(heads)
    return volumes, _header(heads, volumes)


def read(paths: Sequence[Path], series: str | None) -> tuple[np.ndarray, Header]:
    """See `medjax.io.dicom.read`."""
    volumes, header = arranged(paths, series)  # without the headers, which may hold as much as their slices
    return pixels.read_volumes(volumes, header.dtype).transpose(0, 3, 2, 1), header


def gradients(paths: Sequence[Path], series: str | None) -> tuple[np.ndarray, np.ndarray]:
    """See `medjax.io.dicom.gradients`. Raises ValueError for a series without b-values, and for GE's."""
    heads = choose(paths, series)
    volumes = _arrange(heads)
    if (bvals := _bvals(volumes)) is None:
        raise ValueError(f"{_where(heads)}: its volumes have no b-values.")
    if maker_of(heads[0].header) == "GE" and any(bvals) and not any(volume[0].direction for volume in volumes):
        raise ValueError(
            f"{_where(heads)}: GE writes directions along the axes of the scanner, not of the patient; they are not "
            "read: take them from a .bvec file by Directions.from_fsl."
        )
    directions = np.array([volume[0].direction or (0.0, 0.0, 0.0) for volume in volumes])
    return np.array(bvals), directions * _LPS + 0.0  # no -0


def list_series(paths: Sequence[Path]) -> list[Series]:
    """See `medjax.dicom_series`."""
    found = []
    for uid, heads in search(paths).series.items():
        shape, problem = None, None
        try:
            shape = _shape(_arrange(heads))
        except ValueError as error:
            problem = str(error)
        modality = described(heads[0].header, [heads[0].header]).get("Modality", "")
        found.append(Series(uid, modality, [head.stored.file for head in heads], shape, problem))
    return found


def _where(heads: Sequence[Head]) -> str:
    return str(heads[0].stored.file if len(heads) == 1 else heads[0].stored.file.parent)


def _header(heads: Sequence[Head], volumes: Volumes) -> Header:
    header = heads[0].header
    shared, parts = groups_of(header)
    metadata = described(header, [*parts[:1], *shared, header])
    echoes = [volume[0].echo for volume in volumes]
    if len(set(echoes)) > 1:
        metadata["EchoTime"] = tuple(echoes)
    if any(bvals := _bvals(volumes) or ()):  # some makers write b = 0 into every file
        metadata["bvals"] = bvals
    dtype = pixels.dtype_of([frame for volume in volumes for frame in volume])
    return Header(_shape(volumes), _affine(volumes), dtype, metadata)


def _shape(volumes: Volumes) -> tuple[int, int, int, int]:
    rows, columns = volumes[0][0].size
    return len(volumes), columns, rows, len(volumes[0])


def _bvals(volumes: Volumes) -> tuple[float, ...] | None:
    if all(volume[0].b is None for volume in volumes):
        return None
    return tuple(volume[0].b or 0.0 for volume in volumes)


def _arrange(heads: Sequence[Head]) -> Volumes:
    frames: list[Frame] = []
    for head in heads:
        with named(head.stored.file):
            frames += frames_of(head)
    _check_alike(frames)
    places = [_without_copies(frames) for frames in _by_place(frames)]
    volumes = _by_volume(places)
    _check_line(volumes)
    return volumes


def _refuse(frames: Sequence[Frame], why: str) -> NoReturn:
    """Raise the ValueError of slices that make no volume, with the reason and some of the files."""
    names = [f.stored.file.name + (f" [frame {f.index}]" if f.stored.frames > 1 else "") for f in frames]
    names = list(dict.fromkeys(names))
    listed = ", ".join(names[:6]) + ", ..." * (len(names) > 6)
    raise ValueError(f"{frames[0].stored.file.parent}: no volume: {why}: {listed}.")


def _check_alike(frames: Sequence[Frame]) -> None:
    first = frames[0]
    rules: tuple[tuple[str, Callable[[Frame], bool]], ...] = (
        ("orientation", lambda f: np.abs(f.axes - first.axes).max() < 1e-3),
        ("size or pixel spacing", lambda f: f.size == first.size and np.allclose(f.spacing, first.spacing, rtol=1e-4)),
        ("kind (ImageType, as magnitude and phase): give the files of one", lambda f: f.kind == first.kind),
    )
    for what, same in rules:
        if others := [frame for frame in frames if not same(frame)]:
            _refuse([first, *others], f"the first of these slices and the others differ in {what}")


def _by_place(frames: list[Frame]) -> list[list[Frame]]:
    """Slices at one place together, places along the normal: by position, never by name or number."""
    normal = np.cross(*frames[0].axes)
    heights = np.array([frame.place @ normal for frame in frames])
    order = np.argsort(heights, kind="stable")
    step = np.diff(heights[order], prepend=-np.inf) > _SAME_PLACE * min(frames[0].spacing)
    places: list[list[Frame]] = []
    for n, is_new in zip(order, step):
        if is_new:
            places.append([])
        places[-1].append(frames[n])
    return places


def _without_copies(frames: list[Frame]) -> list[Frame]:
    """Slices at one place without those that are there twice. Raises ValueError if the two differ in their voxels."""
    kept: dict[Any, Frame] = {}
    for frame in frames:
        numbered = frame.number is not None or frame.uid
        key = (frame.identity, frame.uid if frame.number is None else frame.number) if numbered else (len(kept),)
        if kept.setdefault(key, frame) is not frame and not pixels.same_voxels(kept[key], frame):
            _refuse([kept[key], frame], "two slices of one place, time and number differ in their voxels")
    return list(kept.values())


def _by_volume(places: list[list[Frame]]) -> Volumes:
    """Volumes by echo, time and b-value, and by number where these do not tell slices of one place apart."""
    counts = [Counter(frame.identity for frame in place) for place in places]
    usual = Counter(frozenset(count.items()) for count in counts).most_common(1)[0][0]
    if odd := [frame for place, count in zip(places, counts) if frozenset(count.items()) != usual for frame in place]:
        sizes = sorted({count.total() for count in counts})
        if len(sizes) > 1:
            _refuse(odd, f"most places hold {sum(n for _, n in usual)} slices, those of these more or fewer")
        _refuse(odd, "these slices differ in echo, time, b-value or gradient from what most places hold")
    if len(places) == 1 and any(count > 1 for _, count in usual):
        _refuse(places[0], "these slices all lie at one place, and neither echo, time nor b-value tells them apart")
    volumes = []
    for identity, count in usual:
        stacks = [[frame for frame in place if frame.identity == identity] for place in places]
        volumes += _by_number(stacks, count)
    return sorted(volumes, key=lambda volume: (volume[0].echo, volume[0].time, volume[0].number or 0))


def _by_number(stacks: list[list[Frame]], count: int) -> Volumes:
    if count == 1:
        return [[stack[0] for stack in stacks]]
    if any(frame.number is None for stack in stacks for frame in stack):
        _refuse(stacks[0], f"{count} slices lie at one place, and neither echo, time, b-value nor number orders them")
    stacks = [sorted(stack, key=lambda frame: frame.number or 0) for stack in stacks]
    # Whether files go slice by slice or volume by volume: from one volume to another numbers go up by as much anywhere.
    numbers = np.array([[frame.number or 0 for frame in stack] for stack in stacks])
    rises = numbers - numbers[:, :1]
    if odd := [stack for stack, rise in zip(stacks, rises) if (rise != rises[0]).any()]:
        _refuse(
            [*stacks[0], *odd[0]],
            f"{count} slices lie at one place, and their numbers do not tell which of them belong to one volume",
        )
    return [list(volume) for volume in zip(*stacks)]


def _check_line(volumes: Volumes) -> None:
    """Raise ValueError unless the slices are equally far apart, above one another, the same in every volume."""
    first = volumes[0]
    if len(first) == 1:
        return
    step, start = _line(volumes)
    normal = np.cross(*first[0].axes)
    height = step @ normal
    places = np.array([[frame.place for frame in volume] for volume in volumes])
    off = places - start - step * np.arange(len(first))[:, None]
    if (np.abs(off @ normal) > _TOLERANCE * height).any():
        gaps = np.diff(places[0] @ normal)
        odd = int(np.abs(gaps - np.median(gaps)).argmax())
        _refuse(
            first[odd : odd + 2],
            f"its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart (is one missing?); the odd gap is between",
        )
    drift = np.linalg.norm(step - height * normal)
    lean = np.degrees(np.arctan2(drift, height))
    if lean > _LEAN and drift * (len(first) - 1) > _TOLERANCE * height:
        _refuse(first, f"its slices are sheared by {lean:.1f} degrees (gantry tilt); resample them by other means")
    astray = np.linalg.norm(off, axis=-1)
    if (worst := astray.max()) > _TOLERANCE * height:
        # Those that pull the line, not those that it leaves.
        odd = [volumes[c][k] for c, k in np.argwhere(astray > worst / 2)]
        _refuse(odd, "these of its slices do not lie above the others")


def _line(volumes: Volumes) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """The step from slice to slice and the place of the first, LPS mm: least squares, since places are rounded."""
    first = volumes[0][0]
    count = len(volumes[0])
    if count == 1:
        return np.cross(*first.axes) * (first.thickness or 1.0), first.place
    places = np.mean([[frame.place for frame in volume] for volume in volumes], axis=0)
    middle = (count - 1) / 2
    index = np.arange(count) - middle
    step = index @ (places - places[0]) / (index @ index)
    return step, places.mean(axis=0) - middle * step


def _affine(volumes: Volumes) -> Float[np.ndarray, "4 4"]:
    """Voxel index to RAS+ mm. Voxels of a single slice are as high as it says, or 1 mm if it says nothing."""
    first = volumes[0][0]
    (row, column), (between_rows, between_columns) = first.axes, first.spacing
    step, start = _line(volumes)
    affine = np.eye(4)
    affine[:3] = _LPS[:, None] * np.stack([row * between_columns, column * between_rows, step, start], axis=1)
    return affine + 0.0  # no -0
