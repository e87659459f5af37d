"""`python -m tinygrad_opt` is the command `tinygrad-opt`."""

import sys

from .cli import main

sys.exit(main())
