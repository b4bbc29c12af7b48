"""An affine and an elastic deformation as one transform."""

from typing import Any, ClassVar

from medjax.arguments import Convert, flag
from medjax.errors import about, shown
from medjax.ranges import leaf
from medjax.transforms.compose import Group
from medjax.transforms.spatial.affine import Affine, RandomAffine
from medjax.transforms.spatial.elastic_deformation import ElasticDeformation, RandomElasticDeformation
from medjax.transforms.transform import Transform, abstract, always, static, transform

SHARED = ("image_interpolation", "label_interpolation", "default_pad_value", "default_pad_label")


def made(cls: type[Transform]) -> Convert:
    """The converter of a field that holds a transform of a class, or the arguments for one."""

    def convert(name: str, value: Any) -> Transform:
        if isinstance(value, cls):
            return value
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"{name} must be a dictionary of arguments of {cls.__name__}, got {shown(value)}")
        with about(name):
            return cls(**(value or {}))

    return convert


@abstract
class AffineAndElastic(Group):
    """Abstract. An affine and an elastic transform, whose interpolations and fills are those of the affine one."""

    p: float = always(default=1.0)

    affine_first = True  # a field of both, with a default or without: not annotated here
    parts: ClassVar[tuple[str, str]]
    """Names of the fields that hold the two."""

    def __post_init__(self):
        super().__post_init__()
        affine, elastic = (getattr(self, name) for name in self.parts)
        alike = elastic.replace(**{name: getattr(affine, name) for name in SHARED})  # one reading serves both
        object.__setattr__(self, self.parts[1], alike)

    @property
    def members(self) -> tuple[Transform, ...]:
        """Both in order."""
        first, second = self.parts if self.affine_first else self.parts[::-1]
        return getattr(self, first), getattr(self, second)


@transform
class AffineElasticDeformation(AffineAndElastic):
    """`Affine` and `ElasticDeformation`, read once.

    affine_first: which of them the content goes through first.
    affine_params, elastic_params: their arguments.
    Interpolations and fills are those of the affine one.  Source: TorchIO 1.2.1.
    """

    affine_first: bool = static(convert=flag)
    affine_params: Any = leaf(convert=made(Affine))
    elastic_params: Any = leaf(convert=made(ElasticDeformation))

    parts = ("affine_params", "elastic_params")


@transform
class RandomAffineElasticDeformation(AffineAndElastic):
    """`RandomAffine` and `RandomElasticDeformation`, read once.

    affine_first: which of them the content goes through first.
    affine_kwargs, elastic_kwargs: their arguments.
    Interpolations and fills are those of the affine one.  Source: TorchIO 1.2.1, which cannot invert it.
    """

    affine_first: bool = static(default=True, convert=flag)
    affine_kwargs: Any = leaf(default=None, convert=made(RandomAffine))
    elastic_kwargs: Any = leaf(default=None, convert=made(RandomElasticDeformation))

    parts = ("affine_kwargs", "elastic_kwargs")
