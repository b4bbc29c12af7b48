"""Every transform of medjax under its own name, for images, subjects and batches of tensors.

Each is a subclass of medjax's, made from its registry: fields, repr, isinstance, configuration and membership in a
Compose are inherited. The one mixin changes what goes in and out, where the key comes from, and who computes.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import torch

import medjax as mj
from medjax.transforms.program import is_random
from medjax.transforms.transform import REGISTRY, register
from torch_bridge import forked
from torch_bridge.image import Image
from torch_bridge.lending import to_medjax
from torch_bridge.subject import Subject

HINTS = {
    "CropForeground": 'CropOrPad(mask_name="label")',
    "DivisiblePad": "EnsureShapeMultiple",
    "Normalize": "RescaleIntensity",
    "NormalizeIntensity": "ZNormalization",
    "Orientation": "ToOrientation",
    "ScaleIntensity": "RescaleIntensity",
    "ScaleIntensityRange": "Window",
    "Spacing": "Resample",
    "SpatialPad": "CropOrPad(only_pad=True)",
    "Standardize": "ZNormalization",
}
"""What TorchIO 2 and MONAI call a transform of medjax."""
MAX_WORD = 1 << 32


def draw_key(generator: torch.Generator | None = None) -> np.ndarray:
    """Two words of 32 bits from a generator, torch's default one if None; starts no backend.

    Each rank of a distributed run has its own.
    """
    drawn = torch.randint(MAX_WORD, (2,), generator=generator, device="cpu")
    words = drawn.numpy().astype(np.uint32)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        words[0] ^= np.uint32(torch.distributed.get_rank() * 0x9E3779B9 % MAX_WORD)
    return words


def as_key(key: Any) -> Any:
    """A key from a seed, or the key that is given."""
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return np.array([int(key) >> 32 & 0xFFFFFFFF, int(key) & 0xFFFFFFFF], np.uint32)
    return key


def compute(t: mj.Transform, x: Any, key: Any, labels: Any = ()) -> Any:
    """medjax's own call, waited for: what is lent to it may be written to afterwards."""
    return jax.block_until_ready(mj.Transform.__call__(t, x, key, labels=labels))


def compute_batch(t: mj.Transform, x: Any, key: Any, labels: Any = ()) -> Any:
    """The same for a batch."""
    return jax.block_until_ready(mj.Transform.batch(t, x, key, labels=labels))


class Bridge:
    """What a transform of the bridge has before medjax's: tensors in, tensors out.

    `t(x)` takes a Subject, an Image, a tensor or array (C, I, J, K), or a dictionary of them, and gives the same type
    back, on the device it came from, never a changed input. Without `key` it draws one from torch's default generator,
    if anything is random; a key is a `jax.random.key`, or an integer as a seed. In a forked child the process that it
    was forked from computes.
    """

    def __init__(self, *args: Any, copy: bool = True, **kwargs: Any):
        del copy  # accepted as TorchIO's; nothing is changed in place
        super().__init__(*args, **kwargs)

    def __call__(self: Any, x: Any, key: Any = None, *, labels: Any = ()) -> Any:
        inner, back = to_medjax(x, labels)
        return back(forked.run(compute, self, inner, self.key_for(key), labels))

    def batch(self: Any, batch: Any, key: Any = None, *, labels: Any = ()) -> Any:
        """Transform a batch, every element by its own key: (B,) keys, or one that its place is folded into."""
        inner, back = to_medjax(batch, labels)
        return back(forked.run(compute_batch, self, inner, self.key_for(key), labels))

    def key_for(self: Any, key: Any) -> Any:
        """The key that is given, or one that is drawn if it is needed."""
        return draw_key() if key is None and is_random(self) else as_key(key)

    def sample(self: Any, key: Any, subject: Any) -> Any:
        """All that is drawn for a subject, the coin of p too; reads geometry, never voxels."""
        return forked.run(mj.Transform.sample, self, as_key(key), to_medjax(subject)[0])

    def apply(self: Any, subject: Any, params: Any) -> Any:
        """What a call with these params does, exactly."""
        inner, back = to_medjax(subject)
        return back(forked.run(compute_apply, self, inner, params))

    def invert(self: Any, x: Any, params: Any, *, like: Any, interpolation: str | None = None) -> Any:
        """Take back what a call with these params did, to the grids of `like`; see `medjax.Transform.invert`."""
        inner, back = to_medjax(x)
        return back(forked.run(compute_inverse, self, inner, params, to_medjax(like)[0], interpolation))


def compute_apply(t: mj.Transform, x: Any, params: Any) -> Any:
    """medjax's own `apply`, waited for."""
    return jax.block_until_ready(mj.Transform.apply(t, x, params))


def compute_inverse(t: mj.Transform, x: Any, params: Any, like: Any, interpolation: str | None) -> Any:
    """medjax's own `invert`, waited for."""
    return jax.block_until_ready(mj.Transform.invert(t, x, params, like=like, interpolation=interpolation))


def adapted(cls: type[mj.Transform]) -> type[mj.Transform]:
    """The bridge's class for a transform of medjax; it pickles by its name in this module."""
    given = list(inspect.signature(cls).parameters.values())
    accepted = inspect.Parameter("copy", inspect.Parameter.KEYWORD_ONLY, default=True)
    body = {
        "__module__": __name__,
        "__qualname__": cls.__name__,
        "__doc__": cls.__doc__,
        "__signature__": inspect.Signature([*given, accepted]),
    }
    made: Any = type(cls.__name__, (Bridge, cls), body)
    register(made)
    return made


def bridged(t: mj.Transform) -> Any:
    """A transform of medjax, and the members of one, as the bridge's."""
    if isinstance(t, Bridge):
        return t
    made = object.__new__(globals()[type(t).__name__])
    for name, value in vars(t).items():
        whole = isinstance(value, tuple) and value and all(isinstance(v, mj.Transform) for v in value)
        object.__setattr__(made, name, tuple(map(bridged, value)) if whole else value)
    return made


def from_config(config: dict[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """The transform of a dictionary that `to_config` made; `functions` is what names of functions in it stand for."""
    return bridged(mj.from_config(config, functions))


def unknown(module: str, name: str) -> AttributeError:
    """The error of a name that is not there, with the one that does the same or is near."""
    if name in HINTS:
        return AttributeError(f"{module} has no {name!r}; here it is {HINTS[name]}")
    near = difflib.get_close_matches(name, REGISTRY, n=1)
    return AttributeError(f"{module} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)


globals().update({name: adapted(cls) for name, cls in REGISTRY.items()})


def train(images_or_paths: Any, *args: Any, **options: Any) -> Any:
    """`medjax.HistogramStandardization.train`, for images and subjects of torch_bridge too."""
    bridge = (Image, Subject)
    items = [item.as_medjax() if isinstance(item, bridge) else item for item in images_or_paths]
    return mj.HistogramStandardization.train(items, *args, **options)


globals()["HistogramStandardization"].train = staticmethod(train)
