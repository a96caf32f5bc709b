"""``python -m BrainFusionLib`` is the console command ``brainfusion``."""

import sys

from BrainFusionLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
