"""The interface of every transform: a frozen dataclass that is a pytree, numbers leaves and structure static.

To add one: subclass `SpatialTransform`, `IntensityTransform` or `LabelTransform`, decorate it with `@transform`,
declare its fields (`ranges.uniform`, `ranges.number` for numbers, `static` for structure, each with a converter of
`arguments.py` that says what it may be) and write the two or three methods that its kind asks for. Everything else
(keys, p, include, batches, fusion, replay) is done by free functions in `call.py` over these methods.
"""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, TypeVar, cast, dataclass_transform

import jax
import numpy as np

from medjax.arguments import flag, maybe, names, pairs, real, text, traced
from medjax.errors import shown
from medjax.geometry import Grid, Map
from medjax.image import Image
from medjax.ranges import leaf, number, uniform
from medjax.subject import Subject
from medjax.transforms import call
from medjax.transforms.place import Place
from medjax.transforms.program import is_certain
from medjax.transforms.sampling import NOTHING, Sampling
from medjax.typing import Key, Params, Shape3, Tracer

T = TypeVar("T")
REGISTRY: dict[str, type["Transform"]] = {}


def static(*, default: Any = MISSING, convert: Callable[[str, Any], Any] | None = None, kw_only: Any = MISSING) -> Any:
    """A field of structure: hashable, part of the compiled program; `convert(name, value)` checks it when built."""
    return field(default=default, kw_only=kw_only, metadata={"static": True, "convert": convert})


def chance_of(name: str, value: Any) -> Any:
    """A number from 0 to 1 as a float32 array; the number 1 as a Python float, a JAX array never."""
    p = real(low=0.0, high=1.0)(name, value)
    return 1.0 if isinstance(p, np.ndarray) and p == 1 else p


def chance(*, default: float, kw_only: Literal[True] = True) -> Any:
    """The field p: a leaf, unless it is given as the number 1, which is structure.

    Whether there is a coin decides whether a key is needed and what program is compiled, so it must be known while
    tracing, and a leaf is not. So there is no leaf to be traced, stepped by an optimiser or mapped away from 1; another
    p comes by `replace`. A schedule that comes to the number 1 is one program more, and to `jnp.asarray(1.0)` none.
    """
    return leaf(default=default, convert=chance_of, kw_only=kw_only)


