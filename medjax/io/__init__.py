"""Reading and writing volumes: arrays and headers only, no subject and no JAX."""

from medjax.io import nifti as nifti  # isort: skip  # they register their formats, in this order
from medjax.io import dicom as dicom  # isort: skip
from medjax.io import itk as itk  # isort: skip
from medjax.io import by_nibabel as by_nibabel  # isort: skip
from medjax.io import npy as npy  # isort: skip
from medjax.io import fsl as fsl  # isort: skip
from medjax.io.affines import same_grid as same_grid
from medjax.io.boxes import cut as cut
from medjax.io.gate import NARROW as NARROW
from medjax.io.gate import narrowed as narrowed
from medjax.io.gate import native as native
from medjax.io.nifti import slice_axis as slice_axis
from medjax.io.nifti import without_slice_times as without_slice_times
from medjax.io.nifti import without_texts as without_texts
from medjax.io.objects import from_object as from_object
from medjax.io.objects import read_channels as read_channels
from medjax.io.objects import read_channels_box as read_channels_box
from medjax.io.objects import read_channels_header as read_channels_header
from medjax.io.objects import read_with as read_with
from medjax.io.objects import to_nibabel as to_nibabel
from medjax.io.objects import to_sitk as to_sitk
from medjax.io.registry import Format as Format
from medjax.io.registry import Header as Header
from medjax.io.registry import format_of as format_of
from medjax.io.registry import formats as formats
from medjax.io.registry import read as read
from medjax.io.registry import read_box as read_box
from medjax.io.registry import read_header as read_header
from medjax.io.registry import register as register
from medjax.io.registry import write as write
