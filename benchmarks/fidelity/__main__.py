"""``python -m benchmarks.fidelity``."""

import sys

from benchmarks.fidelity.run import main

if __name__ == "__main__":
    sys.exit(main())
