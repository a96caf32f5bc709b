"""Quality measures of registration and fusion, each with the source of its formula."""

from BrainFusionLib.metrics.fidelity import Fidelity, Gates, fidelity, gates
from BrainFusionLib.metrics.fusion import MEASURES, measure
from BrainFusionLib.metrics.registration import target_registration_errors_mm
from BrainFusionLib.metrics.structures import centroid_shift, contrast_kept, flicker, slices_with_head

__all__ = [
    "MEASURES",
    "Fidelity",
    "Gates",
    "centroid_shift",
    "contrast_kept",
    "fidelity",
    "flicker",
    "gates",
    "measure",
    "slices_with_head",
    "target_registration_errors_mm",
]
