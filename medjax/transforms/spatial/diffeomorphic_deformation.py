"""Smooth random deformation that has an inverse: the flow of a velocity field."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from medjax import keys, ranges
from medjax.arguments import finite, vector, whole, wholes
from medjax.geometry import Flow, Grid, homogeneous, inverse, matmul, namespace
from medjax.ranges import Range, leaf, uniform
from medjax.transforms.sampling import Fill, interpolation, label_interpolation, move_fill
from medjax.transforms.spatial.moving import Moving
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params


def flow_map(velocity: Any, reference: Grid, points_per_node: int) -> Flow:
    """The flow of velocities (n0, n1, n2, 3), voxels along the voxel axes, over the reference grid."""
    xp = namespace(reference.affine)
    dtype = reference.affine.dtype
    i, j, k = (n * points_per_node for n in velocity.shape[:3])
    voxels = reference.shape.astype(dtype)
    scale = xp.asarray((i, j, k), dtype) / voxels
    steps = xp.where(reference.shape > 1, scale, 0).astype(dtype)
    field = xp.moveaxis(xp.asarray(velocity).astype(dtype) * steps[None, None, None], 3, 0)
    to_lattice = homogeneous(xp.diag(scale), xp.zeros(3, dtype))
    return Flow(field, matmul(to_lattice, inverse(reference.affine)), (i, j, k))


@abstract
class VelocityFlow(Moving):
    """Abstract. Moves along velocities for unit time."""

    default_pad_value: Fill = static(default="minimum", convert=move_fill, kw_only=True)
    default_pad_label: float = static(default=0.0, convert=finite(), kw_only=True)

    points_per_node = 12  # a field of both, in its place among the others: not annotated here

    def move(self, params: Params, reference: Grid) -> Flow:
        return flow_map(params["velocity"], reference, self.points_per_node)


@transform
class DiffeomorphicDeformation(VelocityFlow):
    """Deform along a velocity field for unit time; smooth, without folds, and with an inverse; the grid stays.

    p_in = flow(p_out), d flow / dt = v(flow). v is linear between nodes; voxel i of I lies at node i n0 / I, and beyond
    the last node v stays. Scaling and squaring: v / 128 is composed with itself 7 times on a lattice of
    `points_per_node` points a node, which is read linearly.

    velocity: (n0, n1, n2, 3), voxels of the first image along its voxel axes; an equal v everywhere moves by v.
    points_per_node: 12 make half the resolution of an image of 24 or 25 voxels a node.
    Fills and interpolations are as in `Affine`.

    Shapes: (C, I, J, K) -> same; images become float32, label maps keep their dtype.  Nothing moves along an axis of
    one voxel.  Inverse: the flow of -v, as exact as the lattice is fine; points go back exactly.
    Source: Arsigny et al., "A log-Euclidean framework for statistics on diffeomorphisms", MICCAI 2006; SynthSeg, which
    composes as if a voxel of its lattice were one of the image, so that what it applies is no flow.
    """

    velocity: Any = leaf(convert=vector((None, None, None, 3)))
    points_per_node: int = static(default=12, convert=whole(low=1))
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"velocity": jnp.asarray(self.velocity)}


@transform
class RandomDiffeomorphicDeformation(VelocityFlow):
    """`DiffeomorphicDeformation` along normal velocities of mean 0, drawn once per subject and shared by its images.

    num_nodes: along each voxel axis of the first image, or one number for all.
    std: voxels, drawn uniformly, one for the whole field; x is (0, x).
    The rest is as in `DiffeomorphicDeformation`.

    RandomDiffeomorphicDeformation(7, (0, 4)) is SynthSeg's for 160 voxels an axis: a node for every 25 voxels.
    """

    num_nodes: Any = static(default=7, convert=wholes(3, low=1))
    std: Range = uniform(default=(0.0, 4.0), low=0.0)
    points_per_node: int = static(default=12, convert=whole(low=1))
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        std = ranges.draw(keys.for_name(key, "std"), self.std)
        unit = random.normal(keys.for_name(key, "velocity"), (*self.num_nodes, 3), std.dtype)
        # The barriers keep compilers from joining the products with others, so that every program draws the same bits.
        return {"velocity": jax.lax.optimization_barrier(jax.lax.optimization_barrier(unit) * std)}