def probability(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    p = real(low=0.0, high=1.0)(name, value)
    if traced(p):
        raise TypeError(f"{name} must be known while tracing here, got {value!r}: what hangs on it is structure")
    return float(p)


def always(*, default: float, kw_only: Literal[True] = True) -> Any:
    """The field p of a transform that changes shapes: there it is structure, for a shape cannot hang on a coin."""
    return static(default=default, convert=probability, kw_only=kw_only)


def certain(name: str, value: Any) -> float:
    """The p of a transform that changes the number of channels: 1."""
    if probability(name, value) != 1:
        raise ValueError(f"{name} must be 1, got {shown(value)}: the number of channels cannot hang on a coin")
    return 1.0


@dataclass_transform(frozen_default=True, field_specifiers=(static, always, chance, leaf, number, uniform))
def abstract(cls: type[T]) -> type[T]:
    """Make a class that transforms inherit fields from: a frozen dataclass, compared by identity."""
    return dataclass(frozen=True, eq=False, repr=False)(cls)


@dataclass_transform(frozen_default=True, field_specifiers=(static, always, chance, leaf, number, uniform))
def transform(cls: type[T]) -> type[T]:
    """Make a class a transform: a frozen dataclass, compared by identity, a pytree, and known by its name."""
    made = abstract(cls)
    register(made)
    REGISTRY[made.__name__] = cast(Any, made)
    return made


def register(cls: Any) -> None:
    """Register the pytree of a transform. Unflattening bypasses `__init__`, which would check tracers.

    The p that is 1 by structure is None among the children: no leaf, and a node of another kind than a leaf.
    """
    leaves = tuple(f.name for f in fields(cls) if not f.metadata.get("static"))
    statics = tuple(f.name for f in fields(cls) if f.metadata.get("static"))

    def flatten(t: Any):
        children = tuple(None if n == "p" and is_certain(t.p) else getattr(t, n) for n in leaves)
        return children, tuple(getattr(t, n) for n in statics)

    def flatten_with_keys(t: Any):
        children, aux = flatten(t)
        return tuple((jax.tree_util.GetAttrKey(n), c) for n, c in zip(leaves, children, strict=True)), aux

    def unflatten(aux: tuple[Any, ...], children: tuple[Any, ...]) -> Any:
        t = object.__new__(cls)
        for name, value in (*zip(statics, aux, strict=True), *zip(leaves, children, strict=True)):
            object.__setattr__(t, name, 1.0 if name == "p" and value is None else value)
        return t

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


@abstract
class Transform:
    """Abstract. Called with a subject and a key it gives the transformed subject; nothing is changed in place.

    p: probability that the transform is applied, once per subject; the number 1 is structure, any other p a leaf.
    include, exclude: names of the images it is limited to, or that it leaves alone.
    keep: {image: name} stores what an image was before under a new name.
    """

    p: float = chance(default=1.0)
    include: Sequence[str] | None = static(default=None, convert=maybe(names), kw_only=True)
    exclude: Sequence[str] | None = static(default=None, convert=maybe(names), kw_only=True)
    keep: dict[str, str] | None = static(default=None, convert=maybe(pairs(text, text)), kw_only=True)

    spatial: ClassVar[bool] = False
    """Whether it is a `SpatialTransform`."""
    group: ClassVar[bool] = False
    """Whether it stands for its members."""
    random: ClassVar[bool] = False
    """Whether `draw` uses its key."""
    scalars_only = False
    """Whether label maps are left alone; not annotated, since some make it a field in its place among the others."""
    labels_only = False
    """Whether scalar images are left alone."""
    synthesises: ClassVar[bool] = False
    """Whether `copies` of label maps become scalar images."""
    absolute = False
    """Whether what it does hangs on where the world's origin is; not annotated, since some make it a property."""
    beside: ClassVar[str | None] = None
    """Name of an image that is read voxel by voxel beside those that it changes, so that they must share a grid."""

    def __post_init__(self):
        for f in fields(self):
            convert = f.metadata.get("convert")
            if convert is not None:
                object.__setattr__(self, f.name, convert(f.name, getattr(self, f.name)))
        if self.include is not None and self.exclude is not None:
            raise ValueError(f"{type(self).__name__}: give include or exclude, not both")

    def __call__(self, x: Any, key: Any = None, *, labels: Sequence[str] = ()) -> Any:
        """Transform a Subject, an Image, an array (C, I, J, K) or a dict of arrays; the same type comes back.

        key: one key, needed if anything is random (p < 1 too). labels: which names of a dict are label maps. Under
        `jax.vmap` the batch is a loop, whose cost follows p; it has gradients, but no forward mode: `apply` has both.
        """
        return call.one_subject(self, x, key, labels)

    def batch(self, batch: Any, key: Any = None, *, labels: Sequence[str] = ()) -> Any:
        """Transform a batch, every element by its own key: (B,) keys, or one that its place is folded into.

        A batch that is split over devices along its first axis stays so, each running its own elements: outside of jit,
        in your own, in `jax.shard_map`, on meshes of automatic and of explicit axes; so it does under `jax.vmap`. In
        your jit on an automatic mesh JAX cannot do it, and gathers the batch on every device, for derivatives of
        `batch` (not of `jax.vmap`), for transforms that call the host (those of components), and on TPUs: take explicit
        axes or `jax.shard_map` there.
        """
        return call.batch(self, batch, key, labels)

    def sample(self, key: Any, subject: Any) -> Params:
        """All that is drawn for a subject, the coin of p too; reads geometry, never voxels."""
        return call.sample(self, key, subject)

    def apply(self, subject: Any, params: Params) -> Any:
        """What a call with these params does, exactly."""
        return call.replay(self, subject, params)

    def replace(self, **changes: Any) -> Self:
        """A copy with other arguments."""
        return type(self)(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})

    def invert(self, x: Any, params: Params, *, like: Any, interpolation: str | None = None) -> Any:
        """Take back what a call with these params did, to the grids of `like`, what the call was given.

        x: what the call gave, or something on its grid, as a prediction; the same type comes back. An image that `like`
        does not have lies where its first image of the same shape has come to.
        Spatial transforms: grids exactly, voxels by one reading, `interpolation` instead of their own (label maps keep
        theirs where it is 'cubic', which makes values that are no labels); what was cut off is 0. Elastic maps by
        fixed-point iteration. Gamma, bias fields, noise, normalisations, label maps: by formula;
        other intensity and label transforms leave what they have done (see `invertible`).
        Raises ValueError for an image that is not of the shape that the pipeline ends in.
        """
        return call.invert(self, x, params, like, interpolation)

    def draw(self, key: Key, grid: Grid) -> Params:
        """What is random, from a key and the grid of the image (of the reference, for a spatial transform)."""
        del key, grid
        return {}

    @property
    def copies(self) -> tuple[tuple[str, str], ...]:
        """Pairs (image, name of a copy of it) that are made before it runs."""
        return cast(tuple[tuple[str, str], ...], self.keep or ())

    @property
    def retimes(self) -> bool:
        """Whether `retime` changes what is known of an image beside its voxels and affine."""
        return type(self).retime is not Transform.retime

    def retime(self, metadata: dict[str, Any], params: Params) -> dict[str, Any]:
        """The metadata of an image after it, from what was drawn for the image; on the host alone."""
        del params
        return metadata

    def check_subject(self, subject: Subject) -> None:
        """Raise a ValueError if a subject lacks what is named here; on the host alone."""
        del subject

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.changed().items())})"

    def changed(self) -> dict[str, Any]:
        """The arguments that are not their defaults, as they are printed."""
        texts = {f.name: (plain(getattr(self, f.name)), plain(default_of(f))) for f in fields(self)}
        return {name: value for name, (value, default) in texts.items() if repr(value) != repr(default)}


