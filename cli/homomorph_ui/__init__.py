"""The page with sliders. It knows the client library only: any `Morpher` computes the frames."""

from homomorph_client.version import __version__ as __version__
