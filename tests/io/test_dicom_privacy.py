"""Who is in the picture stays out: whatever text a DICOM file holds reaches no metadata, message, log or file."""

import gzip
import logging
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian
from synthetic_dicom import ORIGIN, voxels, write_slice

import medjax as mj
from medjax.io.dicom import files

MARKER = "Doe^Jane 19700101"
VOLUME = voxels(1, 4, 8, 6)
TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
NEEDED = """
    SpecificCharacterSet SOPClassUID PhotometricInterpretation ImagePositionPatient ImageOrientationPatient PixelSpacing
    NumberOfFrames InstanceNumber TemporalPositionIdentifier RescaleSlope RescaleIntercept SliceThickness
    SpacingBetweenSlices EchoTime EffectiveEchoTime DoseGridScaling ConcatenationFrameOffsetNumber GridFrameOffsetVector
"""
"""Without which it would be no slice. Of these a file with text for a number is refused: tested apart."""


def raw(tag: int) -> DataElement:
    """The marker as the bytes of any tag: implicit VR, in which these files are written, does not say of what kind."""
    return DataElement(Tag(tag), "OB", (MARKER + " ").encode())


def textual() -> dict[int, str]:
    """Every tag of the dictionary that holds text, numbers as text included, by keyword."""
    tags = {tag: entry[4] for tag, entry in DicomDictionary.items() if entry[0] in TEXTS and tag >> 16 > 2 and entry[4]}
    return {tag: name for tag, name in tags.items() if name not in NEEDED.split() and "Retired" not in name}


def fill(
    path: Path,
    image: np.ndarray,
    k: int,
    keep: tuple[str, ...] = (),
    private: bool = True,
    spoilt: tuple[str, ...] = (),
    **tags: object,
) -> Path:
    """A slice with the marker in every textual tag, in sequences and in private blocks."""
    write_slice(path, image, k, **{"InstanceNumber": k + 1, **tags})
    one = pydicom.dcmread(path)
    one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # in which any bytes may stand in any tag
    inner = Dataset()
    for tag, name in textual().items():
        if name not in keep:
            one.add(raw(tag))
            inner.add(raw(tag))
    for name in ("OtherPatientIDsSequence", "RequestAttributesSequence", "MRDiffusionSequence"):
        setattr(one, name, [inner])
    for group in (0x0009, 0x0019, 0x0029, 0x0043, 0x2001, 0x2005) if private else (0x0009,):
        for creator, name in enumerate([MARKER, *CREATORS.get(group, ())], start=0x10):
            one.add(DataElement((group, creator), "LO", name))
            for element in range(0x00, 0xFF):
                one.add(raw((group << 16) + (creator << 8) + element))
    for name in spoilt:
        one.add(raw(Tag(name)))
    out = pydicom.dataset.FileDataset(str(path), one, preamble=bytes(128), file_meta=one.file_meta)
    out.save_as(path, implicit_vr=True, little_endian=True)
    return path


CREATORS = {
    0x0019: ("SIEMENS MR HEADER",),
    0x0029: ("SIEMENS CSA HEADER",),
    0x0043: ("GEMS_PARM_01",),
    0x2001: ("Philips Imaging DD 001",),
    0x2005: ("Philips MR Imaging DD 001",),
}


@pytest.fixture(autouse=True)
def pydicom_may_complain_of_what_is_written_here():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def silent(caplog):
    """Nothing that is logged or warned of in here holds the marker."""
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert MARKER not in caplog.text
    assert not [str(warning.message) for warning in caught if MARKER in str(warning.message)]


def error_of(call, caplog, name: str = "a.dcm") -> BaseException:
    """The error of a call, which names the file and quotes nothing."""
    with silent(caplog), pytest.raises(ValueError) as error:
        call()
    assert name in str(error.value) and not any(part in str(error.value) for part in MARKER.split("^"))
    return error.value


def test_the_marker_is_in_thousands_of_tags(tmp_path):
    path = fill(tmp_path / "a.dcm", VOLUME[0, 0], 0)
    assert len(textual()) > 2000
    assert path.read_bytes().count(MARKER.encode()) > 3000
    assert pydicom.dcmread(path).PatientName == MARKER


