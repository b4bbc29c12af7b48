"""The files that lie beside a volume under its name: JSON of BIDS, and FSL's b-values and b-vectors.

Of JSON the fields of a fixed list follow, which say how an image was taken; all others may name a person, a place or a
time.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medjax import io
from medjax.annotations import Directions, fsl_gradients, save_fsl_gradients
from medjax.image import Image, ScalarImage
from medjax.io import drafts, fsl
from medjax.subject import Subject

WORDS = """
    AcquisitionDuration AcquisitionVoxelSize ArterialSpinLabelingType B0FieldIdentifier B0FieldSource
    BackgroundSuppression BackgroundSuppressionNumberPulses BackgroundSuppressionPulseTime BodyPart
    BolusCutOffDelayTime BolusCutOffFlag BolusCutOffTechnique CoilCombinationMethod ContrastBolusIngredient
    ConversionSoftware ConversionSoftwareVersion ConvolutionKernel DelayAfterTrigger DelayTime DiffusionScheme DwellTime
    EchoNumber EchoTime EchoTime1 EchoTime2 EchoTrainLength EffectiveEchoSpacing EstimatedEffectiveEchoSpacing
    EstimatedTotalReadoutTime ExposureTime FlipAngle FrameDuration FrameTimesStart FrequencyEncodingSteps
    GradientSetType ImageType ImagingFrequency InPlanePhaseEncodingDirectionDICOM InversionTime KVP LabelingDistance
    LabelingDuration LabelingEfficiency M0Estimate M0Type MRAcquisitionType MRTransmitCoilSequence MTState
    MagneticFieldStrength Manual Manufacturer ManufacturersModelName MatrixCoilMode Modality MultibandAccelerationFactor
    NegativeContrast NonlinearGradientCorrection NumberOfAverages NumberOfVolumesDiscardedByScanner
    NumberOfVolumesDiscardedByUser NumberShots ParallelAcquisitionTechnique ParallelReductionFactorInPlane
    ParallelReductionFactorOutOfPlane PartialFourier PartialFourierDirection PercentPhaseFOV PercentSampling
    PhaseEncodingDirection PhaseEncodingSteps PhaseEncodingStepsNoPartialFourier PhaseOversampling PhaseResolution
    PixelBandwidth PostLabelingDelay PulseSequenceType ReceiveCoilActiveElements ReceiveCoilName ReconMatrixPE
    RepetitionTime RepetitionTimeExcitation RepetitionTimePreparation SAR ScanOptions ScanningSequence SequenceVariant
    SliceEncodingDirection SliceThickness SliceTiming SoftwareVersions SpacingBetweenSlices SpoilingGradientDuration
    SpoilingGradientMoment SpoilingRFPhaseIncrement SpoilingState SpoilingType TaskName TotalAcquiredPairs
    TotalReadoutTime TubeCurrent TxRefAmp Units VascularCrushing VolumeTiming WaterFatShift
"""
TECHNICAL = frozenset(WORDS.split())
"""Fields of JSON that say how an image was taken."""
OF_THE_GRID = {
    "AcquisitionVoxelSize", "InPlanePhaseEncodingDirectionDICOM", "PhaseEncodingDirection", "ReconMatrixPE",
    "SliceEncodingDirection", "SliceThickness", "SliceTiming", "SpacingBetweenSlices",
}  # fmt: skip
"""Which of them are about axes and slices, and no longer true on another grid."""
OF_THE_VOLUMES = {"FrameDuration", "FrameTimesStart", "VolumeTiming"}
"""Which of them have an entry for each volume."""
LONGEST = 64
"""Letters of a text that is a technical term."""


def sidecars_of(image: Image) -> dict[str, Path]:
    """The files beside that of an image: "json", and "bval" and "bvec" if both are there."""
    path = image.path
    if not isinstance(path, Path):
        return {}
    path, found = path.expanduser(), {}
    beside = path.with_name(fsl.stem(path) + ".json")
    if beside != path and beside.is_file():
        found["json"] = beside
    if isinstance(image, ScalarImage):
        with contextlib.suppress(FileNotFoundError):
            found |= {what: fsl.beside(path, what) for what in ("bval", "bvec")}
    return found


def gradients_name(name: str) -> str:
    """What the gradients of a series are called in a subject while it is transformed."""
    return f"{name}: gradients"


def with_gradients(subject: Subject) -> Subject:
    """A subject with the gradients that lie beside its series, so that transforms take them along."""
    found = {
        gradients_name(name): fsl_gradients(image.path)[1]  # pyright: ignore
        for name, image in subject.images.items()
        if "bval" in sidecars_of(image)
    }
    return subject.replace(**found) if found else subject


def follow(name: str, was: Image, made: Subject, path: Path) -> Iterator[Path]:
    """Write what lies beside an image beside the file of what it has become; gives the paths.

    Raises ValueError for a file that is not what it should be, and for gradients that did not follow.
    """
    beside = sidecars_of(was)
    if "json" in beside:
        target = path.with_name(fsl.stem(path) + ".json")
        kept = still_true(beside["json"], was, made[name])
        drafts.write_text(target, json.dumps(kept, indent=2, sort_keys=True) + "\n")
        yield target
    if "bval" in beside:
        gradients, count = made.annotations.get(gradients_name(name)), made[name].shape[0]
        if not isinstance(gradients, Directions) or gradients.labels is None or len(gradients) != count:
            raise ValueError(f"{name} has {count} volumes, which its b-vectors did not follow")
        save_fsl_gradients(path, gradients.labels, gradients, made[name])
        yield from (path.with_name(fsl.stem(path) + ending) for ending in (".bval", ".bvec"))


def still_true(file: Path, was: Image, made: Image) -> dict[str, Any]:
    """What a JSON file says of how an image was taken, and holds for what it has become."""
    try:
        said = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise ValueError(f"{file} must hold one object of JSON")
    kept = TECHNICAL
    before, after = (np.asarray(image.affine, np.float64) for image in (was, made))
    if was.spatial_shape != made.spatial_shape or not io.same_grid(before, after, was.spatial_shape):
        kept = kept - OF_THE_GRID
    if was.shape[0] != made.shape[0]:
        kept = kept - OF_THE_VOLUMES
    return {name: value for name, value in said.items() if name in kept and is_technical(value)}


def is_technical(value: Any) -> bool:
    """Whether a value is a number, a term, or a list of such."""
    if isinstance(value, list):
        return all(map(is_technical, value))
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= LONGEST)
