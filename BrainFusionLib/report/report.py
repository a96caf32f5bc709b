"""The report: one HTML file by which a planner can judge an alignment in ten seconds.

Nothing in it is fetched from anywhere (a content policy in the page forbids it), and nothing is told but what is in
the result's dictionary: no header of an input file is read here.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from BrainFusionLib.io import atomic_output, write_text
from BrainFusionLib.report.page import PAGE, STYLE
from BrainFusionLib.report.pictures import (
    EDGE_LETTERS,
    EDGE_RGB,
    PLANES,
    Picture,
    PlanePictures,
    Scene,
    axial_positions,
    joint_histogram,
    plane_pictures,
    prepare_scene,
    with_edges,
)
from BrainFusionLib.report.viewer import viewer_section
from BrainFusionLib.volume import Volume

WARNING = "for research and planning review, not for diagnosis"

# Beyond this the pictures' letters mislead more than they help, unless the reader is told.
_TILT_WORTH_SAYING_DEG = 5.0

# Shape and word say what colour says, for those who do not see it and for grey printers.
_VERDICTS = {
    "green": ("The alignment looks right", '<circle cx="20" cy="20" r="18"/><path d="M11 21l6 6 12-14"/>'),
    "amber": ("Check the alignment before use", '<path d="M20 3L38 36H2z"/><path d="M20 14v11M20 30v1"/>'),
    "red": (
        "Do not use: the alignment is not right",
        '<path d="M13 2h14l11 11v14L27 38H13L2 27V13z"/><path d="M13 13l14 14M27 13L13 27"/>',
    ),
    "none": (
        "No verdict was given",
        '<circle cx="20" cy="20" r="18"/><path d="M15 15q1-5 5-5 5 0 5 5 0 3-5 6v3M20 29v1"/>',
    ),
}


def write_report(result: Mapping[str, Any], fused: Volume, ct_in_mri: Volume, mri: Volume, path: str | Path) -> None:
    """Write the report of one fusion as one self-contained HTML file.

    Parameters
    ----------
    result
        What goes to ``result.json``. Any key may be missing; what is there is shown, escaped.
    fused, ct_in_mri, mri
        The fused volume, the CT resampled, and the MRI: all on the MRI's grid.
    path
        Where to write; appears whole or not at all.

    Raises
    ------
    GeometryError
        The volumes are not on one grid.
    ImageContentError
        The MRI is constant.
    ImageFileError
        The file cannot be written.
    """
    write_text(report_html(result, fused, ct_in_mri, mri), path)


def report_html(result: Mapping[str, Any], fused: Volume, ct_in_mri: Volume, mri: Volume) -> str:
    """Return the report's page as text; see `write_report`."""
    scene = prepare_scene(ct_in_mri, mri, fused)
    planes = [plane_pictures(scene, plane) for plane in PLANES]
    timings = _mapping(result.get("timings_s"))
    return PAGE.substitute(
        style=STYLE,
        title=_title(_mapping(result.get("case"))),
        facts=_facts(result, timings),
        verdict=_verdict_box(_mapping(result.get("verdict")), given="given" in _mapping(result.get("quality"))),
        warning=_sentence(str(result.get("warning") or WARNING)),
        where=_where(scene),
        rows=_rows_of_planes(planes),
        strip=_strip(scene),
        slider=_slider(planes[0]),
        viewer=viewer_section(scene, _mapping(result.get("local_errors"))),
        histogram=_histogram(scene),
        transform=_transform(_mapping(result.get("transform"))),
        quality=_table("Quality", [(n.replace("_", " "), v) for n, v in _flat(_mapping(result.get("quality")))]),
        timings=_table("Time, seconds", _flat(timings)),
        notes=_list("Notes", result.get("notes")),
        settings=_table("", _flat(_mapping(result.get("settings")))) or "<p>None were recorded.</p>",
    )


