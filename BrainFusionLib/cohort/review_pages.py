"""The pages of the review of a cohort: the list of its cases, and one case with its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from BrainFusionLib.case.decision import NO_SIGNATURE, State
from BrainFusionLib.case.result import WARNING
from BrainFusionLib.cohort.overview import state_of_row
from BrainFusionLib.cohort.reviewed import Seen, contents_of, look_at
from BrainFusionLib.cohort.states import Case, States
from BrainFusionLib.quantities import counted
from BrainFusionLib.report.contents import ReportContents, ReportPicture, viewer_of
from BrainFusionLib.report.decisions import CLASSES, HEADINGS
from BrainFusionLib.report.page import Html, render
from BrainFusionLib.report.report import verdict_part

_WORDS: dict[State, str] = {"approved": "approved", "rejected": "rejected", "void": "void", "unsigned": "–"}


def list_page(cases: Sequence[Case], states: States) -> str:
    """Return the list of all cases, the worst first."""
    decided = states.of(cases)
    rows = []
    for number, (case, decision) in enumerate(zip(cases, decided, strict=True), 1):
        state = state_of_row(case.row)
        rows.append(
            render(
                "review-row",
                number=number,
                picture=[render("review-thumbnail", picture=case.thumbnail)] if case.thumbnail else [],
                name=case.name,
                state=state,
                sign=render(f"sign-{state}"),
                decided=CLASSES[decision],
                decision=_WORDS[decision],
                reasons=case.row.error or case.row.reasons,
            )
        )
    without = [number for number, state in enumerate(decided, 1) if state in ("unsigned", "void")]
    body = render(
        "review-list",
        count=counted(len(cases), "case"),
        summary=_summary(decided),
        warning=WARNING,
        caution=NO_SIGNATURE,
        next=f"/case/{without[0]}" if without else "",
        rows=rows,
    )
    return _page(counted(len(cases), "case"), body)


def case_page(cases: Sequence[Case], number: int, folder: Path, states: States, secret: str) -> str:
    """Return the page of a case, counted from 1."""
    case = cases[number - 1]
    seen = look_at(case, folder)
    contents = ReportContents((), None) if seen.result is None else contents_of(case, seen.result)
    viewer: list[Html] = [] if contents.viewer is None else [viewer_of(contents.viewer, "/viewer.js")]
    body = render(
        "review-case",
        number=number,
        place=number,
        count=len(cases),
        summary=_summary(states.of(cases)),
        name=case.name,
        mark=seen.mark,
        previous=f"/case/{number - 1}" if number > 1 else "",
        next=f"/case/{number + 1}" if number < len(cases) else "",
        secret=secret,
        problem=[render("review-problem", text=seen.problem)] if seen.problem else [],
        verdict=[] if seen.result is None or seen.problem else [verdict_part(seen.result)],
        state=CLASSES[seen.state],
        decided=HEADINGS[seen.state],
        decisions=_decisions(seen),
        approvable=Html("disabled" if seen.why_not_approved else ""),
        why=seen.why_not_approved,
        caution=NO_SIGNATURE,
        pictures=[_figure(picture) for picture in contents.pictures],
        viewer=viewer,
    )
    return _page(case.name, body)


def _page(title: str, body: Html) -> str:
    return render("review-page", title=title, body=body)


def _decisions(seen: Seen) -> Html | str:
    # Of a case with a result the record has all decisions; of others only the table.
    sentences = [standing.sentence for standing in seen.standings] or [line.sentence for line in seen.lines]
    return render("list", items=[render("item", text=text) for text in reversed(sentences)]) if sentences else ""


def _figure(picture: ReportPicture) -> Html:
    layers = [] if picture.edges is None else [render("edges", source=picture.edges)]
    layers += [render("letter", place=place, letter=letter) for place, letter in sorted(picture.letters.items())]
    return render("review-figure", source=picture.source, description=picture.description, layers=layers)


def _summary(decided: Sequence[State]) -> str:
    counts = [f"{decided.count(state)} {state}" for state in ("approved", "rejected", "void") if state in decided]
    return ", ".join([*counts, f"{decided.count('unsigned')} without a decision"])
