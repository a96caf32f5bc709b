"""``python -m benchmarks.registration``."""

import sys

from benchmarks.registration.run import main

# Guarded, because the processes that measure import this module again.
if __name__ == "__main__":
    sys.exit(main())
