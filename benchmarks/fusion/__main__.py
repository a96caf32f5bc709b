"""``python -m benchmarks.fusion``."""

import sys

from benchmarks.fusion.run import main

if __name__ == "__main__":
    sys.exit(main())
