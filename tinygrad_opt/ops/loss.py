"""Loss kernels."""

from __future__ import annotations

from .. import backend
from ..backend import xp
from ..tensor import primitive