@abstract
class SpatialTransform(Transform):
    """Abstract. Gives each image a new grid (`regrid`), or moves the content in the world (`move`), or both.

    Neighbours are fused into one map and read once (see `place.py`).
    """

    spatial: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    """Whether it only permutes, drops or repeats voxels."""
    reshapes: ClassVar[bool] = False
    """Whether it may change the shape: then its p is structure, `p: float = always(default=1.0)`."""
    rescales: ClassVar[bool] = False
    """Whether it changes the spacing: a second such transform begins a new run."""
    anchor: ClassVar[str | None] = None
    """Name of the image whose grid `regrid` and `move` get as the reference; None for the first."""
    locates: ClassVar[bool] = False
    """Whether it must see voxels to place itself: then it begins a new run, unless it `follows`."""
    follows: ClassVar[bool] = False
    """Whether what it located is followed through the moves before it, so that it need not begin a new run."""
    relabels: ClassVar[bool] = False
    """Whether `regrid` gives voxels another affine where they are, instead of reading them on another grid."""

    @property
    def regrids(self) -> bool:
        """Whether it gives images other grids."""
        return type(self).regrid is not SpatialTransform.regrid

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        """The grid that an image on `grid` gets; `reference` is the grid of the subject's first image."""
        del params, reference
        return grid

    def move(self, params: Params, reference: Grid) -> Map | None:
        """The map of the world, output mm to input mm."""
        del params, reference
        return None

    def sampling(self) -> Sampling:
        """Which interpolation and fill it asks for."""
        return NOTHING

    def locate(self, subject: Subject, params: Params, places: dict[str, Place]) -> Params:
        """What it must read from voxels, traced; handed to `regrid` among the params.

        subject: as it was before the run. places: where its images have come to since.
        """
        del subject, params, places
        return {}

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        """Raise a ValueError if these images, or what was located, cannot be transformed; on the host alone."""
        del grids, located


