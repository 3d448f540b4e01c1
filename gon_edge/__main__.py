"""``python -m gon_edge``: the program without its wrapper."""

import sys

from gon_edge.commands.main import main

sys.exit(main())
