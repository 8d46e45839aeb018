"""Export: the operator, the served modules, TorchScript, and the Triton model repository."""

from homomorph_client.version import __version__ as __version__
