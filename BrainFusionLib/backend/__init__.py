"""What computes: the primitives that registration and resampling are written in, on the CPU or on a graphics card."""

from BrainFusionLib.backend.base import WHOLE, Array, Backend, Pull
from BrainFusionLib.backend.choice import backend_of, on_cpu

__all__ = ["WHOLE", "Array", "Backend", "Pull", "backend_of", "on_cpu"]
