"""What is no volume, or not all there: refused with the reason and the files; what is there twice: read once."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless
from synthetic_dicom import AXIAL, group, uid, voxels, write_enhanced, write_mosaic, write_series, write_slice

import medjax as mj
from medjax.io.dicom import pixels

VOLUME = voxels(1, 5, 8, 6)
SERIES = voxels(3, 4, 8, 6)


def refused(source, *parts: str) -> str:
    """The message with which a series is refused when its header is read; it has all the parts."""
    with pytest.raises(ValueError) as error:
        _ = mj.ScalarImage(source).shape
    for part in parts:
        assert part in str(error.value)
    return str(error.value)


def slices(folder, volumes, but=(), **tags):
    """A series without some of its slices; of each the file is called by its time and its place."""
    for t, volume in enumerate(volumes):
        for k, image in enumerate(volume):
            if (t, k) not in but:
                number = t * len(volume) + k + 1
                own = {name: value[t] if isinstance(value, tuple) else value for name, value in tags.items()}
                write_slice(folder / f"t{t}k{k}.dcm", image, k, InstanceNumber=number, **own)
    return folder


# -- where slices lie


def test_a_missing_slice(tmp_path):
    refused(slices(tmp_path, VOLUME, [(0, 2)]), "3 to 6 mm apart", "is one missing?", "t0k1.dcm, t0k3.dcm")


def test_a_slice_off_by_more_than_a_tenth_of_a_step(tmp_path):
    slices(tmp_path, VOLUME)
    for off, allowed in ((0.25, True), (0.6, False)):
        write_slice(tmp_path / "t0k2.dcm", VOLUME[0, 2], 2, InstanceNumber=3, ImagePositionPatient=[-10, 5, 26 + off])
        if allowed:
            assert mj.ScalarImage(tmp_path).shape == (1, 6, 8, 5)
        else:
            refused(tmp_path, "mm apart")


@pytest.mark.parametrize("tilt", [3.0, 20.0])
def test_gantry_tilt(tmp_path, tilt):
    axes = np.array([AXIAL[0], [0, np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))], AXIAL[2]])
    refused(write_series(tmp_path, VOLUME, axes=axes), f"{tilt:.1f} degrees (gantry tilt)", "0000.dcm")


def test_a_slice_astray(tmp_path):
    slices(tmp_path, VOLUME)
    write_slice(tmp_path / "t0k2.dcm", VOLUME[0, 2], 2, InstanceNumber=3, ImagePositionPatient=[-8, 5, 26])
    refused(tmp_path, "do not lie above the others: t0k2.dcm")


def test_another_orientation(tmp_path):
    slices(tmp_path, VOLUME)
    write_slice(tmp_path / "scout.dcm", VOLUME[0, 0], 0, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], InstanceNumber=9)
    refused(tmp_path, "differ in orientation", "scout.dcm")


def test_another_size_or_spacing(tmp_path):
    slices(tmp_path, VOLUME[:, :4])
    write_slice(tmp_path / "other.dcm", VOLUME[0, 4, :-1], 4, InstanceNumber=5)
    refused(tmp_path, "differ in size or pixel spacing", "other.dcm")
    write_slice(tmp_path / "other.dcm", VOLUME[0, 4], 4, InstanceNumber=5, PixelSpacing=[2.0, 1.6])
    refused(tmp_path, "differ in size or pixel spacing", "other.dcm")


def test_magnitude_and_phase(tmp_path):
    kinds = tuple(["ORIGINAL", "PRIMARY", kind] for kind in "MP")
    refused(slices(tmp_path, SERIES[:2], ImageType=kinds), "differ in kind", "t1k0.dcm")


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_slices_without_a_place(tmp_path, tag):
    refused(
        write_slice(tmp_path / "a.dcm", VOLUME[0, 0], 0, **{tag: None}), "a.dcm", "does not say where its slices lie"
    )


def test_an_orientation_that_is_none(tmp_path):
    tags = {"ImageOrientationPatient": [1, 0, 0, 0.5, 0.5, 0]}
    refused(write_slice(tmp_path / "a.dcm", VOLUME[0, 0], 0, **tags), "a.dcm", "perpendicular unit vectors")


def test_frames_without_a_place(tmp_path):
    refused(write_slice(tmp_path / "a.dcm", VOLUME[0], 0), "a.dcm", "does not say where each lies")


def test_frames_that_are_not_described(tmp_path):
    file = write_enhanced(tmp_path / "a.dcm", [(image, k, {}) for k, image in enumerate(VOLUME[0])])
    one = pydicom.dcmread(file)
    del one.PerFrameFunctionalGroupsSequence[-1]
    one.save_as(file)
    refused(file, "a.dcm", "describes 4 frames and holds 5")


def test_mosaics_that_cannot_be_taken_apart(tmp_path):
    file = write_mosaic(tmp_path / "a.dcm", VOLUME[0])
    one = pydicom.dcmread(file)
    del one[0x00291010]
    one.save_as(file)
    refused(file, "a.dcm", "private header was stripped")
    write_mosaic(file, VOLUME[0], csa={"NumberOfImagesInMosaic": ["17"]})
    refused(file, "a.dcm", "a mosaic of 24 x 18 is not 5 x 5 tiles")


# -- several volumes


def test_a_slice_missing_of_one_volume(tmp_path):
    refused(slices(tmp_path, SERIES, [(1, 2)]), "most places hold 3 slices", "t0k2.dcm, t2k2.dcm")


def test_slices_of_different_volumes_missing_at_all_places(tmp_path):
    """Each place holds two slices; together they are no two volumes, though they could be stacked as such."""
    but = [(0, 0), (1, 1), (2, 2), (0, 3)]
    refused(slices(tmp_path / "time", SERIES, but, TemporalPositionIdentifier=(1, 2, 3)), "differ in echo, time")
    refused(slices(tmp_path / "b", SERIES, but, DiffusionBValue=(0.0, 500.0, 900.0)), "differ in echo, time, b-value")
    refused(slices(tmp_path / "none", SERIES, but), "numbers do not tell which of them belong to one volume")


def test_volumes_without_an_order(tmp_path):
    for t in range(2):
        for k in range(4):
            write_slice(tmp_path / f"{t}{k}.dcm", SERIES[t, k], k, InstanceNumber=None)
    refused(tmp_path, "2 slices lie at one place", "nor number orders them", "00.dcm")


def test_slices_that_all_lie_at_one_place(tmp_path):
    refused(slices(tmp_path, SERIES[:, :1]), "all lie at one place", "t2k0.dcm")
    assert mj.ScalarImage(slices(tmp_path, SERIES[:, :1], TemporalPositionIdentifier=(1, 2, 3))).shape == (3, 6, 8, 1)


# -- copies


@pytest.mark.parametrize("resent", [False, True], ids=["same instance", "new instance"])
def test_a_copy_counts_once_and_must_be_one(tmp_path, resent):
    slices(tmp_path, VOLUME)
    tags = {
        "InstanceNumber": 3,
        "SOPInstanceUID": uid("new") if resent else pydicom.dcmread(tmp_path / "t0k2.dcm").SOPInstanceUID,
    }
    write_slice(tmp_path / "copy.dcm", VOLUME[0, 2], 2, **tags)
    np.testing.assert_array_equal(mj.ScalarImage(tmp_path).data, VOLUME.transpose(0, 3, 2, 1))
    write_slice(tmp_path / "copy.dcm", VOLUME[0, 2] + 1, 2, **tags)
    refused(tmp_path, "differ in their voxels", "copy.dcm", "t0k2.dcm")
    write_slice(tmp_path / "copy.dcm", VOLUME[0, 2], 2, **tags, RescaleSlope=2)
    refused(tmp_path, "differ in their voxels", "copy.dcm", "t0k2.dcm")


def test_copies_of_multi_frame_files(tmp_path):
    frames = [(image, k, {}) for k, image in enumerate(VOLUME[0])]
    for name in "ab":
        write_enhanced(tmp_path / f"{name}.dcm", frames, SOPInstanceUID="1.2.3")
    np.testing.assert_array_equal(mj.ScalarImage(tmp_path).data, VOLUME.transpose(0, 3, 2, 1))


# -- files


def cut(path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("size", [-1, -90, 700, 200, 140, 100, 0])
def test_a_truncated_file_beside_the_series(tmp_path, size):
    """At the end of a series nothing but the file itself tells that it is there."""
    slices(tmp_path, VOLUME)
    cut(tmp_path / "t0k4.dcm", size)
    refused(tmp_path, "t0k4.dcm")
    refused(tmp_path / "t0k4.dcm", "t0k4.dcm")


def test_a_damaged_file_in_another_folder(tmp_path):
    slices(tmp_path / "series", VOLUME)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.dcm").write_text("no DICOM")
    assert mj.ScalarImage(tmp_path).shape == (1, 6, 8, 5)


def test_a_folder_without_dicom(tmp_path):
    (tmp_path / "notes").write_text("none")
    (tmp_path / ".hidden.dcm").write_text("of the desktop")
    refused(tmp_path, str(tmp_path), "no DICOM image is in it")


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """A file with some bytes of its first 3000 changed, taken out or put in."""
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        at, some = rng.integers(128, min(len(damaged), 3000)), rng.bytes(int(rng.integers(1, 9)))
        match rng.integers(3):
            case 0:
                damaged[at : at + len(some)] = some
            case 1:
                del damaged[at : at + len(some)]
            case _:
                damaged[at:at] = some
    return bytes(damaged)


@pytest.mark.parametrize("count", [100, pytest.param(4000, marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of explicit and implicit VR
def test_any_damage_is_refused_by_name_or_does_no_harm(tmp_path, count):
    rng = np.random.default_rng(count)
    files = [
        write_slice(tmp_path / "a.dcm", VOLUME[0, 0], 0),
        write_enhanced(tmp_path / "b.dcm", [(image, k, {}) for k, image in enumerate(VOLUME[0])]),
        write_mosaic(
            tmp_path / "c.dcm", VOLUME[0], csa={"B_value": ["700"], "DiffusionGradientDirection": list("100")}
        ),
        Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small_RLE.dcm",
        Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "DICOMDIR",
    ]
    for n in range(count):
        file = files[n % len(files)]
        path = tmp_path / "damaged" / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damage(file.read_bytes(), rng))
        try:
            image = mj.ScalarImage(path)
            assert image.shape == image.load().data.shape
        except (ValueError, FileNotFoundError) as error:
            assert str(path.parent) in str(error)


@pytest.mark.parametrize("at", ["a fragment", "a header"])
def test_truncated_compressed_voxels(tmp_path, at):
    file = write_slice(tmp_path / "a.dcm", VOLUME[0, 0], 0)
    one = pydicom.dcmread(file)
    one.compress(JPEGLSLossless, generate_instance_uid=False)
    one.save_as(file)
    assert mj.ScalarImage(file).shape == (1, 6, 8, 1)
    cut(file, -9 if at == "a fragment" else -4)
    refused(file, "a.dcm", "truncated")


def compressed(path, syntax, data: bytes):
    one = pydicom.dcmread(write_slice(path, VOLUME[0, 0], 0))
    one.PixelData = encapsulate([data])
    one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
    one.file_meta.TransferSyntaxUID = syntax
    one.save_as(path)
    return path


class NoCodec:
    is_available = False
    available_plugins = ()


@pytest.mark.parametrize(("syntax", "extra"), [(JPEGLosslessSV1, "dicom-codecs"), (JPEG2000Lossless, "dicom")])
def test_a_codec_that_is_missing(tmp_path, monkeypatch, syntax, extra):
    monkeypatch.setattr(pixels, "get_decoder", lambda _: NoCodec)
    image = mj.ScalarImage(compressed(tmp_path / "a.dcm", syntax, bytes(64)))
    assert image.shape == (1, 6, 8, 1)  # the header needs none
    with pytest.raises(ValueError, match=rf"a\.dcm.*no codec is installed: pip install 'medjax\[{extra}\]'"):
        image.load()


def test_voxels_that_no_codec_can_decode(tmp_path):
    image = mj.ScalarImage(compressed(tmp_path / "a.dcm", JPEG2000Lossless, bytes(64)))
    with pytest.raises(ValueError, match=r"a\.dcm: its voxels .* are damaged.*dicom-codecs"):
        image.load()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"Modality": "SEG"}, "segmentation"),
        ({"ModalityLUTSequence": [group(LUTDescriptor=[1, 0, 16], LUTData=[1])]}, "Modality LUT"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "12 bits"),
        ({"BitsStored": 12, "HighBit": 15}, "HighBit"),
        ({"BitsStored": 20, "HighBit": 19}, "20 of them used"),
        ({"Rows": 0}, "0 rows"),
        ({"Rows": 80}, "truncated"),
        ({"Rows": None}, "without Rows"),
        ({"PixelData": None}, "no voxels"),
        ({"PixelSpacing": [0, 1]}, "not positive"),
    ],
)
def test_files_that_are_no_slices(tmp_path, tags, reason):
    refused(write_slice(tmp_path / "a.dcm", VOLUME[0, 0], 0, **tags), "a.dcm", reason)