def write_readme_picture(ct_in_mri: Volume, mri: Volume, fused: Volume, path_png: str | Path) -> None:
    """Write one row of axial pictures, CT | MRI | fused | MRI with CT edges, as a PNG that suits any background.

    Raises
    ------
    GeometryError
        The volumes are not on one grid.
    ImageFileError
        The file cannot be written.
    """
    scene = prepare_scene(ct_in_mri, mri, fused)
    shown = plane_pictures(scene, "axial")
    tiles = [
        ("CT", _rgb(shown.ct)),
        ("MRI", _rgb(shown.mri)),
        ("fused", _rgb(shown.fused)),
        ("CT outline on MRI", with_edges(shown.mri, shown.edges)),
    ]
    with atomic_output(path_png) as temporary:
        _row_of_tiles(tiles).save(temporary, format="PNG", optimize=True)


def _row_of_tiles(tiles: Sequence[tuple[str, Picture]], gap: int = 12, radius: int = 14) -> Image.Image:
    """Put captioned pictures side by side on a transparent ground, with rounded corners."""
    rows, columns = tiles[0][1].shape[:2]
    caption = 40
    height = rows + caption
    row = Image.new("RGBA", (len(tiles) * (columns + gap) - gap, height), (0, 0, 0, 0))
    # Drawn four times as large and reduced, because Pillow's corners are not smoothed.
    corners = Image.new("L", (columns * 4, height * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, columns * 4 - 1, height * 4 - 1), radius * 4, fill=255)
    corners = corners.resize((columns, height), Image.Resampling.LANCZOS)
    for n, (words, picture) in enumerate(tiles):
        tile = Image.new("RGB", (columns, height), (30, 34, 40))
        tile.paste(Image.fromarray(picture), (0, caption))
        ImageDraw.Draw(tile).text(
            (columns // 2, caption // 2), words, (225, 228, 232), ImageFont.load_default(20), anchor="mm"
        )
        row.paste(tile, (n * (columns + gap), 0), corners)
    return row


def _rgb(grey: Picture) -> Picture:
    return np.repeat(grey[..., None], 3, axis=2)


# --- parts of the page ---------------------------------------------------------------------------------------------


def _title(case: Mapping[str, Any]) -> str:
    ct, mri = case.get("ct"), case.get("mri")
    return html.escape(f"{ct or 'CT'} on {mri or 'MRI'}")


def _facts(result: Mapping[str, Any], timings: Mapping[str, Any]) -> str:
    """One line of small facts below the title."""
    facts = [str(result.get("date") or datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))]
    if result.get("rule"):
        facts.append(f"rule: {result['rule']}")
    if result.get("device"):
        facts.append(f"device: {result['device']}")
    seconds = timings.get("total")
    if seconds is None:
        seconds = sum(v for v in timings.values() if isinstance(v, (int, float))) or None
    if seconds is not None:
        facts.append(f"{_number(seconds)} s in all")
    versions = result.get("versions")
    if isinstance(versions, Mapping):
        facts += [f"{name} {version}" for name, version in versions.items()]
    elif versions:
        facts.append(str(versions))
    return "".join(f"<li>{html.escape(fact)}</li>" for fact in facts)


def _verdict_box(verdict: Mapping[str, Any], given: bool) -> str:
    colour = str(verdict.get("colour", "none")).lower()
    colour = colour if colour in _VERDICTS else "none"
    words, symbol = _VERDICTS[colour]
    error, interval = verdict.get("expected_error_mm"), verdict.get("interval_mm")
    if error is None:
        size = "Expected error: not estimated"
    else:
        # The estimate takes a pose that was found for right, and only asks how sharply it is determined.
        doubted = ", were it the right pose" if colour == "red" and not given else ""
        size = f"Expected error{doubted}: {_number(error, 2)} mm"
        if isinstance(interval, Sequence) and len(interval) == 2:
            size += f" ({_number(interval[0], 2)} to {_number(interval[1], 2)} mm)"
    name = "" if colour == "none" else f"{colour.upper()}: "
    return (
        f'<section class="verdict {colour}"><svg viewBox="0 0 40 40" aria-hidden="true">{symbol}</svg>'
        f"<div><h2>{name}{words}</h2><p>{html.escape(size)}</p>{_list('', verdict.get('reasons'))}</div></section>"
    )


