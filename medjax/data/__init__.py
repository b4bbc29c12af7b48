"""Data sets of subjects, and the loader that feeds a training loop from them."""
