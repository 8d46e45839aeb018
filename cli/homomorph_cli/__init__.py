"""The command `homomorph`."""

from homomorph_client.version import __version__ as __version__