def _where(scene: Scene) -> str:
    """Where the planes are, in the coordinates that Slicer shows."""
    words = [
        f"{abs(mm):.0f} mm {(positive if mm >= 0 else negative)}"
        for mm, positive, negative in zip(
            scene.centre_lps_mm, ("left", "posterior", "superior"), ("right", "anterior", "inferior"), strict=True
        )
    ]
    text = f"Planes through the point {', '.join(words)} of the MRI's origin; the patient's right is on your left."
    if scene.tilt_deg > _TILT_WORTH_SAYING_DEG:
        text += f" The slices follow the MRI's own axes, which are up to {scene.tilt_deg:.0f}° from the body's."
    return html.escape(text)


def _rows_of_planes(planes: Sequence[PlanePictures]) -> str:
    """Three rows (outline on MRI, checkerboard, fused) of three planes, all of one height in millimetres."""
    height = max(p.mri.shape[0] for p in planes)
    kinds = (
        ("CT bone outline on the MRI", "aligned when the MRI's dark skull lies between the lines", "mri", True),
        ("Checkerboard of MRI and CT", "aligned when skin and skull run on from tile to tile", "checkerboard", False),
        ("Fused", "the CT's bone, brighter than nearly all tissue, in the MRI", "fused", False),
    )
    parts = []
    for heading, hint, kind, lined in kinds:
        cells = ""
        for p in planes:
            grey = _padded(getattr(p, kind), height)
            edges = _padded(p.edges, height) if lined else None
            weight = grey.shape[1] / height
            figure = _figure(grey, edges, f"{p.plane}: {heading}", EDGE_LETTERS[p.plane], p.mm_per_pixel)
            cells += f'<div style="flex:{weight:.4f} 1 0">{figure}</div>'
        title = f'<h2>{heading} <span class="soft">{hint}</span></h2>'
        shape = "planes lined" if lined else "planes"
        parts.append(f'<section>{title}<div class="{shape}">{cells}</div></section>')
    return "".join(parts)


