"""What of a header travels with an image: numbers, and words of lists. No text is passed on, whatever tag it is in."""

import re
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from medjax.io.dicom.tags import Refused, numbers, words

_NUMBERS = {
    "MagneticFieldStrength": ("MagneticFieldStrength",),  # T
    "RepetitionTime": ("RepetitionTime",),  # ms, as the other times
    "EchoTime": ("EffectiveEchoTime", "EchoTime"),
    "InversionTime": ("InversionTime", "InversionTimes"),
    "FlipAngle": ("FlipAngle",),  # degrees
    "KVP": ("KVP",),  # kV
}
_WORDS = {
    "Modality": "CR CT DX IO MG MR NM OT PT PX RF RG RTDOSE RTIMAGE SC SEG US XA",
    "PatientPosition": "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL",
    "Units": "1CM BQML CM2 CM2ML CNTS CPS GML MGMINML MLG MLMING MLMINML MLML NONE PCNT PROPCNTS PROPCPS STDDEV "
    "UMOLMINML UMOLML",
    "RescaleType": "ED EDW HU HU_MOD MGML OD PCT US Z_EFF",
    "DoseUnits": "GY RELATIVE",
}
_MAKERS = {
    "siemens": "Siemens", "philips": "Philips", "picker": "Philips", "marconi": "Philips", "toshiba": "Toshiba",
    "canon": "Canon", "hitachi": "Hitachi", "fuji": "Fujifilm", "uih": "UIH", "united imaging": "UIH",
    "bruker": "Bruker", "agilent": "Agilent", "varian": "Varian", "elekta": "Elekta", "hologic": "Hologic",
    "mediso": "Mediso", "neusoft": "Neusoft", "samsung": "Samsung", "shimadzu": "Shimadzu",
    "carestream": "Carestream", "accuray": "Accuray", "esaote": "Esaote", "hyperfine": "Hyperfine",
}  # fmt: skip
# Names of reconstruction kernels: GE's words, a letter or two with a number (B30f, Br40d, FC13), or alone (Philips' B).
_GE_KERNELS = ("STANDARD", "STAND", "SOFT", "DETAIL", "BONE", "BONEPLUS", "EDGE", "LUNG", "CHEST", "ULTRA")
_KERNEL = re.compile(r"[A-Z]{1,2}[a-z]?\d{2,3}[a-z]?|[A-E]|Y[A-E]")


def maker_of(header: Dataset) -> str:
    """The maker, by one name each; "" if it is none that is known."""
    text = " ".join(words([header], "Manufacturer")).lower()
    if re.match(r"ge\b", text):
        return "GE"
    return next((name for part, name in _MAKERS.items() if part in text), "")


def described(header: Dataset, groups: Sequence[Dataset]) -> dict[str, Any]:
    """The allowed part of a header, by DICOM's keywords and in its units.

    groups: the functional groups of the first slice and the header itself, in the order in which they are asked.
    """
    found: dict[str, Any] = {}
    for name, keywords in _NUMBERS.items():
        for keyword in keywords:
            if values := _legible(groups, keyword):
                found.setdefault(name, values[0])
    for name, allowed in _WORDS.items():
        if (values := words(groups, name)) and values[0] in allowed.split():
            found[name] = values[0]
    if maker := maker_of(header):
        found["Manufacturer"] = maker
    if (values := words(groups, "ConvolutionKernel")) and (values[0] in _GE_KERNELS or _KERNEL.fullmatch(values[0])):
        found["ConvolutionKernel"] = values[0]
    return found


def _legible(groups: Sequence[Dataset], keyword: str) -> tuple[float, ...]:
    try:
        return numbers(groups, keyword)
    except Refused:
        return ()
