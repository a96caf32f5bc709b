"""Tables as text: comma- and tab-separated ones, to write and to read, and Markdown ones, to write."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from BrainFusionLib.printable import shown_lines

Cell = str | int | float | None
"""What a cell may hold; ``None`` is written as an empty cell."""
SAVE_AS_UTF8 = "save the table as UTF-8 (Excel: CSV UTF-8)"
# A first line by which Excel is told what is between two cells.
_SEPARATOR = re.compile(r"sep=([\t;,])\s*(?:\r\n|\r|\n)", re.IGNORECASE)
_DECIMAL_COMMA, _DECIMAL_POINT = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?\d*\.\d+")


@dataclass(frozen=True)
class Line:
    """One line of a table that was read: where it ends in the text (counted from 1), and its cells as they are."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table that was read: the names in its first line, the lines below it, and whether it has decimal commas."""

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    decimal_comma: bool = False

    @property
    def rows(self) -> list[dict[str, str]]:
        """The lines by column; cells that a line lacks are empty, cells without a column are dropped."""
        return [self.row(line) for line in self.lines]

    def row(self, line: Line) -> dict[str, str]:
        """Return the cells of a line by column, as in `rows`."""
        missing = ("",) * (len(self.columns) - len(line.cells))
        return dict(zip(self.columns, line.cells + missing, strict=False))

    def number_text(self, cell: str) -> str:
        """Return a cell as `float` takes it."""
        return cell.replace(",", ".") if self.decimal_comma and _DECIMAL_COMMA.fullmatch(cell) else cell


def format_csv(
    rows: Iterable[Mapping[str, Cell]],
    columns: Sequence[str] | None = None,
    *,
    delimiter: str = ",",
    header: bool = True,
) -> str:
    """Return rows as text: a header, then one line for each row.

    Parameters
    ----------
    rows
        Cells by column. Columns that a row lacks are left empty.
    columns
        The columns in their order; where not given, all columns of all rows in the order in which they first appear.
    delimiter
        The sign between two cells: a comma, a semicolon or a tab.
    header
        Whether the first line names the columns; not wanted where lines are added to a file.

    Raises
    ------
    ValueError
        A row has a column that is not among `columns`.
    """
    rows = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator="\n", restval="")
    if header:
        writer.writeheader()
    for row in rows:
        writer.writerow({name: shown_lines(cell) if isinstance(cell, str) else cell for name, cell in row.items()})
    return text.getvalue()


def parse_csv(text: str, *, delimiter: str = ",") -> Table:
    """Return a table from its text; the first line names the columns. Empty lines are dropped.

    Raises
    ------
    ValueError
        The text is not a table, for example because of a null character.
    """
    lines = split_csv(text, delimiter=delimiter)
    return Table(lines[0].cells, tuple(lines[1:])) if lines else Table((), ())


def split_csv(text: str, *, delimiter: str = ",") -> list[Line]:
    """Return all lines of a table from its text, without a header's meaning; as `parse_csv`.

    Raises
    ------
    ValueError
        As `parse_csv`.
    """
    # A long cell is for the reader of its row to refuse, not a reason to refuse the table.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [Line(reader.line_num, tuple(cells)) for cells in reader if cells]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def parse_spreadsheet(content: bytes) -> Table:
    """Return a table as people's spreadsheets write it.

    The text is UTF-8, or UTF-16 with its mark (Excel's "Unicode text"); bytes that are not stay as surrogates, for the
    reader of their row to refuse. Between cells there are tabs, semicolons or commas: what a first line ``sep=`` says,
    or else the most frequent one in the first line. A line's number counts that line ``sep=``, too. A comma in a number
    is its decimal point, unless commas are between the cells, or another number has a point (then it may be 1,000).

    Raises
    ------
    ValueError
        The content is not a table.
    """
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16", "replace") if is_wide else content.decode("utf-8-sig", "surrogateescape")
    if "\0" in text:
        raise ValueError("it is not text")
    told = _SEPARATOR.match(text)
    text = text[told.end() :] if told else text
    first_lines = text.lstrip("\r\n").splitlines()[:1] or [""]
    delimiter = told[1] if told else max("\t;,", key=first_lines[0].count)
    table = parse_csv(text, delimiter=delimiter)
    lines = tuple(Line(line.number + bool(told), line.cells) for line in table.lines)
    points = any(_DECIMAL_POINT.fullmatch(cell.strip()) for line in lines for cell in line.cells)
    return Table(table.columns, lines, decimal_comma=delimiter != "," and not points)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a Markdown table of these columns, without a line break at its end.

    Raises
    ------
    ValueError
        A row has more or fewer cells than there are columns.
    """
    lines = [markdown_head(columns)]
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row)} cells for {len(columns)} columns: {list(row)}")
        lines.append(markdown_row(row))
    return "\n".join(lines)


def markdown_head(columns: Sequence[str]) -> str:
    """Return the two lines that a Markdown table starts with; for tables that are printed line by line."""
    return f"{markdown_row(columns)}\n{'|---' * len(columns)}|"


def markdown_row(cells: Sequence[Cell]) -> str:
    """Return one line of a Markdown table; ``None`` is an empty cell."""
    shown = ("" if cell is None else str(cell).replace("|", r"\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(shown)} |"
