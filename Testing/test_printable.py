"""The one door for text: whatever a name or a header holds, it can only be read."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from BrainFusionLib import cli
from BrainFusionLib.cohort.manifest import Problem
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.cohort.running import LOG, run_cohort
from BrainFusionLib.console import ProgressLine, SaidLog, say
from BrainFusionLib.errors import BrainFusionError, GeometryError, ImageFileError
from BrainFusionLib.io import read_volume, write_json
from BrainFusionLib.io.reading import naming
from BrainFusionLib.io.tables import format_csv, parse_csv
from BrainFusionLib.printable import is_decoded, shown, shown_lines
from BrainFusionLib.report.page import render

# Colours, a title, the start of the line, C1's escape, another direction of text, a forged line, a byte without UTF-8.
ODD = "a\x1b[31m\x1b]0;title\x07b\r\x9bc\u202e\u2028\nbrainfusion: done\udcff"
UNSEEN = set("\x1b\x07\r\x9b\u202e\u2028\udcff")


def test_a_name_stands_on_one_line_without_what_must_not_be_shown() -> None:
    text = shown(Path(ODD))
    assert not set(text) & (UNSEEN | {"\n"})
    assert len(text) == len(ODD)
    assert shown("größe 頭 \u200c") == "größe 頭 \u200c"


def test_lines_and_tabs_of_a_text_stay() -> None:
    assert shown_lines("a\tb\nc\x1b") == "a\tb\nc\N{REPLACEMENT CHARACTER}"


def test_a_text_with_bytes_that_are_not_utf8_is_told_from_one_with_control_characters() -> None:
    assert is_decoded("a\x1b\n")
    assert not is_decoded("a\udcff")


@pytest.mark.parametrize("kind", [BrainFusionError, ImageFileError, GeometryError])
def test_no_error_holds_what_must_not_be_shown(kind: type[BrainFusionError]) -> None:
    error = kind(f"{ODD}: damaged.", details=f"  1. {ODD}\n  2. b")
    assert not set(str(error) + repr(error) + error.problem) & UNSEEN
    assert str(error).count("\n") == 3  # one before the details, one that was in them, one that is between them
    error.problem = ODD
    assert not set(error.problem) & (UNSEEN | {"\n"})


def test_reading_under_an_odd_name_names_it_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError) as refusal:
        read_volume(tmp_path / f"{ODD}.nii")
    assert not set(str(refusal.value)) & (UNSEEN | {"\n"})
    with pytest.raises(GeometryError) as second, naming(Path(ODD)):
        raise GeometryError(f"{ODD} is odd")
    assert not set(str(second.value)) & (UNSEEN | {"\n"})


def test_said_lines_and_logged_ones_cannot_be_forged(capsys: pytest.CaptureFixture[str]) -> None:
    say(ODD, "second\tcell", error=True)
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "logged %s", (ODD.replace("\n", ""),), None)
    SaidLog().emit(record)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[1] == "second\tcell"
    assert not set("".join(lines)) & UNSEEN


def test_wrong_options_of_any_text_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["fuse", "a", "b", "-o", "out", f"--{ODD}"])
    text = capsys.readouterr().err
    assert text.count("\n") == 2
    assert not set(text) & UNSEEN


def test_a_stage_of_the_progress_cannot_move_the_terminal() -> None:
    stream = io.StringIO()
    ProgressLine(stream)(ODD, 0.5)
    assert not set(stream.getvalue()) & UNSEEN


def test_json_holds_any_name_and_shows_none_of_it(tmp_path: Path) -> None:
    write_json({"name": ODD}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert not set(text) & UNSEEN
    assert json.loads(text) == {"name": ODD}


def test_cells_of_a_table_show_nothing_odd_and_keep_their_lines() -> None:
    table = parse_csv(format_csv([{"a": ODD, "b": 1}]))
    assert table.lines[0].cells == (shown_lines(ODD), "1")


def test_row_and_page_show_nothing_odd() -> None:
    row = Row.of_problem(Problem(ODD, "broken {}", ODD))
    assert not set("".join(row.cells().values())) & (UNSEEN | {"\n"})
    assert not set(render("item", text=ODD)) & UNSEEN


def test_log_of_a_cohort_has_one_line_for_a_row_of_any_name(tmp_path: Path) -> None:
    run_cohort([], tmp_path, problems=[Problem(ODD, "broken", "")])
    text = (tmp_path / LOG).read_text(encoding="utf-8")
    assert text.count("\n") == 1
    assert not set(text) & UNSEEN


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_results_folder_of_an_odd_name_is_printed_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sample", "-o", str(tmp_path / "a\x1b[31m\nb")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not set("".join(lines)) & UNSEEN
    assert all(line.count("a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b") == 1 for line in lines[:2])


def test_a_record_of_a_log_that_does_not_fit_its_text_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    SaidLog().handle(logging.LogRecord("other", logging.WARNING, "other.py", 1, "%d files", ("two",), None))
    assert "Logging error" in capsys.readouterr().err
