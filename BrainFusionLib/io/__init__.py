"""Reading and writing volumes, pictures and transforms; every file is written whole or not at all."""

from BrainFusionLib.io.pictures import PICTURES, list_pictures, read_grey, write_grey
from BrainFusionLib.io.transforms import TRANSFORM_SUFFIXES, read_transform, write_transform
from BrainFusionLib.io.volumes import read_volume, write_volume
from BrainFusionLib.io.writing import atomic_output, write_json, write_text

__all__ = [
    "PICTURES",
    "TRANSFORM_SUFFIXES",
    "atomic_output",
    "list_pictures",
    "read_grey",
    "read_transform",
    "read_volume",
    "write_grey",
    "write_json",
    "write_text",
    "write_transform",
    "write_volume",
]
