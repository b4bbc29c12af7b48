"""One intensity transform a file, the random form beside its deterministic twin."""
