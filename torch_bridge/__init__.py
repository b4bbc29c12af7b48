"""medjax for torch users, as `import torch_bridge as tio`. The bridge is coming; so far there is only its version."""

from medjax import __version__ as __version__
