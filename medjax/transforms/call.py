"""What happens when a transform is called: on one subject or on a batch, traced or not.

Traced, a call is `draw` and `execute` of `run.py` and nothing else. Outside of a trace it is compiled, and `host.py`
carries around the program what a program cannot carry. A batch is a loop over its elements in one program, so that its
cost follows what was drawn and its memory is that of one element.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from medjax import keys
from medjax.errors import needs_key
from medjax.image import Image, LabelMap, ScalarImage
from medjax.subject import Subject, batch_size
from medjax.transforms import buckets, inverse
from medjax.transforms.checks import check_subject
from medjax.transforms.devices import alike, by_devices
from medjax.transforms.host import after_batch, bare, compiled_draw, fixed_shapes, on_host, outline
from medjax.transforms.loop import looped
from medjax.transforms.near import brought_near, shifted, taken_back
from medjax.transforms.program import flatten, flatten_params, is_random, is_traced, runs_of, seen_on_host
from medjax.transforms.run import draw, execute
from medjax.transforms.seen import Packed, Seen, packed
from medjax.typing import Key, Params
from medjax.voxels import ElementVoxels, admitted

if TYPE_CHECKING:  # transforms are called through this
    from medjax.transforms.transform import Transform


Data: TypeAlias = Subject | Image | Mapping[str, Array] | Array | np.ndarray
"""What a transform is called on."""


def one_subject(t: "Transform", x: Data, key: Key | None, labels: Sequence[str]) -> Data:
    """Transform one subject, image, array or dict of arrays."""
    subject, restore = as_subject(x, labels)
    key = key_for(t, key, keys.as_key)
    subject = through_gate(subject.load())
    check_subject(t, subject, names_of(x))
    if is_traced(t, subject, key):
        return restore(looped(lambda t, s, key: executed(t, s, draw(t, key, s)), *alike(t, subject, key)))
    t, subject, offset = brought_near(t, subject)
    return restore(taken_back(on_host(t, subject, compiled_draw(t, key, outline(subject))), offset))


def batch(t: "Transform", x: Data, key: Key | None, labels: Sequence[str]) -> Data:
    """Transform a batch, an element after the other in one program: cost follows p, and memory is that of one."""
    subject, restore = as_subject(x, labels, leading=1)
    subject, size = through_gate(subject), batch_size(subject)
    key = key_for(t, key, partial(keys.as_keys, size=size))
    check_subject(t, subject, names_of(x))
    if is_traced(t, subject, key):
        return restore(every(*alike(t, subject, key))[0])
    return restore(after_batch(t, subject, *compute(t, subject, key), size))


def compute(t: "Transform", subject: Subject, key: Key | None) -> tuple[Subject, Packed]:
    """A batch transformed by one program, and what `after_batch` needs to finish it; waits for neither."""
    near, brought, offset = brought_near(t, subject)
    result, seen = compiled_each(near, brought, key, batch_sharding(subject))
    seen.ask()
    return taken_back(result, offset), seen


def sample(t: "Transform", key: Key | None, x: Data) -> Params:
    """All that is drawn for a subject."""
    subject, _ = as_subject(x, ())
    key = key_for(t, key, keys.as_key)
    if is_traced(t, subject, key):
        t, subject, key = alike(t, subject, key)
        return draw(t, key, subject)
    t, subject, _ = brought_near(t, subject)
    return compiled_draw(t, key, outline(subject))


def replay(t: "Transform", x: Data, params: Params) -> Data:
    """What a call with these params does."""
    subject, restore = as_subject(x, ())
    subject = through_gate(subject.load())
    check_subject(t, subject, names_of(x))
    if is_traced(t, subject, params):
        t, subject, params = alike(t, subject, params)
        return restore(executed(t, subject, params))
    t, subject, offset = brought_near(t, subject)
    return restore(taken_back(on_host(t, subject, params), offset))


def invert(t: "Transform", x: Data, params: Params, like: Data, interpolation: str | None) -> Data:
    """Take back what a call with these params did."""
    subject, restore = as_subject(x, ())
    original, _ = as_subject(like, ())
    check_subject(t, original)
    subject = subject.load()
    if is_traced(t, subject, params, original):
        t, subject, params, original = alike(t, subject, params, original)
        return restore(inverse.invert(t, subject, params, original, interpolation))
    t, original, offset = brought_near(t, original)
    if offset is not None:
        subject = shifted(subject, -offset)
    return restore(taken_back(inverse.invert(t, subject, params, original, interpolation), offset))


def key_for(t: "Transform", key: object, check: Callable[[object], Key]) -> Key | None:
    """The checked key, or None if none is given and none is needed."""
    if key is None:
        return needs_key(type(t).__name__) if is_random(t) else None
    return check(key)


def executed(t: "Transform", subject: Subject, params: Params) -> Subject:
    """A subject after a pipeline of which everything has been drawn, traced."""
    steps = flatten(t)
    return execute(steps, runs_of(steps), flatten_params(t, params), subject)[0]


def each(t: "Transform", subject: Subject, key: Key | None, index: Array, size: int) -> tuple[Subject, Seen]:
    """Draw and run for every element of a batch, one after the other; with what is needed to plan again on the host.

    index: which elements of a batch of `size` they are.
    """
    steps = flatten(t)
    runs = runs_of(steps)
    whole = {name: jnp.asarray(subject[name].data) for name in cropped_first(t, key, subject)}
    rest = subject.replace(**{name: subject[name].replace(data=None) for name in whole})

    @jax.checkpoint
    def element(operands: tuple) -> tuple[Subject, Seen]:
        t, whole, subject, params, number = operands
        subject = subject.replace(
            **{name: subject[name].replace(data=ElementVoxels(data, number)) for name, data in whole.items()}
        )
        flat = flatten_params(t, params)
        result, record = execute(flatten(t), runs, flat, subject)
        turns = {i: flat[i] for i, step in enumerate(steps) if seen_on_host(step.transform)}
        return result, Seen(record, turns)

    operands = (rest, draws(t, key, subject, index, size), jnp.arange(len(index), dtype=jnp.int32))
    result, seen = jax.lax.map(lambda operands: element((t, whole, *operands)), operands)
    for name, image in result.images.items():  # traced, so nothing is computed yet
        buckets.check_count(image.data.shape[-3:], f"the result {name!r}")
        buckets.check_memory(image.data.shape, image.data.dtype.itemsize, f"the batch of results {name!r}")
    return result, seen


def draws(t: "Transform", key: Key | None, subject: Subject, index: Array, size: int) -> Params:
    """`draw` for every element of a batch at once: on a GPU a few kernels instead of as many for each element."""
    outlines = {n: jax.ShapeDtypeStruct(image.shape[1:], image.dtype) for n, image in subject.images.items()}
    grids = {n: (image.affine, image.extent) for n, image in subject.images.items()}

    def one(key: Key | None, grids: dict[str, tuple[Array, Array | None]], index: Array) -> Params:
        images = {n: type(subject[n]).of(outlines[n], *grid) for n, grid in grids.items()}
        return draw(t, key, Subject(images), (index, size))

    if keys.alone_under_vmap(key):
        return jax.vmap(one)(key, grids, index)
    return jax.lax.map(lambda operands: one(*operands), (key, grids, index))


def cropped_first(t: "Transform", key: Key | None, subject: Subject) -> list[str]:
    """The images of a batch of which the first run keeps a part alone, of fixed shape: they are read where they lie.

    A loop copies each element that it takes out of a batch. Other images are taken out: the gradient of what is read
    in place is as large as the batch, for each element.
    """
    one = None if key is None else key[0]
    shapes = fixed_shapes(t, one, subject)
    return [n for n, shape in shapes.items() if math.prod(shape) < math.prod(subject[n].spatial_shape)]


def every(
    t: "Transform", subject: Subject, key: Key | None, sharding: NamedSharding | None = None
) -> tuple[Subject, Seen]:
    """`each` for all of a batch; one that is split over devices stays so, every device running its own elements."""
    size = batch_size(subject)
    index = jnp.arange(size, dtype=jnp.int32)

    def run(t: "Transform", own: tuple[Subject, Key | None, Array]) -> tuple[Subject, Seen]:
        subject, key, index = own
        return each(t, subject, key, index, size)

    return by_devices(run, t, (subject, key, index), sharding)


@partial(jax.jit, static_argnames="sharding")
def compiled_each(
    t: "Transform", subject: Subject, key: Key | None, sharding: NamedSharding | None
) -> tuple[Subject, Packed]:
    """`every`, compiled."""
    result, seen = every(t, subject, key, sharding)
    return result, packed(seen, batch_size(subject))


def batch_sharding(subject: Subject) -> NamedSharding | None:
    """How the leading axis of a batch is split over devices, if it is."""
    for leaf in jax.tree.leaves(subject):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.num_devices > 1 and sharding.spec and sharding.spec[0]:
            return sharding
    return None


def as_subject(x: Data, labels: Sequence[str], leading: int = 0) -> tuple[Subject, Callable[[Subject], Data]]:
    """`x` as a Subject, and the way back to its type; `leading` is 1 for a batch, and 0 for one subject."""
    if isinstance(x, Subject):
        if not x.images:
            raise ValueError("the subject has no images")
        check_leading(x, leading)
        return bare(x), lambda s: updated(x, s)
    if isinstance(x, Image):
        check_leading(Subject(image=x), leading)
        return Subject(image=x), lambda s: s["image"]
    if isinstance(x, dict):
        for name in labels:
            if name not in x:
                raise ValueError(f"labels names {name!r}, which is not among {', '.join(map(repr, x))}")
        images = {n: wrap(a, LabelMap if n in labels else ScalarImage, n, leading) for n, a in x.items()}
        return Subject(images), lambda s: {n: i.data for n, i in s.images.items()}
    if isinstance(x, (np.ndarray, jax.Array)):
        return Subject(image=wrap(x, ScalarImage, "the array", leading)), lambda s: s["image"].data
    raise TypeError(f"a transform takes a Subject, an Image, an array or a dict of arrays, got {type(x).__name__}")


def names_of(x: Data) -> Sequence[str]:
    """The names of the items of what a transform is called on."""
    return tuple(x) if isinstance(x, Subject) else ()


def through_gate(subject: Subject) -> Subject:
    """The subject, with what came past the doors of its images brought to what these let in.

    Past them come maps over a tree, and images that were made where JAX had 64 bits. Raises ValueError, naming the
    image, for what is not let in.
    """
    brought = {}
    for name, image in subject.images.items():
        data = image.held()[0]
        if isinstance(data, np.ndarray) and (data.dtype.itemsize > 4 or not data.dtype.isnative):
            new = admitted(data, name, labels=image.is_label)
            brought |= {name: image.replace(data=new)} if new is not data else {}
    return subject.replace(**brought) if brought else subject


def check_leading(subject: Subject, leading: int) -> None:
    """Raise a ValueError for a batch where one subject is due, and the reverse; reads no file.

    A question of rank alone: under `vmap` an element has no axis of the batch, so it is one subject there as well.
    """
    for name, image in subject.images.items():
        data, affine, *_ = image.held()
        if data is None and leading:
            refuse_leading(name, "what a file holds", leading)
        if data is not None and data.ndim == 5 - leading:
            refuse_leading(name, tuple(data.shape), leading)
        if affine is not None and affine.ndim == 3 - leading:
            refuse_leading(f"the affine of {name}", tuple(affine.shape), leading)


def refuse_leading(name: str, shape: tuple[int, ...] | str, leading: int) -> NoReturn:
    """Raise the error of a batch where one subject is due, or of one subject where a batch is."""
    if leading:
        raise ValueError(
            f"this is one subject: call it, pipeline(subject, key). In a batch images are (B, C, I, J, K) and their "
            f"affines (B, 4, 4); {name} is {shape}"
        )
    raise ValueError(
        f"this is a batch of {shape[0]}: use pipeline.batch(batch, key). In one subject images are (C, I, J, K) and "
        f"their affines (4, 4); {name} is {shape}"
    )


def updated(subject: Subject, result: Subject) -> Subject:
    """A subject with the images of another, and where its points and directions have come to; the rest goes around."""
    moved = {n: subject[n].replace(xyz=item.xyz) for n, item in result.annotations.items()}
    return Subject({**dict(subject.items()), **result.images, **moved})


def wrap(array: Array | np.ndarray, cls: type[Image], name: str, leading: int) -> Image:
    """A bare array as an image with the identity affine; what an image does not take is refused."""
    if isinstance(array, (np.ndarray, jax.Array)) and array.ndim == 5 - leading:
        refuse_leading(name, array.shape, leading)
    if not isinstance(array, (np.ndarray, jax.Array)) or array.ndim != 4 + leading:
        axes = "(B, C, I, J, K)" if leading else "(C, I, J, K)"
        raise ValueError(f"{name} must be an array {axes}, got {keys.describe(array)}")
    affine = np.broadcast_to(np.eye(4), (*array.shape[:leading], 4, 4))
    return cls.of(admitted(array, name, labels=cls.is_label), affine)
