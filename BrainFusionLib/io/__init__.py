"""The only door for files: volumes and transforms in and out, every file written whole or not at all."""

from BrainFusionLib.io.files import (
    TRANSFORM_SUFFIXES,
    atomic_output,
    read_transform,
    read_volume,
    write_json,
    write_text,
    write_transform,
    write_volume,
)

__all__ = [
    "TRANSFORM_SUFFIXES",
    "atomic_output",
    "read_transform",
    "read_volume",
    "write_json",
    "write_text",
    "write_transform",
    "write_volume",
]
