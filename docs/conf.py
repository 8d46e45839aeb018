"""Settings of Sphinx for `make docs`."""

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

from homomorph_client.version import __version__

project = "homomorph"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]  # index.md includes it

html_theme = "furo"
html_title = f"homomorph {release}"
html_show_copyright = False
html_show_sourcelink = False

myst_heading_anchors = 4
# Docstrings write names as `name`.
default_role = "code"
autodoc_default_options = {"members": True, "inherited-members": "Exception"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_numpy_docstring = False


def setup(app: Sphinx) -> None:
    """Show drawings in Mermaid as text: its program would come from another host."""
    app.add_lexer("mermaid", TextLexer)
