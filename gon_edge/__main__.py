"""``python -m gon_edge``: the program without its wrapper."""

import sys

from gon_edge.cli import main

sys.exit(main())
