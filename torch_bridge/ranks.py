"""The processes of a run under torch.distributed, and what of a data set each of them has."""

from typing import Any

import torch
from torch.utils.data import DistributedSampler


def are_several() -> bool:
    """Whether this is one process of a run under torch.distributed."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def own_rank() -> int:
    """The number of this process in the run; 0 for one that is alone."""
    return torch.distributed.get_rank() if are_several() else 0


def share(dataset: Any, shuffle: bool, epoch: int, drop_last: bool = False) -> DistributedSampler:
    """What of a data set this process has in an epoch, by the sampler that Lightning gives a DataLoader."""
    sampler = DistributedSampler(dataset, shuffle=shuffle, drop_last=drop_last)
    sampler.set_epoch(epoch)
    return sampler
