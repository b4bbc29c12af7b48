"""Metadata of images as JSON can hold them, headers of nibabel among them, and back; no code travels with them."""

import base64
import io
from typing import Any

import nibabel
from nibabel.freesurfer.mghformat import MGHHeader

nib: Any = nibabel  # its type hints know less than it does
_HEADER, _TUPLE = "nibabel", "tuple"
_CLASSES = {
    kind.__name__: kind
    for kind in (
        nib.Nifti1Header, nib.nifti1.Nifti1PairHeader, nib.Nifti2Header, nib.nifti2.Nifti2PairHeader,
        nib.spm2analyze.Spm2AnalyzeHeader, MGHHeader,
    )
}  # fmt: skip


def to_json(value: Any) -> Any:
    """What `json.dumps` takes, of which `from_json` makes an equal value; TypeError for what has no such form."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [to_json(item) for item in value]
    if type(value) is tuple:
        return {_TUPLE: [to_json(item) for item in value]}
    if type(value) is dict and all(type(name) is str and name not in (_HEADER, _TUPLE) for name in value):
        return {name: to_json(item) for name, item in value.items()}
    if _CLASSES.get(type(value).__name__) is type(value):
        return _packed(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def from_json(value: Any) -> Any:
    """The value of which `to_json` made this."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {_TUPLE}:
        return tuple(from_json(value[_TUPLE]))
    if _HEADER in value:
        return _unpacked(value)
    return {name: from_json(item) for name, item in value.items()}


def _packed(header: Any) -> dict[str, str]:
    """The bytes of a header and of its extensions, as text."""
    extensions = io.BytesIO()
    for extension in getattr(header, "extensions", ()):
        extension.write_to(extensions, False)
    parts = {"block": header.binaryblock, "extensions": extensions.getvalue()}
    texts = {name: base64.b64encode(part).decode() for name, part in parts.items()}
    return {_HEADER: type(header).__name__, "endianness": header.endianness, **texts}


def _unpacked(parts: dict[str, str]) -> Any:
    """The header of which `_packed` made this."""
    block, rest = (base64.b64decode(parts[name]) for name in ("block", "extensions"))
    kind = _CLASSES[parts[_HEADER]]
    order = () if kind is MGHHeader else (parts["endianness"],)  # MGH has one
    header: Any = kind(block, *order, check=False)
    if rest:
        header.extensions = type(header.extensions).from_fileobj(io.BytesIO(rest), len(rest), False)
    return header
