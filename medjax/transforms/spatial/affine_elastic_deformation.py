"""An affine and an elastic deformation as one transform."""

from typing import Any

from medjax.arguments import Convert, flag
from medjax.errors import about, shown
from medjax.ranges import leaf
from medjax.transforms.compose import Group
from medjax.transforms.spatial.affine import Affine, RandomAffine
from medjax.transforms.spatial.elastic_deformation import ElasticDeformation, RandomElasticDeformation
from medjax.transforms.transform import Transform, always, static, transform

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


def like_affine(affine: Any, elastic: Any) -> Any:
    """The elastic transform with the interpolations and fills of the affine one, so that one reading serves both."""
    return elastic.replace(**{name: getattr(affine, name) for name in SHARED})


@transform
class AffineElasticDeformation(Group):
    """`Affine` and `ElasticDeformation`, read once.

    affine_first: which of them the content goes through first.  affine_params, elastic_params: their arguments.
    Interpolations and fills are those of the affine one.  Source: TorchIO 1.2.1.
    """

    affine_first: bool = static(convert=flag)
    affine_params: Any = leaf(convert=made(Affine))
    elastic_params: Any = leaf(convert=made(ElasticDeformation))
    p: float = always(default=1.0)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "elastic_params", like_affine(self.affine_params, self.elastic_params))

    @property
    def members(self) -> tuple[Transform, ...]:
        """Both in order."""
        pair = (self.affine_params, self.elastic_params)
        return pair if self.affine_first else pair[::-1]


@transform
class RandomAffineElasticDeformation(Group):
    """`RandomAffine` and `RandomElasticDeformation`, read once.

    affine_first: which of them the content goes through first.  affine_kwargs, elastic_kwargs: their arguments.
    Interpolations and fills are those of the affine one.  Source: TorchIO 1.2.1, which cannot invert it.
    """

    affine_first: bool = static(default=True, convert=flag)
    affine_kwargs: Any = leaf(default=None, convert=made(RandomAffine))
    elastic_kwargs: Any = leaf(default=None, convert=made(RandomElasticDeformation))
    p: float = always(default=1.0)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "elastic_kwargs", like_affine(self.affine_kwargs, self.elastic_kwargs))

    @property
    def members(self) -> tuple[Transform, ...]:
        """Both in order."""
        pair = (self.affine_kwargs, self.elastic_kwargs)
        return pair if self.affine_first else pair[::-1]
