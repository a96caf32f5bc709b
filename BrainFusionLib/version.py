"""The version, and what results are for, in one place."""

__version__ = "0.2.0"
INTENDED_USE = "for research and planning review, not for diagnosis"
