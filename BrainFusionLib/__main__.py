"""``python -m BrainFusionLib`` is the console command ``brainfusion``."""

import sys

from BrainFusionLib.stopping import INTERRUPTED, ending_on_signals


def main() -> int:
    """Run the command; Ctrl-C while it is being loaded prints no traceback either."""
    with ending_on_signals():
        try:
            from BrainFusionLib.device import multiply_on_one_thread

            multiply_on_one_thread()
            from BrainFusionLib.cli import main as command

            return command()
        except KeyboardInterrupt:
            return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
