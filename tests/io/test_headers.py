"""Metadata of images go through JSON and come back as they were."""

import json

import nibabel as nib
import pytest
from conftest import NIBABEL

import medjax as mj
from medjax.io import headers

FILES = ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii", "test.mgz", "tiny.mnc"]


@pytest.mark.parametrize("name", FILES)
def test_headers_of_nibabel_come_back(name):
    found = mj.ScalarImage(NIBABEL / name).load().metadata
    again = headers.from_json(json.loads(json.dumps(headers.to_json(found))))
    assert again == found
    if "header" in found:
        old, new = found["header"], again["header"]
        assert type(new) is type(old) and new.binaryblock == old.binaryblock and new.endianness == old.endianness
        pairs = zip(getattr(old, "extensions", ()), getattr(new, "extensions", ()), strict=True)
        assert all((a.get_code(), a.get_content()) == (b.get_code(), b.get_content()) for a, b in pairs)


def test_extensions_and_foreign_byte_orders_come_back():
    for order in "<>":
        header = nib.Nifti1Header(endianness=order)
        header.set_data_shape((3, 4, 5))
        header["descrip"] = b"words"
        header.extensions += [nib.nifti1.Nifti1Extension(6, b"one"), nib.nifti1.Nifti1Extension(4, b"<afni/>")]
        again = headers.from_json(headers.to_json(header))
        assert again.binaryblock == header.binaryblock and again.endianness == order
        assert [e.get_content() for e in again.extensions] == [b"one", b"<afni/>"]


def test_what_has_no_form_in_json_is_refused():
    value = {"a": [1, 2.5, None, True, "x"], "b": (1, (2,)), "c": {"d": []}}
    assert headers.from_json(json.loads(json.dumps(headers.to_json(value)))) == value
    for wrong in (print, {1: 2}, object(), {1, 2}, 1j, {"nibabel": 1}, nib.Nifti1Image):
        with pytest.raises(TypeError, match="has no form in JSON"):
            headers.to_json({"a": wrong})
