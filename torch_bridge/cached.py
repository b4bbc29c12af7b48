"""Subjects of a torch data set from a cache: in a worker NumPy and torch only, whoever has JAX prepares what is new.

A cache under a URL is read by tensorstore, which does not survive a fork either: where the process that was forked has
it already, that process reads.
"""

from copy import copy, deepcopy

import medjax as mj
from medjax.data import remote
from medjax.data.prepared import Prepared
from torch_bridge import forked
from torch_bridge.bridge import compute
from torch_bridge.dlpack import to_torch
from torch_bridge.image import KINDS, Image
from torch_bridge.lending import subject_to_medjax
from torch_bridge.subject import Subject
from torch_bridge.voxels import outline

remote.Fork.ask = forked.ask


def from_cache(prepared: Prepared, given: Subject) -> Subject:
    """What becomes of a subject before anything random; where it is not kept yet, a forked child asks its parent."""
    made: dict[str, tuple[Subject, mj.Subject]] = {}

    def make() -> mj.Subject:
        subject = given.read()
        if not prepared.only_reads:
            inner, back = subject_to_medjax(subject)
            subject = back(forked.run(compute, prepared.head, inner, None))
        made["new"] = subject, subject.as_medjax()
        return made["new"][1]

    found = prepared.get(given.as_medjax(), make)
    if made and found is made["new"][1]:  # it is not kept
        return made["new"][0]
    images, only_reads = given.get_images_dict(intensity_only=False), prepared.only_reads
    return given._with(
        {
            n: filled(images.get(n), item, only_reads) if isinstance(item, mj.Image) else item
            for n, item in found.items()
        }
    )


def filled(image: Image | None, found: mj.Image, only_reads: bool) -> Image:
    """The voxels of medjax's image in a copy of one that still knows its file, or in one of their own."""
    tensor = to_torch(found.data)
    if image is None or not only_reads:
        named = None if image is None else deepcopy(image._named)
        return KINDS[type(found)].of(tensor, found.affine, found.metadata, found.assumed, named)
    copied = copy(image)
    copied._tensor, copied._source = tensor, found.replace(data=outline(found.shape))
    return copied
