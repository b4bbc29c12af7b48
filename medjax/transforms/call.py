"""What happens when a transform is called: on one subject or on a batch, traced or not.

Traced, a call is `draw` and `execute` of `run.py` and nothing else. Outside of a trace it is compiled, and `host.py`
carries around the program what a program cannot carry. A batch is a loop over its elements in one program, so that its
cost follows what was drawn and its memory is that of one element.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import jax
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array

from medjax import keys
from medjax.errors import needs_key
from medjax.image import Image, LabelMap, ScalarImage
from medjax.subject import Subject, batch_size
from medjax.transforms import inverse
from medjax.transforms.checks import check_subject
from medjax.transforms.devices import alike
from medjax.transforms.elements import compiled_each, every
from medjax.transforms.host import after_batch, bare, compiled_draw, on_host, outline
from medjax.transforms.loop import looped
from medjax.transforms.near import brought_near, shifted, taken_back
from medjax.transforms.program import flatten, flatten_params, is_random, is_traced, runs_of
from medjax.transforms.run import draw, execute
from medjax.transforms.seen import Packed
from medjax.typing import Key, Params
from medjax.voxels import admitted

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


def compute(
    t: "Transform", subject: Subject, key: Key | None, first: int = 0, whole: int | None = None
) -> tuple[Subject, Packed]:
    """A batch transformed by one program, and what `after_batch` needs to finish it; waits for neither.

    first, whole: where it begins in a larger batch that it is a part of, and the size of that.
    """
    near, brought, offset = brought_near(t, subject)
    result, seen = compiled_each(near, brought, key, batch_sharding(subject), np.int32(first), whole)
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
    moved = {
        n: subject[n].replace(xyz=item.xyz) if item.xyz.shape == subject[n].xyz.shape else item
        for n, item in result.annotations.items()
    }
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
