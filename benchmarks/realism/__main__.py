"""``python -m benchmarks.realism``."""

import sys

from benchmarks.realism.run import main

# Guarded, because the processes that make the cases import this module again.
if __name__ == "__main__":
    sys.exit(main())