def _padded(picture: Picture, height: int) -> Picture:
    missing = height - picture.shape[0]
    return np.pad(picture, ((missing // 2, missing - missing // 2), (0, 0)))


def _figure(grey: Picture, edges: Picture | None, words: str, letters: str, mm_per_pixel: float | None) -> str:
    """One picture with its lines, its letters (left, right, top, bottom) and a 50 mm bar."""
    layers = f'<img src="{_jpeg(grey)}" alt="{html.escape(words)}">'
    if edges is not None:
        layers += f'<img class="edges" src="{_edge_png(edges)}" alt="">'
    for place, letter in zip(("left", "right", "top", "bottom"), letters, strict=False):
        layers += f'<b class="at-{place}">{letter}</b>'
    if mm_per_pixel is not None:
        width = 100 * 50 / mm_per_pixel / grey.shape[1]
        layers += f'<i class="bar" style="width:{width:.2f}%">50 mm</i>'
    return f'<figure class="picture">{layers}</figure>'


def _strip(scene: Scene) -> str:
    figures = ""
    for position in axial_positions(scene):
        # Coarser pixels, so that the outline is not too thin at this size.
        p = plane_pictures(scene, "axial", position, mm_per_pixel=0.7)
        words = f"{scene.offset_of('axial', position):+.0f} mm"
        picture = _figure(p.fused, p.edges, f"axial, fused with the CT bone outline, {words}", "R", None)
        figures += f"<div>{picture}<p>{words.replace('-', '−')}</p></div>"
    return figures


def _slider(axial: PlanePictures) -> str:
    return (
        f'<figure class="picture compare"><img src="{_jpeg(axial.mri_as_fused)}" alt="axial MRI">'
        f'<img class="after" src="{_jpeg(axial.fused)}" alt="axial fused"><span class="divider"></span>'
        '<b class="at-left">R</b><b class="at-right">L</b><b class="name-after">fused</b><b class="name-before">MRI</b>'
        '<input type="range" min="0" max="100" value="50" step="1" '
        'aria-label="How much of the picture is fused; the rest is MRI"></figure>'
    )


def _histogram(scene: Scene) -> str:
    picture, hu, values = joint_histogram(scene)
    left, top, side = 52, 6, 300
    ticks = ""
    for tick in _round_ticks(*hu):
        x = left + side * (tick - hu[0]) / (hu[1] - hu[0])
        ticks += f'<path d="M{x:.1f} {top + side}v5"/><text x="{x:.1f}" y="{top + side + 17}">{_number(tick)}</text>'
    for tick in _round_ticks(*values):
        y = top + side * (1 - (tick - values[0]) / (values[1] - values[0]))
        ticks += (
            f'<path d="M{left - 5} {y:.1f}h5"/><text class="y" x="{left - 8}" y="{y + 4:.1f}">{_number(tick)}</text>'
        )
    return (
        f'<svg class="histogram" viewBox="0 0 {left + side + 10} {top + side + 40}" role="img" '
        'aria-label="Joint histogram of CT and MRI values">'
        f'<image x="{left}" y="{top}" width="{side}" height="{side}" href="{_png(picture)}"/>'
        f'{ticks}<text x="{left + side / 2}" y="{top + side + 36}">CT, HU</text>'
        f'<text transform="translate(10 {top + side / 2}) rotate(-90)">MRI intensity</text></svg>'
    )


def _round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between two values."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.8)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _transform(transform: Mapping[str, Any]) -> str:
    parts = ""
    if transform.get("words"):
        kind = transform.get("kind", "rigid")
        stretched = "" if kind == "rigid" else f", {html.escape(str(kind))} and not rigid"
        parts += f"<p>CT onto MRI{stretched}: {html.escape(str(transform['words']))}.</p>"
    rigid = _mapping(transform.get("rigid"))
    if rigid.get("words"):
        parts += f"<p>The rigid transform beside it: {html.escape(str(rigid['words']))}.</p>"
    matrix = transform.get("moving_from_fixed_lps")
    if matrix is not None:
        rows = "".join(f"<tr>{''.join(f'<td>{html.escape(_number(v, 6))}</td>' for v in row)}</tr>" for row in matrix)
        parts += "<p>As a matrix, from points of the MRI to points of the CT, LPS, mm:</p>"
        parts += f'<table class="matrix">{rows}</table>'
    axis, angle = transform.get("rotation_axis_lps"), transform.get("rotation_angle_deg")
    if axis is not None and angle is not None:
        words = f"{_number(angle)}° about the axis ({_number(axis)})"
        parts += f"<p>The matrix turns by {html.escape(words)}, LPS.</p>"
    return parts or "<p>None was recorded.</p>"


def _table(heading: str, rows: Sequence[tuple[str, Any]]) -> str:
    if not rows:
        return ""
    body = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(_number(value))}</td></tr>" for name, value in rows
    )
    title = f"<h2>{html.escape(heading)}</h2>" if heading else ""
    return f"<section>{title}<table>{body}</table></section>"


def _list(heading: str, items: Any) -> str:
    if not items:
        return ""
    words = [items] if isinstance(items, str) else items
    title = f"<h2>{html.escape(heading)}</h2>" if heading else ""
    return title + "<ul>" + "".join(f"<li>{html.escape(str(item))}</li>" for item in words) + "</ul>"


def _sentence(words: str) -> str:
    return html.escape(words[:1].upper() + words[1:].rstrip(".") + ".")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Turn nested dictionaries into rows of a dotted name and a value."""
    rows: list[tuple[str, Any]] = []
    for key, value in nested.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, value)]
    return rows


def _number(value: Any, digits: int = 4) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.{digits}g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_number(v, digits) for v in value)
    return str(value)


# --- pictures as data URIs -----------------------------------------------------------------------------------------


def _data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _jpeg(grey: Picture) -> str:
    return _data_uri(Image.fromarray(np.ascontiguousarray(grey)), "JPEG", quality=88)


def _png(picture: npt.NDArray[np.uint8]) -> str:
    return _data_uri(Image.fromarray(picture), "PNG")


def _edge_png(edges: Picture) -> str:
    """Ink only the outline on a transparent picture: few levels, so that it packs to a few kilobytes."""
    image = Image.fromarray(edges)
    image.putpalette([*EDGE_RGB] * 256)
    return _data_uri(image, "PNG", transparency=bytes(range(256)))
