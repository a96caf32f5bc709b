"""Texts for `benchmarks.attack`: what a user is sent beside images: points, tables, records, weights, settings.

Their readers are given with them. Of a planted folder of results, the pages are made, too: whatever stands in a file,
no script of it may stand in a page.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attack_parts import Input, Random, exact
from BrainFusionLib import fuse
from BrainFusionLib.case import read_record, to_document
from BrainFusionLib.cohort import read_manifest
from BrainFusionLib.cohort.decided import COLUMNS, read_lines
from BrainFusionLib.cohort.one_case import SEAL, Seal
from BrainFusionLib.cohort.review_pages import case_page, list_page
from BrainFusionLib.cohort.reviewed import decisions_in, find_cases, refresh_overview
from BrainFusionLib.cohort.row import OVERVIEW, Row
from BrainFusionLib.cohort.states import States
from BrainFusionLib.folder import write_case
from BrainFusionLib.fusion.weights import Manifest, load_weights, save_weights
from BrainFusionLib.io.landmark_files import read_landmarks
from BrainFusionLib.io.point_files import read_points
from BrainFusionLib.io.tables import Cell, format_csv
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.signing import content_sha256, read_standings, sign_result

# What a planted file would like to bring into a page.
SCRIPTS = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "--><!-- end of decisions --><svg/onload=alert(1)>",
)
_TRACES = ("<script>alert", "<img src=x", "<svg/onload")
_SETTINGS = (Path(__file__).parents[1] / "training" / "configs" / "smoke.toml").read_bytes()


def points(random: Random) -> Input:
    """Return points of one image: a table, or a list of 3D Slicer."""
    names, lps = _points(random)
    name = str(random.choice(["a.csv", "a.mrk.json", "a.fcsv"]))
    content = (
        _table(random, ("name", "x", "y", "z"), names, lps) if name == "a.csv" else _list(random, name, names, lps)
    )

    def read(path: Path) -> object:
        found = read_points(path)
        return found.names, _rounded(found.lps_mm)

    return Input("points", {name: content}, name, read=read, wanted=(names, _rounded(lps)))


def landmarks(random: Random) -> Input:
    """Return landmarks of both images: one table, or two lists of 3D Slicer."""
    names, ct = _points(random)
    mri = random.uniform(-90, 90, ct.shape)
    if random.random() < 0.5:
        columns = ("name", "ct_x", "ct_y", "ct_z", "mri_x", "mri_y", "mri_z")
        files = {"a.csv": _table(random, columns, names, np.c_[ct, mri])}
    else:
        kinds = [str(random.choice(["mrk.json", "fcsv"])) for _ in range(2)]
        files = {f"{role}.{kind}": _list(random, kind, names, lps)
                 for role, kind, lps in zip(("a", "b"), kinds, (ct, mri), strict=True)}  # fmt: skip
    paths = list(files)

    def read(path: Path) -> object:
        found = read_landmarks([path.with_name(name) for name in paths])
        return found.names, _rounded(found.ct_lps_mm), _rounded(found.mri_lps_mm)

    return Input("landmarks", files, paths[0], read=read, wanted=(names, _rounded(ct), _rounded(mri)))


def manifest(random: Random) -> Input:
    """Return a table of cases, with files that are there and files that are not."""
    count = int(random.integers(1, 5))
    rows = [{"case": f"case{n}", "ct": "ct.nii", "mri": str(random.choice(["mri.nii", "none.nii"])), "ct_series": "ü 1"}
            for n in range(count)]  # fmt: skip
    delimiter, ends = str(random.choice([",", ";", "\t"])), str(random.choice(["\n", "\r\n"]))
    text = format_csv(rows, delimiter=delimiter).replace("\n", ends)
    encoding = str(random.choice(["utf-8", "utf-8-sig", "utf-16"]))
    files = {"a.csv": text.encode(encoding), "ct.nii": b"x", "mri.nii": b"x"}

    def read(path: Path) -> object:
        entries, problems = read_manifest(path)
        return (
            [entry.case for entry in entries],
            len(problems),
            max((len(str(one)) for one in problems), default=0) < 2000,
        )

    good = [row["case"] for row in rows if row["mri"] == "mri.nii"]
    return Input("manifest", files, "a.csv", read=read, wanted=(good, count - len(good), True))


def weights(random: Random) -> Input:
    """Return a pair of files of weights."""
    files = _weights()
    return Input("weights", dict(files), str(random.choice(list(files))), read=_read_weights, wanted=True)


def settings(_random: Random) -> Input:
    """Return a configuration of training."""
    return Input("settings", {"a.toml": _SETTINGS}, "a.toml", read=_read_settings, wanted="phantom")


def record(random: Random) -> Input:
    """Return a folder of a cohort's results, in which a text may be planted, to be reviewed."""
    files = dict(_cohort())
    wanted: object = ["a"]
    if random.random() < 0.5:
        name = str(random.choice([name for name in files if name.endswith((".json", ".tsv", ".html"))]))
        script = SCRIPTS[random.integers(len(SCRIPTS))]
        files[name] = _planted(random, files[name], script)
        wanted = None
    return Input("results", files, ".", read=_review, wanted=wanted)


def _points(random: Random) -> tuple[tuple[str, ...], Any]:
    count = int(random.integers(2, 9))
    return tuple(f"p {n} ü" for n in range(count)), random.uniform(-90, 90, (count, 3))


def _rounded(lps: Any) -> list[list[float]]:
    return [[round(float(n), 6) for n in row] for row in lps]


