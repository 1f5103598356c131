"""``python -m flows``: serve, deploy or list the flows of a mission."""

from __future__ import annotations

import sys

from flows.command import main

if __name__ == "__main__":
    sys.exit(main())
