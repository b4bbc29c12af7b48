"""Kernels on arrays: pure, traced, differentiable; they know no image and no subject."""
