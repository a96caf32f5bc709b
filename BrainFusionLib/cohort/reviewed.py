"""The cases of a cohort that was run, to be looked at and decided on, the worst first."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from BrainFusionLib.case.codec import from_document
from BrainFusionLib.case.decision import Action, Decision, Signed, Standing, State, decide, state_of
from BrainFusionLib.case.record import read_document, read_record
from BrainFusionLib.case.result import Result
from BrainFusionLib.cohort.decided import Line, add_line, is_about, only_reviewer, read_lines
from BrainFusionLib.cohort.one_case import SEAL, Seal
from BrainFusionLib.cohort.overview import overview, worst_first
from BrainFusionLib.cohort.row import COLUMNS, OVERVIEW, TABLE, Row
from BrainFusionLib.cohort.states import Case, States
from BrainFusionLib.errors import BrainFusionError, ImageFileError, RecordError, SettingsError
from BrainFusionLib.io import write_text
from BrainFusionLib.io.reading import read_record_bytes
from BrainFusionLib.io.tables import parse_csv
from BrainFusionLib.report.contents import ReportContents, report_contents
from BrainFusionLib.signing import content_sha256, read_standings, record_sha256, sign_result

# How deep below a cohort's folder results are looked for: sub-01/ses-a/anat in a derivative of BIDS.
DEPTH = 3
_MOST_BYTES = 200_000_000
# A report stands beside its record, and is named like it.
REPORT = re.compile(r"result\.json$")


class Changed(SettingsError):  # noqa: N818  (an answer)
    """A case is not as it was shown when somebody decided on it."""


@dataclass(frozen=True)
class Seen:
    """What is to be seen of a case at this moment.

    Attributes
    ----------
    result
        Its record; ``None`` if there is none, or it cannot be read.
    problem
        Why not, in a sentence; or that files have changed since the result was made; empty if all is well.
    standings
        The decisions in the result, with whether they hold.
    lines
        The decisions in ``review.tsv`` that are about this result; of a case without a result, those made without one.
    mark
        Changes with every decision and with the result, so that nobody decides on what is not shown.
    """

    result: Result | None
    problem: str
    standings: tuple[Standing, ...]
    lines: tuple[Line, ...]
    mark: str

    @property
    def state(self) -> State:
        """What the last approval or rejection says."""
        if self.result is not None:
            return state_of(self.standings)
        last = next((line.action for line in reversed(self.lines) if line.action != "comment"), "")
        return "rejected" if last == "reject" else "unsigned"

    @property
    def why_not_approved(self) -> str:
        """Why the case cannot be approved, in a sentence; empty if it can."""
        problem = "" if self.result is not None and not self.problem else self.problem or "there is no result."
        return problem and f"This case cannot be approved: {problem}"


def find_cases(folder: Path) -> list[Case]:
    """Return the cases of a cohort's folder, the worst first.

    Raises
    ------
    ImageFileError
        It is not a folder, or holds no results.
    """
    if not folder.is_dir():
        raise ImageFileError(f"{folder}: is not a folder. Give the folder with the results of a cohort.")
    root = folder.resolve()
    cases: dict[str, Case] = {}
    for place in _folders(root, DEPTH):
        case = _sealed(place) or _unsealed(place, root)
        if case is not None:
            cases.setdefault(case.name, case)
    for row in _table_rows(root):
        cases.setdefault(row.case, Case(row))
    if not cases:
        raise ImageFileError(
            f"{folder}: holds no results. Give the folder that brainfusion cohort wrote its results to."
        )
    by_name = {id(case.row): case for case in cases.values()}
    return [by_name[id(row)] for row in worst_first([case.row for case in cases.values()])]


def look_at(case: Case, folder: Path) -> Seen:
    """Return what is to be seen of a case; all its files are read."""
    lines: tuple[Line, ...] = tuple(line for line in read_lines(folder) if line.case == case.name)
    every = len(lines)
    result: Result | None = None
    problem, made = "", ""
    standings: tuple[Standing, ...] = ()
    if case.record is None:
        problem = case.row.error
    else:
        try:
            result = read_record(case.record)
            made = record_sha256(case.record)
            standings = read_standings(case.record)
            changed = _changed(case)
            if changed:
                problem = f"changed since the result was made: {', '.join(changed)}. Run the case again."
        except BrainFusionError as error:
            result, problem = None, f"The result cannot be read: {_without_place(error, case.record)}"
    lines = tuple(line for line in lines if is_about(line, result))
    return Seen(result, problem, standings, lines, f"{every}-{len(standings)}-{made}")


def decisions_in(folder: Path) -> dict[str, str]:
    """Return what was decided about the cases of a cohort, in words, by their names; nothing if it cannot be read."""
    try:
        return decisions_about(find_cases(folder), folder) if read_lines(folder) else {}
    except BrainFusionError:  # said by brainfusion review
        return {}


def decisions_about(cases: Sequence[Case], folder: Path) -> dict[str, str]:
    """Return the last approval or rejection of each case, with the comments after it.

    Raises
    ------
    ImageFileError, RecordError
        The table of decisions cannot be read.
    """
    said: dict[str, list[str]] = {}
    known, states_of = {case.name: case for case in cases}, States(folder)
    for line in read_lines(folder):
        if line.case not in known or not is_about(line, states_of.result(known[line.case])):
            continue
        sentences = said.setdefault(line.case, [])
        if line.action != "comment":
            sentences.clear()
        sentences.append(line.sentence)
    decided = [case for case in cases if case.name in said]
    states = states_of.of(decided)
    return {
        case.name: ("Void: " if state == "void" else "") + "; ".join(said[case.name])
        for case, state in zip(decided, states, strict=True)
    }


def refresh_overview(cases: Sequence[Case], folder: Path) -> None:
    """Write the page of a cohort anew, if it has one: after decisions.

    Raises
    ------
    ImageFileError, RecordError
        The page cannot be written, or the table of decisions cannot be read.
    """
    path = folder / OVERVIEW
    if path.is_symlink() or not path.is_file():
        return
    reports = {}
    for case in cases:
        report = None if case.record is None else case.record.with_name(REPORT.sub("report.html", case.record.name))
        if report is not None and report.is_file():
            reports[case.name] = report.relative_to(folder.resolve()).as_posix()
    thumbnails = {case.name: case.thumbnail for case in cases if case.thumbnail}
    page = overview([case.row for case in cases], thumbnails, reports, decisions_about(cases, folder))
    write_text(page, path)


def contents_of(case: Case, result: Result) -> ReportContents:
    """Return what the report of a case shows; nothing where there is none inside the case's folder."""
    nothing = ReportContents((), None)
    name = result.files.get("report", "")
    if case.record is None or not name:
        return nothing
    path = case.record.parent / name
    try:
        is_inside = path.resolve().is_relative_to(case.record.parent.resolve())
        if not is_inside or not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return nothing
        return report_contents(path.read_bytes().decode("utf-8", "replace"))
    except OSError:
        return nothing


