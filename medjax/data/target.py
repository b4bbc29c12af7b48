"""Where batches are put: a device, or several along the axis of the batch."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

Device = jax.Device | NamedSharding | None


def as_target(device: Any) -> Device:
    """The device, or the sharding of the leading axis, that a user asks for."""
    if isinstance(device, SingleDeviceSharding):
        return next(iter(device.device_set))
    if isinstance(device, NamedSharding):
        spec = tuple(device.spec)
        if not spec or spec[0] is None or any(axis is not None for axis in spec[1:]):
            raise ValueError(
                f"device must split the first axis, that of the batch, and no other; its spec is {device.spec}"
            )
        return NamedSharding(device.mesh, PartitionSpec(spec[0]))
    if device is None or isinstance(device, jax.Device):
        return device
    raise TypeError(f"device must be a jax.Device, a NamedSharding or None, got {device!r}")
