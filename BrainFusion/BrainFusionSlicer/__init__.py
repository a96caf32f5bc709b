"""What the BrainFusion module needs from Slicer. May import slicer and vtk; nothing here imports torch."""