def decide_on(case: Case, folder: Path, action: Action, name: str, comment: str, mark: str) -> None:
    """Add a decision to a case's result, if there is one, and to ``review.tsv``.

    Raises
    ------
    Changed
        The case is not as it was shown (`Seen.mark`).
    SettingsError
        An approval has nothing that it could be about, or the name or the comment cannot be kept.
    ImageFileError, RecordError
        A file cannot be read or written.
    """
    with only_reviewer(folder):
        seen = look_at(case, folder)
        if seen.mark != mark:
            raise Changed("This case has changed since it was shown: look at it again, then decide.")
        if action == "approve" and seen.why_not_approved:
            raise SettingsError(seen.why_not_approved)
        if seen.result is None or case.record is None:
            made = decide(action, name, comment, Signed({}, "", ""))[-1]
        else:
            made = sign_result(case.record, action, name, comment)[-1].decision
        add_line(folder, _line(case, made, seen.result))


def _line(case: Case, decision: Decision, result: Result | None) -> Line:
    verdict = case.row.status if result is None else result.verdict.colour
    return Line(
        decision.date, case.name, decision.action, decision.name, decision.comment, verdict, decision.version,
        decision.signed.pose, decision.signed.result,
    )  # fmt: skip


def _folders(root: Path, depth: int) -> Iterable[Path]:
    """Yield the folders below one, but neither hidden ones nor links, which could lead out of it."""
    try:
        below = sorted(path for path in root.iterdir() if not path.name.startswith(".") and not path.is_symlink())
    except OSError:
        return
    for path in below:
        if path.is_dir():
            yield path
            if depth > 1:
                yield from _folders(path, depth - 1)


def _sealed(place: Path) -> Case | None:
    path = place / SEAL
    if path.is_symlink() or not path.is_file():
        return None
    try:
        seal = from_document(read_document(path), Seal)
    except BrainFusionError:
        return None
    found = [place / name for name in seal.files if name.endswith("result.json") and Path(name).name == name]
    records = [record for record in found if record.is_file() and not record.is_symlink()]
    return Case(seal.row, records[0] if records else None, path, _jpeg(seal.thumbnail))


def _unsealed(place: Path, root: Path) -> Case | None:
    path = place / "result.json"
    if path.is_symlink() or not path.is_file():
        return None
    name = place.relative_to(root).as_posix()
    try:
        return Case(Row.of(name, read_record(path)), path)
    except BrainFusionError as error:
        return Case(Row(name, "failed", error=_without_place(error, path)), path)


def _table_rows(root: Path) -> list[Row]:
    """Return the rows of the cohort's table that are not done; the others have a folder."""
    path = root / TABLE
    if path.is_symlink() or not path.is_file():
        return []
    try:
        table = parse_csv(read_record_bytes(path).decode("utf-8", "replace"), delimiter="\t")
    except (OSError, ValueError):
        return []
    if table.columns != COLUMNS:
        return []
    rows = []
    for cells in table.rows:
        status = cells["status"]
        if status in ("refused", "failed"):
            rows.append(Row(cells["case"], "refused" if status == "refused" else "failed", error=cells["error"]))
    return rows


def _changed(case: Case) -> list[str]:
    """Return the files of a case that are not as its seal says."""
    if case.seal is None or case.record is None:
        return []
    seal = from_document(read_document(case.seal), Seal)
    changed = []
    for name, wanted in seal.files.items():
        path = case.record.parent / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RecordError("the seal names files outside of its folder")
        try:
            is_same = (path.is_file() or path.is_dir()) and content_sha256(path) == wanted
        except OSError:
            is_same = False
        if not is_same:
            changed.append(name)
    return changed


def _without_place(error: BrainFusionError, record: Path) -> str:
    """Return the words of an error without the folder's path, which may name a user."""
    folder = record.parent
    # One word, such as ``7``, may also be a word or a number of the message.
    end = "" if len(folder.parts) > 1 else r"(?=[/\\])"
    return re.sub(rf"(?<![\w./\\-]){re.escape(str(folder))}{end}", "", str(error)).lstrip("/\\")


def _jpeg(text: str) -> str:
    """Return a picture of a seal if it is one, else nothing."""
    try:
        is_jpeg = base64.b64decode(text, validate=True).startswith(b"\xff\xd8\xff")
    except (binascii.Error, ValueError):
        return ""
    return text if is_jpeg else ""
