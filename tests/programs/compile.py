"""Compile one program for a card that the machine need not have, and print what it counts: a JSON line.

python tests/programs/compile.py NAME [h200 | v5e [FILE FOR THE TEXT]], in an environment with the wheels of the
dependency group `programs`. It sets XLA's flags, so it is a process of its own. What is compiled is what `batch` and
the queue compile.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

# Flags are read when JAX is imported. XLA asks for no card if it need not time kernels, and for libdevice and ptxas in this folder.
NVCC = Path(importlib.util.find_spec("nvidia.cuda_nvcc").submodule_search_locations[0])
os.environ["PATH"] = f"{NVCC / 'bin'}{os.pathsep}{os.environ['PATH']}"
os.environ["XLA_FLAGS"] = f"--xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={NVCC}"
os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # what is counted was compiled now

import jax
import jax.numpy as jnp
import numpy as np
from count import costs, dearest, mean
from jax._src import xla_bridge
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import medjax as mj
from medjax.transforms.elements import every

# The versions belong to it: without them XLA leaves conditionals out of CUDA graphs and does not say so.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152  shared_memory_per_core: 233472
  threads_per_core_limit: 2048  core_count: 132  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000  l2_cache_size: 52428800  clock_rate_ghz: 1.98  device_memory_size: 151397597184
  shared_memory_per_block_optin: 232448  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  driver_version: "13.0.0"  runtime_version: "12.8.0"  compile_time_toolkit_version: "12.8.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H200 141GB HBM3e"
"""
BATCH = 8


def augmentations() -> mj.Compose:
    return mj.Compose(
        [
            mj.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
            mj.RandomElasticDeformation(max_displacement=5, p=0.5),
            mj.RandomBiasField(p=0.5),
            mj.RandomNoise(std=(0, 0.05), p=0.5),
            mj.RandomFlip(axes=("LR",), flip_probability=0.5),
        ]
    )


def guide(shape: tuple[int, ...]) -> mj.Compose:
    first = [mj.Resample(1.0), mj.CropOrPad(shape), mj.ZNormalization(masking_method="label")]
    return mj.Compose([*first, augmentations()])


def programs() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """The pipelines, and the shapes of what they are given."""
    return {
        "augmentations": (augmentations(), (128, 128, 128)),
        "guide": (guide((160, 192, 160)), (197, 233, 189)),
        "nnU-Net": (mj.presets.nnunet((128, 128, 128)), (168, 168, 168)),
        "SynthSeg": (mj.presets.synthseg(range(4), patch_size=(128, 128, 128)), (160, 160, 160)),
        "patches": (mj.Compose([augmentations(), mj.CropOrPad((64, 64, 64))]), (128, 128, 128)),
    }


def h200() -> Any:
    """An H200 that is only described."""
    known = xla_bridge.canonicalize_platform
    # JAX resolves "cuda" among the devices that there are, of which there is none.
    xla_bridge.canonicalize_platform = lambda name: "cuda" if name == "cuda" else known(name)
    return topologies.get_topology_desc("h200", "cuda", target_config=H200, topology="1x1x1").devices[0]


def v5e() -> Any:
    """A TPU v5e; it comes in fours."""
    return topologies.get_topology_desc("v5e:2x2", "tpu").devices[0]


CARDS = {"h200": ("cuda", h200), "v5e": ("tpu", v5e)}


def main(name: str, card: str = "h200", file: str = "") -> None:
    pipeline, shape = programs()[name]
    platform, device = CARDS[card]
    where = SingleDeviceSharding(device())

    def array(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((BATCH, *shape), dtype, sharding=where)

    affine = array((4, 4), np.float32)
    image = {"image": mj.ScalarImage.of(array((1, *shape), np.float32), affine)} if name != "SynthSeg" else {}
    subject = mj.Subject(**image, label=mj.LabelMap.of(array((1, *shape), np.uint8), affine))

    def run(subject: mj.Subject, key: Any) -> Any:
        return every(jax.tree.map(jnp.asarray, pipeline), subject, jax.random.wrap_key_data(key))[0]

    traced = jax.jit(run, in_shardings=where, out_shardings=where).trace(subject, array((2,), np.uint32))
    program = traced.lower(lowering_platforms=(platform,)).compile()
    text, volume = program.as_text(), 4 * np.prod(shape)
    most, likely = ({what: n / BATCH for what, n in costs(text, rule).items()} for rule in (dearest, mean))
    counted = {
        "launches at most": most["launches"],
        "launches": likely["launches"],
        "waits": likely["waits"],
        "volumes moved": likely["bytes"] / volume,
        "temporary volumes": program.memory_analysis().temp_size_in_bytes / BATCH / volume,
    }
    if file:
        Path(file).write_text(text)
    print(json.dumps(counted))


if __name__ == "__main__":
    main(*sys.argv[1:])
