"""The one CSV and the one Markdown helper."""

from __future__ import annotations

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from BrainFusionLib.io.tables import Line, Table, format_csv, markdown_table, parse_csv, parse_spreadsheet
from BrainFusionLib.printable import shown_lines

# What a text file can carry: no lone surrogates, and none of the line ends that csv itself would take for its own.
words = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1)


def test_missing_cells_and_none_are_empty() -> None:
    text = format_csv([{"case": "a", "error_mm": 0.25}, {"case": "b", "error_mm": None}, {"case": "c"}])
    assert text == "case,error_mm\na,0.25\nb,\nc,\n"


def test_columns_appear_in_the_given_order() -> None:
    assert format_csv([{"b": 1, "a": 2}], ["a", "b"], delimiter="\t") == "a\tb\n2\t1\n"


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="colour"):
        format_csv([{"case": "a", "colour": "green"}], ["case"])


def test_lines_to_append_have_no_header() -> None:
    assert format_csv([{"case": "a"}], ["case"], header=False) == "a\n"


@given(st.lists(st.tuples(words, words), min_size=1), st.sampled_from([",", "\t", ";"]))
def test_what_is_written_is_read_back(cells: list[tuple[str, str]], delimiter: str) -> None:
    rows = [{"one": one, "two, or\tmore": two} for one, two in cells]
    table = parse_csv(format_csv(rows, delimiter=delimiter), delimiter=delimiter)
    assert table.rows == [{name: shown_lines(cell) for name, cell in row.items()} for row in rows]


def test_lines_know_their_number_and_their_surplus_cells() -> None:
    table = parse_csv('case,ct\n\na,"x\ny"\nb,c,d\ne\n')
    assert table == Table(("case", "ct"), (Line(4, ("a", "x\ny")), Line(5, ("b", "c", "d")), Line(6, ("e",))))
    assert table.rows == [{"case": "a", "ct": "x\ny"}, {"case": "b", "ct": "c"}, {"case": "e", "ct": ""}]


def test_an_empty_text_is_an_empty_table() -> None:
    assert parse_csv("") == Table((), ())


def test_long_cell_is_kept_for_the_reader_of_its_row() -> None:
    long = "x" * (csv.field_size_limit() + 1)
    assert parse_csv(f"case\n{long}\nb\n").rows == [{"case": long}, {"case": "b"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("start", ["", "sep=;\r\n"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_spreadsheets_of_every_dialect_are_the_same_table(encoding: str, start: str, end: str) -> None:
    text = start + end.join(["name;x", 'Müller;"1,5"', "b;-2"])
    table = parse_spreadsheet(text.encode(encoding))
    assert table.columns == ("name", "x")
    assert [table.number_text(line.cells[1]) for line in table.lines] == ["1.5", "-2"]
    assert table.lines[0].number == (3 if start else 2)


@pytest.mark.parametrize("text", ['x,y\n"1,500",2', "x;y\n1,500;2.5", "x\ty\n1,500\t.5"])
def test_a_comma_that_may_separate_thousands_stays(text: str) -> None:
    table = parse_spreadsheet(text.encode())
    assert table.number_text(table.lines[0].cells[0]) == "1,500"


def test_bytes_of_another_encoding_stay_to_be_refused_by_their_row() -> None:
    assert parse_spreadsheet("a;b\nü;1".encode("cp1252")).lines[0].cells == ("\udcfc", "1")
    with pytest.raises(ValueError, match="not text"):
        parse_spreadsheet(b"\0\1")


def test_markdown_tables_escape_their_own_sign() -> None:
    assert markdown_table(["rule", "Qabf"], [["a|b", 0.5], ["c", None]]) == (
        "| rule | Qabf |\n|---|---|\n| a\\|b | 0.5 |\n| c |  |"
    )


def test_a_markdown_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        markdown_table(["a", "b"], [["x"]])
