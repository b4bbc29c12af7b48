"""The affine of one image for all others."""

from medjax.arguments import text
from medjax.geometry import Grid
from medjax.subject import Subject
from medjax.transforms.transform import SpatialTransform, static, transform
from medjax.typing import Params


@transform
class CopyAffine(SpatialTransform):
    """Give every image the affine of one of them, for files whose headers disagree though their voxels do not.

    target: name of the image whose affine is right.  Voxels stay where they are in the grid, so the content moves in
    the world; points go with the first image.  Shapes and dtypes stay.  Inverse: the old affines.
    Raises ValueError if the subject has no such image, or the shapes differ.
    Source: TorchIO 1.2.1, which does not look at shapes.
    """

    target: str = static(convert=text)

    exact = True
    relabels = True

    @property
    def anchor(self) -> str:
        """The image whose affine is taken."""
        return self.target

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        return grid._replace(affine=reference.affine)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        shapes = {name: tuple(int(n) for n in grid.shape) for name, grid in grids.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"CopyAffine(target={self.target!r}) needs images of one shape, got {shapes}")

    def check_subject(self, subject: Subject) -> None:
        if self.target not in subject.images:
            raise ValueError(
                f"target={self.target!r} is no image of the subject, which has {', '.join(subject.images)}"
            )
