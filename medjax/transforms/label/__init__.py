"""One label transform a file, the random form beside its deterministic twin."""
