"""Patches: drawn at random for training, on a grid for inference."""
