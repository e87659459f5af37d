"""See cupyx."""

from . import special  # noqa: F401
