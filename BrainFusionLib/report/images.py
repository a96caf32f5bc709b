"""Pictures as text that stands in a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from BrainFusionLib.report.palette import EDGE_RGB
from BrainFusionLib.report.pictures import Picture


def jpeg_uri(grey: Picture) -> str:
    """Return a grey picture as a data URI."""
    return _uri(jpeg(Image.fromarray(np.ascontiguousarray(grey)), 88), "jpeg")


def png_uri(picture: npt.NDArray[np.uint8]) -> str:
    """Return a picture as a data URI, without loss."""
    return _uri(_png(Image.fromarray(picture)), "png")


def edges_uri(edges: Picture) -> str:
    """Return an outline on a transparent picture: few levels, so that it packs to a few kilobytes."""
    image = Image.fromarray(edges)
    image.putpalette([*EDGE_RGB] * 256)
    return _uri(_png(image, bytes(range(256))), "png")


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Return the content of a JPEG file."""
    content = io.BytesIO()
    image.save(content, format="JPEG", quality=quality)
    return content.getvalue()


def _png(image: Image.Image, transparency: bytes | None = None) -> bytes:
    content = io.BytesIO()
    if transparency is None:
        image.save(content, format="PNG")
    else:
        image.save(content, format="PNG", transparency=transparency)
    return content.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
