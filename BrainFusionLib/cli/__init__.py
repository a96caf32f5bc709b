"""The console command ``brainfusion``."""

from BrainFusionLib.cli.main import DONE, FAULT, INTERRUPTED, NOT_FOUND, TERMINATED, WRONG_INPUT, main

__all__ = ["DONE", "FAULT", "INTERRUPTED", "NOT_FOUND", "TERMINATED", "WRONG_INPUT", "main"]