def _table(random: Random, columns: tuple[str, ...], names: tuple[str, ...], numbers: Any) -> bytes:
    rows: list[dict[str, Cell]] = [
        dict(zip(columns, (name, *map(float, row)), strict=True)) for name, row in zip(names, numbers, strict=True)
    ]
    text = format_csv(rows, delimiter=str(random.choice([",", ";", "\t"])))
    return text.replace("\n", str(random.choice(["\n", "\r\n"]))).encode(str(random.choice(["utf-8", "utf-8-sig"])))


def _list(random: Random, name: str, names: tuple[str, ...], lps: Any) -> bytes:
    frame = str(random.choice(["LPS", "RAS"]))
    own = lps * ((-1, -1, 1) if frame == "RAS" else (1, 1, 1))
    if name.endswith("fcsv"):
        head = (
            f"# Markups fiducial file version = 4.11\n# CoordinateSystem = {frame}\n# columns = id,x,y,z,ow,ox,oy,oz,"
        )
        head += "vis,sel,lock,label,desc,associatedNodeID\n"
        rows = [
            f"{n},{exact(row, ',')},0,0,0,1,1,1,0,{label},,\n"
            for n, (label, row) in enumerate(zip(names, own, strict=True))
        ]
        return (head + "".join(rows)).encode()
    controls = [{"label": label, "position": row.tolist(), "positionStatus": "defined"}
                for label, row in zip(names, own, strict=True)]  # fmt: skip
    return json.dumps(
        {"markups": [{"type": "Fiducial", "coordinateSystem": frame, "controlPoints": controls}]}
    ).encode()


@cache
def _weights() -> dict[str, bytes]:
    from BrainFusionLib.fusion.network import build_network

    network = build_network({"name": "fusion_net", "width": 2})
    arrays = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    told = Manifest({"name": "fusion_net", "width": 2}, "none", "none", created="2020-01-01T00:00:00+00:00")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        save_weights(path, arrays, told)
        return {name: (Path(folder) / name).read_bytes() for name in ("a.npz", "a.json")}


def _read_weights(path: Path) -> object:
    from BrainFusionLib.fusion.network import build_network

    loaded = load_weights(path)
    build_network(loaded.manifest.architecture)
    return True


def _read_settings(path: Path) -> object:
    from training.config_file import read_config

    return read_config(path).data.source


@cache
def _cohort() -> dict[str, bytes]:
    """Return the files of a cohort of one case with decisions, the same ones in every run."""
    pair = make_pair(seed=1, spacing_mm=12.0)
    result = fuse(pair.ct, pair.mri, transform=pair.transform, check=False)
    made = replace(result.provenance, date="2020-01-01T00:00:00", timings_s={}, registration_timings_s={})
    result = replace(result, provenance=made)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "a"
        folder.mkdir()
        files = write_case(result, pair.mri, folder)
        sign_result(folder, "approve", "A. Surgeon", "seen")
        path = folder / "result.json"
        document = json.loads(path.read_bytes())
        document["provenance"]["timings_s"], document["decisions"][0]["date"] = {}, "2020-01-01T00:00:00Z"
        path.write_text(json.dumps(document), encoding="utf-8")
        sums = {file.name: content_sha256(file) for file in files.values()}
        seal = Seal(result.request, None, (), version="0", files=sums, row=Row.of("a", result), thumbnail="/9j/4AAQ")
        (folder / SEAL).write_text(json.dumps(to_document(seal)), encoding="utf-8")
        line = dict.fromkeys(COLUMNS, "") | {
            "date": "2020-01-01T00:00:00Z",
            "case": "a",
            "action": "comment",
            "name": "B",
        }
        found = {f"a/{file.name}": file.read_bytes() for file in folder.iterdir() if file.is_file()}
    row = Row("b", "failed", error="no such file").cells()
    return found | {
        "review.tsv": format_csv([line], COLUMNS, delimiter="\t").encode(),
        "cohort.tsv": format_csv([row], delimiter="\t").encode(), OVERVIEW: b"<title>BrainFusion: cohort</title>",
    }  # fmt: skip


def _planted(random: Random, content: bytes, script: str) -> bytes:
    """Put a script into a text: into a value of JSON, a cell of a table, or anywhere in a page."""
    try:
        document = json.loads(content)
    except ValueError:
        at = int(random.integers(len(content) + 1))
        return content[:at] + script.encode() + content[at:]
    places = list(_places(document))
    holder, key = places[random.integers(len(places))]
    holder[key] = script
    return json.dumps(document).encode()


def _places(value: Any) -> Any:
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(below)


def _review(folder: Path) -> object:
    """Make all pages of a cohort's folder; return the names of the cases with a result that can be read.

    Raises
    ------
    AssertionError
        A script stands in a page.
    """
    cases = find_cases(folder)
    states, readable = States(folder), []
    pages = [list_page(cases, states)]
    for number, case in enumerate(cases, 1):
        pages.append(case_page(cases, number, folder, states, "secret"))
        if case.record is not None:
            record_of_case = read_record(case.record)
            read_standings(case.record)
            readable.append(case.name)
            assert record_of_case.verdict is not None
    read_lines(folder)
    decisions_in(folder)
    refresh_overview(cases, folder)
    pages.append((folder / OVERVIEW).read_text(encoding="utf-8", errors="replace"))
    for page in pages:
        for trace in _TRACES:
            assert trace not in page, f"{trace} stands in a page"
    return readable


MAKERS = (points, landmarks, manifest, weights, settings, record)
