"""medjax: loading, preprocessing, augmentation and patches of 3D and 4D medical images, in JAX."""

from medjax.annotations import Directions as Directions
from medjax.annotations import Points as Points
from medjax.config import from_config as from_config
from medjax.config import to_config as to_config
from medjax.data.dataset import SubjectsDataset as SubjectsDataset
from medjax.data.loader import loader as loader
from medjax.image import Image as Image
from medjax.image import LabelMap as LabelMap
from medjax.image import ScalarImage as ScalarImage
from medjax.plot import plot_batch as plot_batch
from medjax.plot import plot_subject as plot_subject
from medjax.plot import plot_transforms as plot_transforms
from medjax.subject import DATA as DATA
from medjax.subject import LOCATION as LOCATION
from medjax.subject import Subject as Subject
from medjax.subject import channels_last as channels_last
from medjax.subject import concat_channels as concat_channels
from medjax.subject import stack as stack
from medjax.subject import unstack as unstack
from medjax.transforms.choice import OneOf as OneOf
from medjax.transforms.choice import SomeOf as SomeOf
from medjax.transforms.compose import Compose as Compose
from medjax.transforms.intensity.bias_field import BiasField as BiasField
from medjax.transforms.intensity.bias_field import RandomBiasField as RandomBiasField
from medjax.transforms.intensity.blur import Blur as Blur
from medjax.transforms.intensity.blur import RandomBlur as RandomBlur
from medjax.transforms.intensity.gamma import Gamma as Gamma
from medjax.transforms.intensity.gamma import RandomGamma as RandomGamma
from medjax.transforms.intensity.noise import Noise as Noise
from medjax.transforms.intensity.noise import RandomNoise as RandomNoise
from medjax.transforms.intensity.rescale_intensity import RescaleIntensity as RescaleIntensity
from medjax.transforms.intensity.z_normalization import ZNormalization as ZNormalization
from medjax.transforms.spatial.affine import Affine as Affine
from medjax.transforms.spatial.affine import RandomAffine as RandomAffine
from medjax.transforms.spatial.affine_elastic_deformation import AffineElasticDeformation as AffineElasticDeformation
from medjax.transforms.spatial.affine_elastic_deformation import (
    RandomAffineElasticDeformation as RandomAffineElasticDeformation,
)
from medjax.transforms.spatial.copy_affine import CopyAffine as CopyAffine
from medjax.transforms.spatial.crop import Crop as Crop
from medjax.transforms.spatial.crop import RandomCrop as RandomCrop
from medjax.transforms.spatial.crop_or_pad import CropOrPad as CropOrPad
from medjax.transforms.spatial.elastic_deformation import ElasticDeformation as ElasticDeformation
from medjax.transforms.spatial.elastic_deformation import RandomElasticDeformation as RandomElasticDeformation
from medjax.transforms.spatial.ensure_shape_multiple import EnsureShapeMultiple as EnsureShapeMultiple
from medjax.transforms.spatial.flip import Flip as Flip
from medjax.transforms.spatial.flip import RandomFlip as RandomFlip
from medjax.transforms.spatial.pad import Pad as Pad
from medjax.transforms.spatial.resample import Resample as Resample
from medjax.transforms.spatial.resize import Resize as Resize
from medjax.transforms.spatial.to_canonical import ToCanonical as ToCanonical
from medjax.transforms.spatial.to_orientation import ToOrientation as ToOrientation
from medjax.transforms.spatial.to_reference_space import ToReferenceSpace as ToReferenceSpace
from medjax.transforms.spatial.transpose import Transpose as Transpose
from medjax.transforms.transform import IntensityTransform as IntensityTransform
from medjax.transforms.transform import LabelTransform as LabelTransform
from medjax.transforms.transform import SpatialTransform as SpatialTransform
from medjax.transforms.transform import Transform as Transform
from medjax.transforms.transform import static as static
from medjax.transforms.transform import transform as transform
from medjax.transforms.tta import tta as tta

__version__ = "0.1.0"
