"""Patches on a regular grid for inference, and the volume put together of predictions."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.utils.data import Dataset

import medjax as mj
from torch_bridge import forked
from torch_bridge.arguments import argument_errors
from torch_bridge.constants import LOCATION
from torch_bridge.dlpack import lent, restored, to_torch
from torch_bridge.image import Image
from torch_bridge.lending import subject_to_medjax
from torch_bridge.subject import Subject, own


class GridSampler(Dataset):
    """All patches of a subject on a regular grid; a torch Dataset of subjects, for a DataLoader too.

    patch_size: one size or three.  patch_overlap: voxels that neighbours share, at least.  padding_mode: pads the
    subject by half the overlap on each side first (see `Pad`); locations are then those of the padded volume.

    Called, it gives the patches of its subject, or of another by the same numbers.

    `patch[tio.LOCATION]`, (6,) int64, holds the first voxel of a patch and the one after its last; `.locations` all of
    them, (N, 6). Patches are copies. Raises ValueError for images on different grids, a patch larger than they are,
    and an overlap that is not smaller.
    """

    def __init__(self, subject: Subject, patch_size: Any, patch_overlap: Any = (0, 0, 0), padding_mode: Any = None):
        self.padding_mode = padding_mode
        inner, back = subject_to_medjax(subject)
        self.grid: mj.GridSampler = forked.run(mj.GridSampler, inner, patch_size, patch_overlap, padding_mode)
        self.subject: Subject = back(self.grid.subject)
        self.locations = torch.from_numpy(self.grid.locations.astype(np.int64))

    @property
    def patch_size(self) -> np.ndarray:
        """The size of patches, (3,)."""
        return np.array(self.grid.patch_size)

    @property
    def patch_overlap(self) -> np.ndarray:
        """Voxels that neighbours share, at least, (3,)."""
        return np.array(self.grid.patch_overlap)

    def __call__(self, subject: Subject | None = None, num_patches: int | None = None) -> Iterator[Subject]:
        """The patches of a subject, or of the sampler's own."""
        if num_patches is not None:
            raise ValueError(f"a GridSampler gives all patches, got num_patches={num_patches!r}")
        if subject is None:
            return iter(self)
        return iter(GridSampler(subject, self.patch_size, self.patch_overlap, self.padding_mode))

    def __len__(self) -> int:
        return len(self.locations)

    def __getitem__(self, index: int) -> Subject:
        location = self.locations[index]
        i0, j0, k0, i1, j1, k1 = location.tolist()
        shift = np.eye(4)
        shift[:3, 3] = i0, j0, k0
        items: dict[str, Any] = {}
        for name, item in self.subject.items():
            if isinstance(item, Image):
                data = item.data[:, i0:i1, j0:j1, k0:k1].clone(memory_format=torch.contiguous_format)
                items[name] = item.like(data, item.affine @ shift)
            else:
                items[name] = own(item)
        return self.subject._with({**items, LOCATION: location.clone()})

    def __iter__(self) -> Iterator[Subject]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return repr(self.grid)


class GridAggregator:
    """Puts a volume together of patches: `add_batch(tensor, locations)` for one patch or B, then `get_output_tensor()`.

    sampler: the `GridSampler` the patches come from.  overlap_mode: 'crop', 'average', 'hann' or 'gaussian'; see
    `medjax.GridAggregator`.  downsampling_factor: by what the network's patches are coarser, one number or three.
    What is averaged is the sum of w x over the sum of w, added up alike, so that a map of 0 and 1 comes back exactly.

    Sums are float32 and lie where JAX computes; whole numbers stay whole in 'crop'. The output has the type and device
    of the first patches that came, or float32 where whole numbers are averaged.
    Raises ValueError for patches of another shape or of another sampler; at the end for patches that are missing or
    were added twice; RuntimeError in a forked child.
    """

    def __init__(self, sampler: GridSampler, overlap_mode: str = "crop", downsampling_factor: Any = 1):
        if forked.in_child():
            raise RuntimeError(
                "a forked child runs no JAX: put patches together in the process that it was forked from"
            )
        self.aggregator = mj.GridAggregator(sampler.grid, overlap_mode, downsampling_factor)
        self._state: Any = None
        self._like = torch.empty(0)

    @property
    def averages(self) -> bool:
        """Whether patches are averaged where they overlap."""
        return self.aggregator.overlap_mode != "crop"

    def add_batch(self, batch_tensor: torch.Tensor, locations: torch.Tensor) -> None:
        """Add predictions: (C, *patch_size) at a location (6,), or (B, C, *patch_size) at (B, 6)."""
        places = np.atleast_2d(torch.as_tensor(locations).cpu().numpy()).astype(np.int32)
        batch_tensor = batch_tensor.detach()
        array = lent(batch_tensor[None] if batch_tensor.ndim == 4 else batch_tensor)
        whole = not batch_tensor.dtype.is_floating_point
        if self.averages:
            array = jnp.asarray(array).astype(jnp.float32)
            array = jnp.concatenate([array, jnp.ones_like(array[:, :1])], 1)
        if self._state is None:
            self._state = self.aggregator.init(array.shape[1], array.dtype)
            self._like = batch_tensor.new_empty(0, dtype=torch.float32 if whole and self.averages else None)
        with argument_errors():
            self._state = jax.block_until_ready(self.aggregator.add(self._state, array, places))

    def get_output_tensor(self) -> torch.Tensor:
        """The volume (C, I, J, K), without the padding."""
        if self._state is None:
            raise ValueError("no patch was added yet")
        volume = self.aggregator.finish(self._state).data
        if self.averages:
            volume = volume[:-1] / volume[-1:]
        tensor = to_torch(volume, copy=True)
        return restored(tensor, self._like.dtype).to(self._like.device)