@abstract
class VoxelTransform(Transform):
    """Abstract. Changes the voxels of images where they are, each image on its own."""

    masking_method = None
    """Where it looks; a field of those that take one, so not annotated."""

    pointwise: ClassVar[bool] = False
    """Whether a voxel of the result depends on that voxel, its place in the whole grid and what was measured alone."""

    light: ClassVar[bool] = False
    """Whether a card does what is not pointwise in so few passes that asking the host for a coin takes it longer."""

    @property
    def measures(self) -> bool:
        """Whether `apply_to` takes, as a third argument, what `measure` found in the whole image."""
        return type(self).measure is not VoxelTransform.measure

    @property
    def verifies(self) -> bool:
        """Whether something measured may make no sense (`verify`), for which the host then waits."""
        return type(self).verify is not VoxelTransform.verify

    @property
    def rechannels(self) -> bool:
        """Whether it changes the number of channels (`channels`): then its p is structure and must be 1."""
        return type(self).channels is not VoxelTransform.channels

    @property
    def invertible(self) -> bool:
        """Whether `undo` takes back what `apply_to` did; else `invert` leaves the voxels as they are."""
        return type(self).undo is not VoxelTransform.undo

    @property
    def beside(self) -> str | None:
        """The mask, if it has a name."""
        return self.masking_method if isinstance(self.masking_method, str) else None

    def channels(self, count: int) -> int:
        """How many channels the result has."""
        return count

    @property
    def cuts(self) -> bool:
        """Whether it takes some channels of an image as they are (`volumes`), so that what belongs to them goes too."""
        return type(self).volumes is not VoxelTransform.volumes

    def volumes(self, params: Params) -> Any:
        """Numbers of the channels that it takes, where it only takes some."""
        raise NotImplementedError(f"{type(self).__name__} takes no channels as they are")

    def margin(self, spacing: np.ndarray) -> Shape3 | None:
        """How many voxels around a box its result depends on, for a spacing (3,) mm; None for the whole image.

        On the host; (0, 0, 0) for a transform that is pointwise and takes coordinates from the image's offset.
        """
        del spacing
        return (0, 0, 0) if self.pointwise else None

    def for_image(self, name: str) -> Self:
        """The transform as it acts on one image: with the image's own numbers, where it holds some for each."""
        del name
        return self

    def measure(self, image: Image, subject: Subject) -> Params:
        """What `apply_to` needs of the whole image or of the subject, traced."""
        del image, subject
        return {}

    def apply_to(self, image: Image, params: Params, *measured: Params) -> Image:
        """The transformed image: float32 (or float64), a label map in its own dtype."""
        raise NotImplementedError(f"{type(self).__name__} must define apply_to")

    def undo(self, image: Image, params: Params, *measured: Params) -> Image:
        """The image that `apply_to` made this one of, with the same params and what was measured in that image."""
        raise NotImplementedError(f"{type(self).__name__} is not invertible")

    def verify(self, measured: Params, name: str) -> None:
        """Raise a ValueError if what was measured in image `name` makes no sense; on the host alone."""
        del measured, name


@abstract
class IntensityTransform(VoxelTransform):
    """Abstract. Changes scalar images; label maps are left alone.

    shared: draw once for all images of a subject instead of for each.
    """

    shared: bool = static(default=False, convert=flag, kw_only=True)

    scalars_only = True


@abstract
class LabelTransform(VoxelTransform):
    """Abstract. Changes label maps; scalar images are left alone."""

    labels_only = True


def default_of(f: Any) -> Any:
    """A field's default as it looks once the transform is built."""
    convert = f.metadata.get("convert")
    return convert(f.name, f.default) if convert is not None and f.default is not MISSING else f.default


def plain(value: Any) -> Any:
    """Arrays as short nested tuples of numbers, for printing."""
    if hasattr(value, "tolist") and not isinstance(value, Tracer):
        return nested(value.tolist())
    return float(f"{value:.6g}") if isinstance(value, float) else value


def nested(value: Any) -> Any:
    """Nested lists as tuples, floats to six digits."""
    if isinstance(value, list):
        return tuple(nested(v) for v in value)
    return float(f"{value:.6g}") if isinstance(value, float) else value
