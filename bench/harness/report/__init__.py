"""What came out: the raw file, and made from it alone a table, plots and the page in docs."""

from .document import write
from .render import render

__all__ = ["render", "write"]
