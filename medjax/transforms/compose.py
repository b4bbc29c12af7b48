"""Transforms one after the other; neighbours in space are fused."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from medjax.arguments import entries, maybe
from medjax.arguments import names as names_of
from medjax.errors import shown
from medjax.ranges import leaf
from medjax.transforms import printed
from medjax.transforms.run import Element
from medjax.transforms.transform import Transform, abstract, always, static, transform
from medjax.typing import Key, Params


def members(name: str, value: Any) -> tuple[Transform, ...]:
    """A tuple of transforms from a sequence of them."""
    found = entries(tuple(value) if isinstance(value, Mapping) else value)
    if found is None:
        raise TypeError(f"{name} must be a sequence of transforms or a dictionary of them, got {shown(value)}")
    for t in found:
        if not isinstance(t, Transform):
            raise TypeError(f"{name} must hold transforms, got {shown(t)}; a function becomes one by Lambda")
    return found


@abstract
class Group(Transform):
    """Abstract. Transforms that are drawn before any has run, and fused where they are neighbours in space."""

    group: ClassVar[bool] = True
    chooses: ClassVar[bool] = False
    """Whether not every member has its turn."""

    def __post_init__(self):
        super().__post_init__()
        if self.include or self.exclude or self.keep:
            name = type(self).__name__
            raise ValueError(f"include, exclude and keep are given to the members of {name}, not to it")

    @property
    def members(self) -> tuple[Transform, ...]:
        """The transforms in order."""
        raise NotImplementedError(f"{type(self).__name__} must define members")

    def choose(self, key: Key | None, element: Element | None) -> Params:
        """What says which members have their turn, here all; element: its number in a batch, and the batch's size."""
        del key, element
        return {}

    def taken(self, choice: Params, index: int) -> Any:
        """Whether a member has its turn."""
        del choice, index
        return True

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return printed.tree(self)


@transform
class Compose(Group):
    """Transforms in order, from a sequence or from a dictionary of names.

    Everything is drawn before anything runs. Neighbouring spatial transforms, across nested Compose too, become one map
    and are read once; printing shows which. p: probability that the whole of it is applied.

    Raises TypeError for members that are no transforms, ValueError for include, exclude or keep, which belong to them.
    """

    transforms: Sequence[Transform] | Mapping[str, Transform] = leaf(default=(), convert=members)
    p: float = always(default=1.0)
    names: Sequence[str] | None = static(default=None, convert=maybe(names_of), kw_only=True)

    def __post_init__(self):
        if isinstance(self.transforms, Mapping):
            object.__setattr__(self, "names", tuple(self.transforms))
            object.__setattr__(self, "transforms", tuple(self.transforms.values()))
        super().__post_init__()

    @property
    def members(self) -> tuple[Transform, ...]:
        """The transforms in order."""
        return cast(tuple[Transform, ...], self.transforms)

    def __getitem__(self, item: int | str) -> Transform:
        if isinstance(item, str):
            return self.members[(self.names or ()).index(item)]
        return self.members[item]
