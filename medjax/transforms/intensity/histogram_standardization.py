"""One scale of intensities for all images of a kind, by the landmarks of their histograms."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax.arguments import as_floats, check, finite, label_values, many, maybe, traced
from medjax.errors import about, one_of
from medjax.geometry import Grid, check_same_grid
from medjax.image import Image, ScalarImage
from medjax.ops import pointwise, statistics
from medjax.ranges import leaf
from medjax.subject import Subject
from medjax.transforms.masking import Masking, check_masking, mask_of, masking
from medjax.transforms.transform import IntensityTransform, always, plain, static, transform
from medjax.typing import Params, working

PERCENTILES = (1.0, 10.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 70.0, 75.0, 80.0, 90.0, 99.0)
KNOTS = (0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12)
"""Those of the 13 default landmarks that TorchIO applies: all but the two quartiles."""
SUFFIXES = (".npy", ".npz", ".json")


@dataclass(frozen=True, eq=False, repr=False)
class Landmarks:
    """What `HistogramStandardization.train` learns: the mean of each percentile of the images, scaled to 0..100.

    landmarks: (n,) float32, ascending; a leaf.  percentiles: the n percentiles, ascending; static.
    It acts as the array of landmarks, and is written to and read from .npy, .npz and .json, without pickle.
    """

    landmarks: Any
    percentiles: tuple[float, ...] = PERCENTILES

    def __post_init__(self):
        values, levels = as_floats("landmarks", self.landmarks), many(finite(0.0))("percentiles", self.percentiles)
        if values.ndim != 1 or values.shape[0] != len(levels) or len(levels) < 2:
            raise ValueError(
                f"landmarks must be one number for each of the {len(levels)} percentiles, got shape {values.shape}"
            )
        if levels[0] < 0 or levels[-1] > 100 or any(a >= b for a, b in pairwise(levels)):
            raise ValueError(f"percentiles must ascend from 0 to 100 at most, got {levels}")
        check("landmarks", values)
        if not traced(values) and np.any(values[1:] < values[:-1]):
            raise ValueError(f"landmarks must ascend, got {np.asarray(values).tolist()}")
        object.__setattr__(self, "landmarks", values)
        object.__setattr__(self, "percentiles", levels)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, or a .npy of 13 numbers from TorchIO.

        Raises ValueError for another suffix, and for files without landmarks.
        """
        path = Path(path).expanduser()
        one_of("suffix", path.suffix, SUFFIXES)
        with about(str(path)):
            if path.suffix == ".json":
                return cls(**json.loads(path.read_text()))
            found = np.load(path, allow_pickle=False)
            if path.suffix == ".npz":
                return cls(found["landmarks"], found["percentiles"])
            return cls(found[0], found[1]) if found.ndim == 2 else cls(found)

    def save(self, path: str | Path) -> None:
        """Write a file: .npy (landmarks and percentiles as an array (2, n)), .npz or .json."""
        path = Path(path).expanduser()
        one_of("suffix", path.suffix, SUFFIXES)
        values = np.asarray(self.landmarks, np.float64)
        if path.suffix == ".json":
            path.write_text(json.dumps({"landmarks": values.tolist(), "percentiles": self.percentiles}))
        elif path.suffix == ".npz":
            np.savez(path, landmarks=values, percentiles=np.asarray(self.percentiles))
        else:
            np.save(path, np.stack([values, np.asarray(self.percentiles)]))

    @property
    def knots(self) -> tuple[int, ...]:
        """Which of the landmarks are applied: all, but for the quartiles of the default percentiles."""
        return KNOTS if self.percentiles == PERCENTILES else tuple(range(len(self.percentiles)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.landmarks, dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Landmarks({plain(self.landmarks)}, {self.percentiles})"


def unflattened(percentiles: tuple[float, ...], children: Iterable[Any]) -> Landmarks:
    """Landmarks of leaves that may be traced, unchecked."""
    made = object.__new__(Landmarks)
    for name, value in (("landmarks", *children), ("percentiles", percentiles)):
        object.__setattr__(made, name, value)
    return made


jax.tree_util.register_pytree_with_keys(
    Landmarks,
    lambda found: (((jax.tree_util.GetAttrKey("landmarks"), found.landmarks),), found.percentiles),
    unflattened,
    lambda found: ((found.landmarks,), found.percentiles),
)


def landmarks_of(name: str, value: Any) -> Any:
    """Landmarks, or a tuple of them, from the forms that the constructor takes."""
    if isinstance(value, Landmarks):
        return value
    if isinstance(value, (str, Path)):
        with about(name):
            return Landmarks.load(value)
    if isinstance(value, Mapping):
        return Landmarks(**value)
    if isinstance(value, (list, tuple)) and all(isinstance(v, (Landmarks, Mapping)) for v in value):
        return tuple(landmarks_of(name, v) for v in value)
    array = as_floats(name, value)
    return Landmarks(array[0], array[1]) if array.ndim == 2 and len(array) == 2 else Landmarks(array)


@transform
class HistogramStandardization(IntensityTransform):
    """Map the percentiles of an image to landmarks that many images have in common, linearly in between.

    landmarks: {image name: landmarks}, or landmarks for all images; each is a `Landmarks`, an array of 13 numbers, an
    array (2, n) of landmarks and percentiles, or the path of a .npy, .npz or .json.
    masking_method, labels: where the percentiles are taken from, as in `ZNormalization`; all voxels are mapped.

    With v_j the image's percentiles and l_j the landmarks: y = l_j + (x - v_j) (l_j+1 - l_j) / (v_j+1 - v_j) for x from
    v_j to v_j+1. The first and the last piece go on for ever. The percentiles are those stored with the landmarks; of
    the 13 default ones all but the quartiles, 25 and 75, are applied, as in TorchIO. Channels are pooled.

    A dictionary gives each image that it names its own landmarks, `include` being their names, in the order of
    `landmarks`; others are left alone. p, which is static, is one coin for
    all.
    Shapes: (C, I, J, K) -> same, float32.  Voxels that are not finite count nowhere and stay as they are.
    Inverse: the broken line back, with what was measured; exact where landmarks and percentiles ascend strictly.
    Raises ValueError for landmarks of different counts, for a mask that is not there or empty, and for an image whose
    first and last percentile are equal (under jit its voxels stay as they are).
    Source: Nyúl et al., "New variants of a method of MRI scale standardization", IEEE TMI 19, 2000; TorchIO 1.2.1,
    which calls a piece flat if it is narrower than 1e-5 in the units of the image, not only if its width is 0.
    """

    landmarks: Any = leaf(convert=landmarks_of)
    masking_method: Masking = static(default=None, convert=masking)
    labels: Sequence[int] | None = static(default=None, convert=maybe(label_values), kw_only=True)
    p: float = always(default=1.0)  # structure, so that landmarks can be learned: no key is needed where p is 1

    def __post_init__(self):
        given = self.landmarks
        if isinstance(given, Mapping) and set(given) != {"landmarks", "percentiles"}:
            if self.include or self.exclude:
                raise ValueError(
                    "the names of landmarks say which images they are for: no include, no exclude with them"
                )
            object.__setattr__(self, "include", tuple(given))
            object.__setattr__(self, "landmarks", tuple(landmarks_of(f"landmarks of {n}", v) for n, v in given.items()))
        super().__post_init__()
        if isinstance(self.landmarks, Landmarks):
            return
        if not self.landmarks or len(self.landmarks) != len(self.include or ()):
            raise ValueError("landmarks must be landmarks or a dictionary of them by image name")
        counts = {n: len(found.percentiles) for n, found in zip(self.include or (), self.landmarks, strict=True)}
        if len(set(counts.values())) > 1:
            raise ValueError(f"landmarks of different counts: {counts}; train all images with one cutoff")

    def for_image(self, name: str) -> Self:
        if isinstance(self.landmarks, Landmarks):
            return self
        return self.replace(landmarks=self.landmarks[(self.include or ()).index(name)], include=(name,))

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject, labels=self.labels)

    def measure(self, image: Image, subject: Subject) -> Params:
        mask = mask_of(self.masking_method, image, subject, self.labels)
        levels = np.asarray(self.landmarks.percentiles)[list(self.landmarks.knots)] / 100

        def percentiles(data: Array, mask: Array | None) -> tuple[Array, Array]:
            found = jnp.ones_like(image.data, bool, ()) if mask is None else mask.any()
            return statistics.quantiles(data, jnp.asarray(levels, data.dtype), mask), found

        knots, found = statistics.finite_only(percentiles, image.data, mask)
        return {"knots": knots, "found": found}

    def verify(self, measured: Params, name: str) -> None:
        if not measured["found"]:
            raise ValueError(f"HistogramStandardization: the mask {self.masking_method!r} has no voxels in {name}")
        knots = measured["knots"]
        if knots[0] == knots[-1]:
            first, last = self.landmarks.percentiles[0], self.landmarks.percentiles[-1]
            raise ValueError(
                f"HistogramStandardization: percentiles {first:g} and {last:g} of {name} are equal ({knots[0]:g}): "
                "is it constant, or nearly all background? Then give a masking_method"
            )

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        knots, targets = self.lines(image, measured)
        return mapped(image, measured, knots, targets)

    def undo(self, image: Image, params: Params, measured: Params) -> Image:
        knots, targets = self.lines(image, measured)
        return mapped(image, measured, targets, knots)

    def lines(self, image: Image, measured: Params) -> tuple[Array, Array]:
        """Percentiles of the image and landmarks, those that are applied."""
        targets = jnp.asarray(self.landmarks.landmarks).astype(image.data.dtype)[np.asarray(self.landmarks.knots)]
        return measured["knots"], targets

    @staticmethod
    def train(
        images_or_paths: Iterable[Any],
        *,
        masking_method: Masking = None,
        labels: Sequence[int] | None = None,
        cutoff: tuple[float, float] | None = None,
        output_path: str | Path | None = None,
        progress: bool = True,
        num_threads: int = 2,
    ) -> Landmarks:
        """Learn landmarks: the mean over images of 100 (v_j - v_first) / (v_last - v_first), v_j their percentiles.

        images_or_paths: paths, images, arrays (C, I, J, K), or subjects of one scalar image and the label map that
        masking_method names; read by threads, of which each holds one image at a time.
        masking_method, labels: which voxels, as in `ZNormalization`; voxels that are not finite are left out.
        cutoff: (low, high), fractions, 0.01 and 0.99 if None; deciles and quartiles in between are added.
        output_path: where `Landmarks.save` writes them.  progress: show a bar, if tqdm is installed.

        Raises ValueError, with the number of the image, for empty masks and for images without contrast.
        """
        method, chosen = masking("masking_method", masking_method), maybe(label_values)("labels", labels)
        levels = PERCENTILES if cutoff is None else percentiles_of(cutoff)

        def scaled(numbered: tuple[int, Any]) -> np.ndarray:
            number, item = numbered
            with about(f"image {number}" + (f" ({item})" if isinstance(item, (str, Path)) else "")):
                values = np.percentile(voxels_of(item, method, chosen), levels).astype(np.float64)
                if not values[-1] > values[0]:
                    raise ValueError(f"percentiles {levels[0]:g} and {levels[-1]:g} are equal ({values[0]:g})")
                return 100 * (values - values[0]) / (values[-1] - values[0])

        found = list(watched(in_threads(scaled, enumerate(images_or_paths), num_threads), images_or_paths, progress))
        if not found:
            raise ValueError("images_or_paths is empty: there is nothing to learn from")
        landmarks = Landmarks(np.mean(found, axis=0), levels)
        if output_path is not None:
            landmarks.save(output_path)
        return landmarks


def mapped(image: Image, measured: Params, knots: Array, values: Array) -> Image:
    """The broken line on all voxels; a constant image stays as it is."""
    data = pointwise.piecewise_linear(image.data, knots, values)
    return image.replace(data=jnp.where(measured["knots"][0] == measured["knots"][-1], image.data, data))


def percentiles_of(cutoff: tuple[float, float]) -> tuple[float, ...]:
    """Both ends of the cutoff in percent, and the deciles and quartiles in between."""
    low, high = (round(100 * float(c), 10) for c in cutoff)
    if not 0 <= low < high <= 100:
        raise ValueError(f"cutoff must be two fractions, 0 <= low < high <= 1, got {cutoff!r}")
    inner = {float(p) for p in (*range(10, 100, 10), 25, 50, 75) if low < p < high}
    return tuple(sorted({low, high, *inner}))


def voxels_of(item: Any, method: Masking, labels: tuple[int, ...] | None) -> np.ndarray:
    """The finite voxels of the mask of an item to train on, flat; read into a copy that is not kept."""
    subject = (
        item if isinstance(item, Subject) else Subject(image=item if isinstance(item, Image) else ScalarImage(item))
    )
    names = [name for name, image in subject.images.items() if isinstance(image, ScalarImage)]
    if len(names) != 1:
        raise ValueError(f"a subject to train on has one scalar image, this one has {', '.join(names) or 'none'}")
    check_masking(method, subject, labels=labels)
    if isinstance(method, str) and method in subject.images:
        grids = {n: Grid(subject[n].affine, subject[n].spatial_shape) for n in (*names, method)}
        check_same_grid(grids, f"training by the mask {method!r}")
    subject = subject.load()
    image = subject[names[0]]
    data = np.asarray(image.data, working(image.dtype))
    mask = mask_of(method, image.replace(data=data), subject, labels)
    values = data.ravel() if mask is None else data[np.broadcast_to(np.asarray(mask), data.shape)]
    values = values[np.isfinite(values)]
    if not values.size:
        raise ValueError(f"the mask {method!r} has no voxels")
    return values


def in_threads(function: Callable[[Any], Any], items: Iterable[Any], num_threads: int) -> Iterator[Any]:
    """function of each item, in order, by threads; no more items are taken than there are threads to work on them."""
    with ThreadPoolExecutor(num_threads) as pool:
        pending: deque[Any] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def watched(results: Iterator[Any], items: Any, progress: bool) -> Iterable[Any]:
    """The results, behind a progress bar if it is wanted and tqdm is installed."""
    if not progress:
        return results
    try:
        from tqdm import tqdm
    except ImportError:
        return results
    return tqdm(results, total=len(items) if hasattr(items, "__len__") else None)