def test_no_text_of_a_file_travels(tmp_path, caplog):
    for k, image in enumerate(VOLUME[0]):
        fill(tmp_path / "in" / f"{k}.dcm", image, k)
    with silent(caplog):
        image = mj.ScalarImage(tmp_path / "in")
        np.testing.assert_array_equal(image.data, VOLUME.transpose(0, 3, 2, 1))
        assert image.metadata == {}
        said = [repr(image), str(mj.Subject(t1=image)), str(mj.dicom_series(tmp_path / "in")[0]._replace(uid=""))]
        for name in ("a.nii", "a.nii.gz", "a.mgz"):
            image.save(tmp_path / name)
            content = (tmp_path / name).read_bytes()
            said.append((content if name.endswith("i") else gzip.decompress(content)).decode("latin-1"))
    assert not any(part in text for text in said for part in MARKER.split("^"))


def test_what_is_allowed_travels(tmp_path, caplog):
    allowed = {
        "Modality": "CT", "Manufacturer": "GE MEDICAL SYSTEMS", "KVP": "120", "ConvolutionKernel": "STANDARD",
        "PatientPosition": "HFS", "RescaleType": "HU", "MagneticFieldStrength": "3", "RepetitionTime": "8.5",
        "InversionTime": "900", "FlipAngle": "12", "EchoTime": "3.25", "Units": "BQML",
    }  # fmt: skip
    path = fill(tmp_path / "a.dcm", VOLUME[0, 0], 0, tuple(allowed), private=False, **allowed)
    numbers = {name: float(value) for name, value in allowed.items() if value[0].isdigit()}
    with silent(caplog):
        assert mj.ScalarImage(path).load().metadata == allowed | numbers | {"Manufacturer": "GE"}


@pytest.mark.parametrize("maker", ["SIEMENS", "Philips Medical Systems", "GE MEDICAL SYSTEMS"])
def test_private_text_is_no_number(tmp_path, caplog, maker):
    path = fill(tmp_path / "a.dcm", VOLUME[0, 0], 0, ("Manufacturer",), Manufacturer=maker)
    for call in (lambda: mj.ScalarImage(path).shape, lambda: mj.dicom_gradients(path)):
        assert error_of(call, caplog).__suppress_context__


@pytest.mark.parametrize(
    "other",
    [
        {"ImagePositionPatient": [0, 0, 0]},
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
        {"PixelSpacing": [1, 1]},
        {"ImagePositionPatient": ORIGIN.tolist(), "InstanceNumber": 1},
        {"BitsStored": 30},
    ],
    ids=lambda other: "".join(other),
)
def test_errors_name_files_and_nothing_else(tmp_path, caplog, other):
    for k in range(3):
        fill(tmp_path / f"{k}.dcm", VOLUME[0, k], k, tuple(other), private=False, **(other if k == 1 else {}))
    error_of(lambda: mj.ScalarImage(tmp_path).load(), caplog, "1.dcm")


@pytest.mark.parametrize("name", NEEDED.split()[2:])
def test_text_for_a_number_that_is_needed(tmp_path, caplog, name):
    path = fill(tmp_path / "a.dcm", VOLUME[0, 0], 0, spoilt=(name,))
    if name in ("GridFrameOffsetVector", "ConcatenationFrameOffsetNumber"):  # only asked for where there are frames
        assert mj.ScalarImage(path).shape == (1, 6, 8, 1)
    else:
        error_of(lambda: mj.ScalarImage(path).shape, caplog)


def test_a_list_of_series_quotes_their_uids_alone(tmp_path, caplog):
    for k in range(2):
        tags = {"SeriesInstanceUID": f"1.2.{k}"}
        fill(tmp_path / f"{k}.dcm", VOLUME[0, k], k, tuple(tags), private=False, **tags)
    assert "1.2.1: 1 files, of unknown modality" in str(
        error_of(lambda: mj.ScalarImage(tmp_path).shape, caplog, "1.2.0")
    )


def test_truncated_files_quote_nothing(tmp_path, caplog):
    path = fill(tmp_path / "a.dcm", VOLUME[0, 0], 0)
    content = path.read_bytes()
    for size in range(128, len(content), len(content) // 40):
        path.write_bytes(content[:size])
        error_of(lambda: mj.ScalarImage(path).load(), caplog)


def test_what_a_library_says_of_a_damaged_file_is_not_passed_on(tmp_path, caplog, monkeypatch):
    def complain(*_, **options):
        raise ValueError(f"Invalid value: {MARKER}")

    path = fill(tmp_path / "a.dcm", VOLUME[0, 0], 0, private=False)
    monkeypatch.setattr(files, "read_partial", complain)
    error_of(lambda: mj.ScalarImage(path).shape, caplog)
