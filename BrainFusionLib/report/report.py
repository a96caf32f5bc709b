"""The report: one HTML file by which a planner can judge an alignment in ten seconds.

Nothing in it is fetched from anywhere (a content policy in the page forbids it), and nothing is shown but what is in
the result: no header of an input file is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from BrainFusionLib.case.decision import Standing
from BrainFusionLib.case.output import on_mri_grid
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.standing import standings_of
from BrainFusionLib.geometry import rotation_axis_angle
from BrainFusionLib.io import write_text
from BrainFusionLib.quantities import listed, number, position
from BrainFusionLib.report.decisions import decisions_part
from BrainFusionLib.report.facts import Fact, headline, quality_facts, setting_facts, timing_facts, value_texts
from BrainFusionLib.report.figures import histogram, rows_of_planes, slider, strip
from BrainFusionLib.report.headers import acquisition_facts
from BrainFusionLib.report.landmarks import landmark_section
from BrainFusionLib.report.page import Html, page, render
from BrainFusionLib.report.pictures import PLANES, Scene, plane_pictures, prepare_scene
from BrainFusionLib.report.viewer import viewer
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

# Beyond this the pictures' letters mislead more than they help, unless the reader is warned.
_TILT_WORTH_SAYING_DEG = 5.0


def write_report(result: Result, mri: Volume, path: str | Path) -> None:
    """Write the report of one fusion as one self-contained HTML file.

    Parameters
    ----------
    result
        With its volumes. Everything in it is shown, escaped.
    mri
        As it was fused, on its own grid; the pictures are on this grid.
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
    write_text(report_html(result, mri), path)


def report_html(result: Result, mri: Volume, standings: Sequence[Standing] | None = None) -> str:
    """Return the report's page as text; see `write_report`.

    Decisions are shown as `standings` says, or else as far as the result alone can tell.
    """
    result = on_mri_grid(result, mri)
    scene = prepare_scene(result.ct_in_mri, mri, result.fused)
    planes = [plane_pictures(scene, plane) for plane in PLANES]
    title = f"{result.request.ct.name} on {result.request.mri.name}"
    body = render(
        "report",
        title=title,
        facts=_items(headline(result)),
        verdict=verdict_part(result),
        decisions=decisions_part(standings_of(result) if standings is None else standings),
        warning=_sentence(result.warning),
        where=_where(scene),
        rows=rows_of_planes(planes),
        landmarks=landmark_section(result.landmarks, scene, planes),
        viewer=viewer(scene, result.evidence.local),
        strip=strip(scene),
        slider=slider(planes[0]),
        histogram=histogram(scene),
        transform=_transform(result),
        values=_values(value_texts(result)),
        quality=render("section", heading="Evidence and fidelity", content=_table(quality_facts(result))),
        acquisition=_section("Acquisition, by the headers", acquisition_facts(result)),
        timings=render("section", heading="Time", content=_table(timing_facts(result.provenance))),
        settings=_table(setting_facts(result)),
    )
    return page(title, body, "report.js")


def verdict_part(result: Result) -> Html:
    """Return the verdict's box, with the notes. Sign and words say what the colour says, for those who do not see it.

    A note may matter more than the verdict: that CT and MRI have different patient IDs, for example.
    """
    verdict = result.verdict
    expected = [] if verdict.expected_error is None else [render("paragraph", text=verdict.expected_error)]
    return render(
        "verdict",
        colour=verdict.colour,
        sign=render(f"sign-{verdict.colour}"),
        sentence=verdict.sentence,
        expected=expected,
        reasons=_items(result.remarks),
    )


def _where(scene: Scene) -> str:
    """Where the planes are, in the coordinates that Slicer shows."""
    text = f"Planes through {position(scene.centre_lps_mm)}; the patient's right, by the MRI's header, is on your left."
    if scene.tilt_deg > _TILT_WORTH_SAYING_DEG:
        text += f" The slices follow the MRI's own axes, which are up to {scene.tilt_deg:.0f}° from the body's."
    return text


def _transform(result: Result) -> Html:
    pose = result.pose
    centre = result.grid.centre_lps_mm
    turned: RigidTransform
    if isinstance(pose.transform, RigidTransform):
        turned, kind, beside = pose.transform, "", []
    else:
        turned = pose.transform.nearest_rigid(centre)
        kind = f", {pose.transform.kind} and not rigid"
        beside = [f"The rigid transform beside it: {pose.rigid.describe(centre)}."]
    if pose.skull is not None:
        beside = [*beside, f"Aligned to the brain. The pose of the skull: {pose.skull.describe(centre)}."]
    axis, angle = rotation_axis_angle(turned.rotation)
    return render(
        "transform",
        movement=[render("paragraph", text=text) for text in (f"CT onto MRI{kind}: {pose.movement}.", *beside)],
        matrix=[
            render("row", cells=[render("cell", text=number(round(float(value), 6), 6)) for value in row])
            for row in pose.transform.moving_from_fixed_lps
        ],
        angle=number(angle, 4),
        axis=listed([round(float(value), 4) for value in axis], 4),
    )


def _values(texts: Sequence[str]) -> list[Html]:
    heading = "Values of the fused volume"
    return [render("section", heading=heading, content=render("list", items=_items(texts)))] if texts else []


def _section(heading: str, facts: Sequence[Fact]) -> list[Html]:
    return [render("section", heading=heading, content=_table(facts))] if facts else []


def _table(facts: Sequence[Fact]) -> Html:
    return render("facts", rows=[render("fact", label=fact.label, value=fact.value) for fact in facts])


def _items(texts: Sequence[str]) -> list[Html]:
    return [render("item", text=text) for text in texts]


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:].rstrip(".") + "."
