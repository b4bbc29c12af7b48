"""Arrays as objects of zarr 3, by tensorstore: compressed chunks of 32 x 32 x 32, all of an array in one object.

Every chunk, and the list of them, has a checksum. tensorstore takes missing chunks for zeros, and leaves out chunks of
zeros, unless it is told otherwise, as it is here: what is missing is an error.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medjax.io import memory

if TYPE_CHECKING:  # a process forked after tensorstore was imported cannot use it, so it is imported where it is used
    import tensorstore

CHUNK = 32
RETRIES = {"max_retries": 5, "initial_delay": "500ms", "max_delay": "8s"}
STATUS = re.compile("[A-Z_]{3,}: ")


@functools.cache
def connected(url: str) -> "tensorstore.KvStore":
    """The objects under a URL; raises ValueError for one that makes no sense."""
    import tensorstore

    retries = {f"{scheme}_request_retries": RETRIES for scheme in ("gcs", "s3", "http")}
    try:
        return tensorstore.KvStore.open(place(url), context=tensorstore.Context(retries)).result()
    except ValueError as error:
        raise ValueError(f"folder={url!r} cannot be opened: {error}") from None


def place(url: str) -> str | dict[str, str]:
    """A URL for tensorstore, which does not look at where Amazon's own tools are told of another server."""
    server = os.environ.get("AWS_ENDPOINT_URL")
    if server is None or not url.startswith("s3://"):
        return url
    bucket, _, path = url.removeprefix("s3://").partition("/")
    return {"driver": "s3", "bucket": bucket, "path": path, "endpoint": server}


@contextlib.contextmanager
def reported(url: str) -> Iterator[None]:
    """Raise what tensorstore says of a store that cannot be used as an OSError."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or STATUS.match(str(error)):
            raise OSError(f"{url}: {error}") from error
        raise


def metadata(shape: Sequence[int], dtype: np.dtype) -> dict[str, Any]:
    """What zarr.json says of an array (C, I, J, K)."""
    chunk = [1, *(min(CHUNK, n) for n in shape[1:])]
    numbers, checked = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    chunks = {
        "chunk_shape": chunk,
        "codecs": [numbers, {"name": "zstd", "configuration": {"level": 1}}, checked],
        "index_codecs": [numbers, checked],
    }
    shard = [-(-n // size) * size for n, size in zip(shape, chunk, strict=True)]
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard}},
        "codecs": [{"name": "sharding_indexed", "configuration": chunks}],
    }


def opened(
    objects: "tensorstore.KvStore", shape: Sequence[int], dtype: np.dtype, *, new: bool = False
) -> "tensorstore.TensorStore":
    """The array in some objects. Of one that is there nothing is read to open it."""
    import tensorstore

    spec = {
        "driver": "zarr3",
        "metadata": metadata(shape, dtype),
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,
    }
    return tensorstore.open(spec, kvstore=objects, create=new, open=not new, assume_metadata=not new).result()


def encoded(arrays: Sequence[np.ndarray]) -> dict[str, bytes]:
    """The objects of some arrays by name, which begins with the array's number."""
    import tensorstore

    objects = tensorstore.KvStore.open("memory://", context=tensorstore.Context()).result()
    each([
        opened(objects / f"{number}/", array.shape, array.dtype, new=True).write(array)
        for number, array in enumerate(arrays)
    ])  # fmt: skip
    return {name.decode(): objects.read(name).result().value for name in objects.list().result()}


def decoded(
    objects: "tensorstore.KvStore", number: int, shape: Sequence[int], dtype: str, box: tuple[slice, ...] = ()
) -> "tuple[np.ndarray, tensorstore.WriteFutures]":
    """Array `number` of some objects, or a box of it, and what says when it is there."""
    import tensorstore

    part = opened(objects / f"{number}/", shape, np.dtype(dtype))[box]
    data = memory.empty(part.shape, np.dtype(dtype))
    return data, tensorstore.array(data).write(part[tensorstore.d[:].translate_to[0]])


def each(futures: Sequence[Any]) -> list[Any]:
    """The results of what runs at the same time."""
    return [future.result() for future in futures]


def below(prefix: str) -> "tensorstore.KvStore.KeyRange":
    """The names that begin with a folder of which no other's name is the beginning."""
    import tensorstore

    return tensorstore.KvStore.KeyRange(f"{prefix}/", f"{prefix}0")  # "0" comes after "/"
