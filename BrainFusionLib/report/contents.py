"""What a report on disk shows, as data: its pictures, and the volumes of its viewer.

A report may come from elsewhere. Nothing of it is passed on but pictures in PNG and JPEG, their letters, and numbers,
each checked for what it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zlib
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

from BrainFusionLib.report.page import Html, data, render
from BrainFusionLib.report.viewer import LEVELS, Layer, LocalMisalignment, ViewerData

# The rows of three planes at the top of a report: outline, checkerboard, fused.
MOST_PICTURES = 9
_PICTURE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_DATA = re.compile(r'type="application/json" id="viewer-data">([^<]*)<')
_LONGEST_SIDE, _MOST_VOXELS, _LONGEST_TEXT, _MOST_REGIONS = 1024, 1 << 26, 200, 20_000


@dataclass(frozen=True)
class ReportPicture:
    """A picture, and the outline over it if there is one, as data URIs; what it shows; and the letters at its edges.

    The letters are by place: "left", "right", "top", "bottom".
    """

    source: str
    description: str
    edges: str | None
    letters: dict[str, str]


@dataclass(frozen=True)
class ReportContents:
    """The pictures of a report, and its viewer's volumes; ``None`` where there are none, or they cannot be used."""

    pictures: tuple[ReportPicture, ...]
    viewer: ViewerData | None


def report_contents(page: str) -> ReportContents:
    """Return what a report shows; whatever the page is, nothing is raised."""
    found = _DATA.search(page)
    shown = None
    if found is not None:
        try:
            shown = _viewer_data(json.loads(found[1]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, zlib.error):
            shown = None
    reader = _Pictures()
    reader.feed(page[: found.start()] if found else page)
    return ReportContents(tuple(reader.found[:MOST_PICTURES]), shown)


def viewer_of(shown: ViewerData, script: str) -> Html:
    """Return the viewer of checked data, as HTML whose script is the file at an address."""
    return render("viewer", levels=LEVELS, data=data(shown), script=render("script", source=script))


class _Pictures(HTMLParser):
    """Finds the figures of class ``picture``, each with its first picture, the outline, and the letters."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[ReportPicture] = []
        self._is_in = False
        self._source: str | None = None
        self._edges: str | None = None
        self._place: str | None = None
        self._description = ""
        self._letters: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        words = said.get("class", "").split()
        if tag == "figure":
            self._is_in = words == ["picture"]
            self._source = self._edges = self._place = None
            self._description, self._letters = "", {}
        elif tag == "img" and self._is_in and _PICTURE.fullmatch(said.get("src", "")):
            if "edges" in words:
                self._edges = said["src"]
            elif self._source is None:
                self._source, self._description = said["src"], said.get("alt", "")[:_LONGEST_TEXT]
        elif tag == "b" and self._is_in:
            place = said.get("class", "").removeprefix("at-")
            self._place = place if place in ("left", "right", "top", "bottom") else None

    def handle_data(self, text: str) -> None:
        if self._place is not None and text in tuple("LRAPSI"):
            self._letters[self._place] = text
        self._place = None

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure" and self._is_in and self._source is not None:
            self.found.append(ReportPicture(self._source, self._description, self._edges, self._letters))
            self._is_in = False


def _viewer_data(plain: Any) -> ViewerData:
    """Return checked data of a viewer.

    Raises
    ------
    ValueError, KeyError, TypeError
        Something is not what it should be.
    """
    size = [_whole(n, _LONGEST_SIDE) for n in _list(plain["size"], 3)]
    if math.prod(size) > _MOST_VOXELS or 0 in size:
        raise ValueError(size)
    local = _list(plain["local"], None)
    if len(local) > _MOST_REGIONS:
        raise ValueError(len(local))
    worst = plain["worst"]
    return ViewerData(
        size=size,
        step_mm=_number(plain["step_mm"]),
        centre=[_whole(n, side - 1) for n, side in zip(_list(plain["centre"], 3), size, strict=True)],
        spl=[
            [_whole(n, 1 << 16) for n in _list(axis, side)]
            for axis, side in zip(_list(plain["spl"], 3), size, strict=True)
        ],
        lps_from_spl=[_numbers(row, 4) for row in _list(plain["lps_from_spl"], 4)],
        **{name: _layer(plain[name], math.prod(size)) for name in ("mri", "ct", "fused")},
        local=[LocalMisalignment(_numbers(one["place"], 3), _number(one["mm"])) for one in local],
        local_spacing_mm=_number(plain["local_spacing_mm"]),
        worst=None if worst is None else _numbers(worst, 3),
    )


def _layer(plain: Any, voxels: int) -> Layer:
    grey = _text(plain["grey"], 2 * voxels + 1000)
    if not _BASE64.fullmatch(grey):
        raise ValueError("not base 64")
    try:
        packed = base64.b64decode(grey, validate=True)
    except binascii.Error as error:
        raise ValueError("not base 64") from error
    # Not more than there should be is ever unpacked.
    unpacking = zlib.decompressobj()
    unpacked = unpacking.decompress(packed, voxels + 1)
    if len(unpacked) != voxels or not unpacking.eof:
        raise ValueError("another number of voxels")
    readings = [_text(one, _LONGEST_TEXT) for one in _list(plain["readings"], LEVELS)]
    return Layer(_text(plain["name"], _LONGEST_TEXT), grey, readings)


def _list(plain: Any, length: int | None) -> list[Any]:
    if not isinstance(plain, list) or (length is not None and len(plain) != length):
        raise ValueError("another length")
    return plain


def _text(plain: Any, longest: int) -> str:
    if not isinstance(plain, str) or len(plain) > longest:
        raise ValueError("not a text, or too long")
    return plain


def _whole(plain: Any, highest: int) -> int:
    if type(plain) is not int or not 0 <= plain <= highest:
        raise ValueError(plain)
    return plain


def _number(plain: Any) -> float:
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
        raise ValueError(plain)
    return float(plain)


def _numbers(plain: Any, length: int) -> list[float]:
    return [_number(one) for one in _list(plain, length)]
