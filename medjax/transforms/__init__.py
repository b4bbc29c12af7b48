"""Transforms: pure, keyed, fused in space; one file each under `spatial`, `intensity` and `label`."""
