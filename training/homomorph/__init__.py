"""The model in Python: networks, data, training, runs and evaluation."""

from homomorph_client.version import __version__ as __version__
