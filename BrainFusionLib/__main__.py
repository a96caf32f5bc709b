"""``python -m BrainFusionLib`` is the console command ``brainfusion``."""

import sys

INTERRUPTED = 130


def main() -> int:
    """Run the command; Ctrl-C while it is being loaded prints no traceback either."""
    try:
        from BrainFusionLib.stopping import ending_on_signals

        with ending_on_signals():
            from BrainFusionLib.device import multiply_on_one_thread

            multiply_on_one_thread()
            from BrainFusionLib.cli import main as command

            return command()
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
