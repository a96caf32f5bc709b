"""Many cases: the manifest, the table, and what is left after any accident."""

import csv
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.cohort import dask_cluster
from BrainFusionLib import cli
from BrainFusionLib.cohort import memory, read_manifest, run_cohort, running
from BrainFusionLib.cohort.one_case import SEAL
from BrainFusionLib.cohort.overview import overview
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.errors import ImageFileError, SettingsError
from BrainFusionLib.fusion.weights import Manifest, save_weights
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, SearchPass, Settings
from Testing.report_case import FINDING, result_of, small_head
from tools.make_cohort import make_cohort

ROOT = Path(__file__).parents[1]
QUICK = Settings(
    registration=RegistrationSettings(passes=(SearchPass(40, 8),), samples=10_000),
    fusion=FusionSettings(rule="bone_over_mri"),
    device="cpu",
    threads=1,
)
COMMAND = ("--rule", "bone_over_mri", "--preset", "fast", "--device", "cpu", "--workers", "1")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two good pairs and two broken rows."""
    pytest.importorskip("torch", reason="torch is not installed")
    return make_cohort(tmp_path_factory.mktemp("cohort"), cases=4, spacing_mm=5.0)


@pytest.fixture(scope="module")
def plain(cohort, tmp_path_factory):
    """The folder of the cohort done by one process without an accident."""
    folder = tmp_path_factory.mktemp("plain")
    run_cohort(read_manifest(cohort)[0], folder, QUICK)
    return folder


def rows_of(folder):
    """Return the table without times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in table_of(folder)]


def table_of(folder):
    with (folder / "cohort.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_broken_rows_are_reported_and_others_are_done(cohort, tmp_path, capsys):
    assert cli.main(["cohort", str(cohort), "-o", str(tmp_path), *COMMAND]) == 1
    said = capsys.readouterr()
    assert "row 4 (missing): mri does not exist: not_there.nii.gz (looked in" in said.err
    assert "2 done, 1 failed; 1 problem in the cohort" in said.out
    table = {row["case"]: row for row in rows_of(tmp_path)}
    assert [row["status"] for row in table.values()] == ["done", "done", "failed", "failed"]
    assert table["row 4 (missing)"]["error"] == "mri does not exist"
    assert "is empty: every voxel is 0" in table["empty"]["error"]
    assert not (tmp_path / "empty").exists()
    for name in ("head00", "head01"):
        assert table[name]["verdict"] in ("green", "amber", "red")
        assert table[name]["reasons"] or table[name]["verdict"] == "green"
        assert (tmp_path / name / "report.html").exists()
    page = (tmp_path / "cohort.html").read_text(encoding="utf-8")
    places = [page.index(f'data-value="{name}"') for name in ("empty", "head00")]
    assert places == sorted(places), "what failed must come first"
    assert page.count("data:image/jpeg;base64,") == 2
    assert 'href="./head00/report.html"' in page
    assert not re.search(r"https?:|//\w|@import|url\(|<link|fetch\(", re.sub(r'base64,[^"]+', "", page))
    log = (tmp_path / "cohort.log").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[1] for line in log] == list(table)
    assert "is empty: every voxel is 0" in log[-2]
    assert "mri does not exist" in log[-1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    seconds = [row["seconds"] for row in table_of(tmp_path) if row["status"] == "done"]
    assert all(float(one) > 0 for one in seconds)
    assert cli.main(["cohort", str(cohort), "-o", str(tmp_path), *COMMAND]) == 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")} == before, (
        "done cases were done again"
    )
    assert {row["case"]: row for row in rows_of(tmp_path)} == table
    assert [row["seconds"] for row in table_of(tmp_path) if row["status"] == "done"] == seconds, "the case's own time"
    assert table_of(tmp_path)[-1]["seconds"] == "", "a broken row takes none"


def test_workers_of_a_script_without_a_guard_are_told_to_need_one(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from BrainFusionLib.cohort import Entry, run_cohort\n"
        "run_cohort([Entry(1, 'a', Path('ct.nii.gz'), Path('mri.nii.gz'))], 'results', workers=2)\n",
        encoding="utf-8",
    )
    for name in ("ct.nii.gz", "mri.nii.gz"):
        (tmp_path / name).write_bytes(b"to be read by a worker")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    said = ended.stderr
    assert 'if __name__ == "__main__":\n    run_cohort(…, workers=2)' in said
    assert said.count("Traceback") == 1, "the workers' own tracebacks say that another run is using the folder"


def test_the_reasons_of_a_case_end_with_its_notes():
    result = replace(result_of(*small_head()), notes=("two patient IDs",))
    assert Row.of("a", result).reasons == f"{FINDING.text}; two patient IDs"


def test_overview_gives_reasons_to_check_a_case():
    rows = [
        Row("a", "done", "green", reasons="nothing", seconds=1.0),
        Row("b", "done", "amber", 0.361, 1.04, reasons="two <refinements> ended 0.7 mm apart", seconds=1.0),
        Row("c", "failed", error="no head", seconds=1.0),
        Row("d", "refused", error="no pose stands out", seconds=1.0),
    ]
    page = overview(rows, {}, {"a": "a/report.html", "b": "b/report.html"})
    places = [page.index(words) for words in ("no head", "no pose", "two &lt;refinements&gt;", "a/report.html")]
    assert places == sorted(places)
    assert "no sign" not in page
    assert '<td data-value="0.361">0.4 (1.1)</td>' in page
    assert "1 green, 1 amber, 1 refused, 1 failed" in page


def test_no_expected_error_beside_red_in_the_overview():
    page = overview([Row("a", "done", "red", 0.21, local_errors_median_mm=3.2)], {})
    assert "0.21" not in page
    assert "expected error, mm;" not in page, "nor in the histogram"
    assert "local misalignment, median, mm; 1 case, median 3.2" in page
    for number in (1e308, -1.0, float("nan")):  # from a planted record
        assert "median, mm; " not in overview([Row("a", "done", "red", local_errors_median_mm=number)], {})


def test_markup_in_a_row_is_shown_as_text():
    evil = "\"'><script>alert(1)</script>"
    rows = [Row(evil, "done", "amber", reasons=evil), Row("b", "failed", error=evil)]
    page = overview(rows, {evil: evil}, {evil: evil})
    assert evil not in page
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;") >= 6


def test_dry_run_only_lists_cases_and_problems(cohort, tmp_path, capsys):
    assert cli.main(["cohort", str(cohort), "-o", str(tmp_path / "out"), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert "3 cases, 1 problem." in said.err
    assert "head01\t" in said.out
    assert not (tmp_path / "out").exists()


def test_a_killed_and_resumed_cohort_has_the_same_table(cohort, plain, tmp_path):
    entries, _ = read_manifest(cohort)
    command = [sys.executable, "-c", (
        "from Testing.test_cohort import *\n"
        f"run_cohort(read_manifest({str(cohort)!r})[0], {str(tmp_path / 'killed')!r}, QUICK)"
    )]  # fmt: skip
    for sign in (".cohort.lock", "*/.brainfusion-*", "head00/cohort-case.json"):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list((tmp_path / "killed").glob(sign)):
            time.sleep(0.001)
        process.kill()
        process.wait()
    run_cohort(entries, tmp_path / "killed", QUICK)
    assert rows_of(tmp_path / "killed") == rows_of(plain)
    whole, killed = (
        sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) for folder in (plain, tmp_path / "killed")
    )
    assert killed == whole


@pytest.mark.parametrize(
    "damage", ["a result is cut off", "a result is gone", "the seal is nonsense", "the input changed"]
)
def test_what_is_not_whole_is_done_again(cohort, plain, tmp_path, damage, monkeypatch):
    entries = [entry for entry in read_manifest(cohort)[0] if entry.case == "head00"]
    case = shutil.copytree(plain / "head00", tmp_path / "head00")
    if damage == "a result is cut off":
        (case / "fused.nii.gz").write_bytes(b"half")
    elif damage == "a result is gone":
        (case / "report.html").unlink()
    elif damage == "the seal is nonsense":
        (case / SEAL).write_text("[]", encoding="utf-8")
    else:
        entries = [read_manifest(cohort)[0][1].__class__(2, "head00", entries[0].ct, cohort.parent / "mri01.nii.gz")]
    done = []
    monkeypatch.setattr(
        "BrainFusionLib.cohort.running.fuse_case",
        lambda entry, folder, settings: done.append(entry.case) or Row(entry.case, "done", "green", seconds=1.0),
    )
    run_cohort(entries, tmp_path, QUICK)
    assert done == ["head00"]


def test_leftovers_of_a_killed_run_are_removed(cohort, tmp_path):
    entries = read_manifest(cohort)[0][:1]
    (tmp_path / "head00" / ".brainfusion-left").mkdir(parents=True)
    killed = "import sys; from pathlib import Path; from BrainFusionLib.io.leftovers import temporary_beside\n"
    killed += "[temporary_beside(Path(name)).write_text('half') for name in sys.argv[1:]]"
    targets = [str(tmp_path / "cohort.tsv"), str(tmp_path / "head00" / "result.json")]
    subprocess.run([sys.executable, "-c", killed, *targets], check=True, cwd=ROOT)
    assert len(list(tmp_path.rglob(".tmp-*"))) == 2
    run_cohort(entries, tmp_path, QUICK)
    assert (tmp_path / "head00" / "result.json").exists()
    assert not (tmp_path / "head00" / ".brainfusion-left").exists()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_weights_count_by_their_content(cohort, tmp_path, monkeypatch):
    # Not at the top: the processes that are killed import this file, and torch takes a second.
    from BrainFusionLib.fusion.network import FusionNet, arrays_of

    entries = read_manifest(cohort)[0][:1]
    places = [tmp_path / "a" / "weights.npz", tmp_path / "b" / "weights.npz", tmp_path / "c" / "other.npz"]
    for place, seed in zip(places, (1, 2, 1), strict=True):
        network = FusionNet(width=1, seed=seed)
        manifest = Manifest({"name": "fusion_net", "width": 1}, "none", "none")
        place.parent.mkdir()
        save_weights(place, arrays_of(network), manifest)
    first, retrained, copied = (replace(QUICK, fusion=FusionSettings(weights=str(place))) for place in places)
    run_cohort(entries, tmp_path / "out", first)
    monkeypatch.setattr("BrainFusionLib.cohort.running.fuse_case", lambda entry, *_: Row(entry.case, "done", "red"))
    assert run_cohort(entries, tmp_path / "out", copied)[0].verdict != "red", "the same weights of another name"
    assert run_cohort(entries, tmp_path / "out", retrained)[0].verdict == "red", "other weights of the same name"


def test_two_workers_give_the_results_of_one(cohort, plain, tmp_path):
    run_cohort(read_manifest(cohort)[0], tmp_path, QUICK, workers=2)
    assert rows_of(tmp_path) == rows_of(plain)


@pytest.mark.parametrize("readers", [1, 3])
def test_reading_ahead_gives_the_same_results(cohort, plain, tmp_path, monkeypatch, readers):
    """As on a graphics card."""
    entries, _ = read_manifest(cohort)
    monkeypatch.setattr(running, "pick_device", lambda device: SimpleNamespace(type="cuda"))
    waiting, most, readings = [0], [0], running.read

    def read(entry):
        waiting[0] += 1
        most[0] = max(most[0], waiting[0])
        return readings(entry)

    def fused(entry, inputs, settings, work=running.fused):
        waiting[0] -= 1
        return work(entry, inputs, settings)

    monkeypatch.setattr(running, "read", read)
    monkeypatch.setattr(running, "fused", fused)
    run_cohort(entries, tmp_path, QUICK, workers=readers)
    assert rows_of(tmp_path) == rows_of(plain)
    assert most[0] <= readers + 1


def test_ctrl_c_stops_computing_and_reading(cohort, tmp_path, monkeypatch):
    entries, _ = read_manifest(cohort)
    monkeypatch.setattr(running, "pick_device", lambda device: SimpleNamespace(type="cuda"))

    def stop(entry, inputs, settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "fused", stop)
    with pytest.raises(KeyboardInterrupt):
        run_cohort(entries, tmp_path, QUICK)
    assert not (tmp_path / "head00").exists()


def test_workers_fit_the_memory_and_the_cores(cohort, monkeypatch):
    pytest.importorskip("psutil", reason="psutil is not installed: pip install 'brainfusion[cohort]'")
    entries, _ = read_manifest(cohort)
    assert memory.free_bytes() > 100e6
    needed = memory.bytes_needed(entries[0])
    assert memory.BASE_BYTES < needed < memory.BASE_BYTES + 20e6
    monkeypatch.setattr(memory, "cores", lambda: 64)
    for free, workers in ((0.5 * needed, 1), (2.9 * needed / memory.SHARE, 2), (99 * needed, len(entries))):
        monkeypatch.setattr(memory, "free_bytes", lambda free=free: free)
        assert memory.workers_that_fit(entries) == (workers, needed)
    monkeypatch.setattr(memory, "cores", lambda: 2)
    assert memory.workers_that_fit(entries) == (2, needed)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_killed_worker_loses_no_case(cohort, plain, tmp_path):
    entries = read_manifest(cohort)[0]
    killed = []

    def tell(row, done, total):
        if not killed:
            import multiprocessing

            child = multiprocessing.active_children()[0]
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    rows = run_cohort(entries, tmp_path, QUICK, workers=2, report=tell)
    assert killed
    assert [row.status for row in rows] == [row["status"] for row in rows_of(plain) if "missing" not in row["case"]]


def test_a_second_run_in_the_same_folder_is_refused(cohort, tmp_path):
    entries = read_manifest(cohort)[0][:1]

    def tell(row, done, total):
        with pytest.raises(SettingsError, match="another run is using this folder"):
            run_cohort(entries, tmp_path, QUICK)

    run_cohort(entries, tmp_path, QUICK, report=tell)
    run_cohort(entries, tmp_path, QUICK)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,ct\na,b\n", "the first line must name the columns: case, ct, mri"),
        ("\x1f\x8b\0\0", "is not a table .it is not text.. Give a CSV"),
        ("case,ct,mri,colour\n", "It has case, ct, mri, colour"),
        ("case,ct,mri\n", "lists no case"),
        ("", "is empty"),
    ],
)
def test_table_that_is_not_a_manifest_is_rejected(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ImageFileError, match=words):
        read_manifest(tmp_path / "m.csv")
    assert cli.main(["cohort", str(tmp_path / "m.csv"), "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("start", "encoding"), [("sep=;\r\n", "utf-8-sig"), ("", "utf-16"), ("SEP=;\n", "utf-16")])
def test_tables_are_read_as_spreadsheets_write_them(tmp_path, start, encoding):
    for name in ("c.nii", "m.nii"):
        (tmp_path / name).write_bytes(b"")
    rows = ["case;ct;mri", "a;c.nii;m.nii", "dot.;c.nii;m.nii", 'open;"c.nii;m.nii', 'end;c.nii";m.nii']
    (tmp_path / "m.csv").write_bytes((start + "\r\n".join(rows)).encode(encoding))
    entries, problems = read_manifest(tmp_path / "m.csv")
    first = 2 if start else 1
    assert [(entry.case, entry.row) for entry in entries] == [("a", first + 1)]
    assert [f"row {first + n}" in problem.where for problem, n in zip(problems, (2, 4), strict=True)] == [True, True]
    assert "'.' neither first nor last" in problems[0].reason
    assert "goes over several lines: check its quotes" in problems[1].reason


def test_tilde_in_a_table_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("c.nii", "m.nii", "t.tfm"):
        (tmp_path / "home" / name).write_bytes(b"")
    rows = ["case,ct,mri,transform", "a,~/c.nii,~/m.nii,~/t.tfm", "b,~nobody-of-that-name/c.nii,~/m.nii,"]
    (tmp_path / "m.csv").write_text("\n".join(rows))
    (entry,), (problem,) = read_manifest(tmp_path / "m.csv")
    assert (entry.ct, entry.transform) == (tmp_path / "home/c.nii", tmp_path / "home/t.tfm")
    assert "ct does not exist" in problem.reason


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_every_problem_is_reported_with_its_row(tmp_path, delimiter):
    for name in ("c.nii", "m.nii"):
        (tmp_path / name).write_bytes(b"")
    rows = [
        "case,ct,mri", "good,c.nii,m.nii", "../evil,c.nii,m.nii", ".hidden,c.nii,m.nii", "GOOD,c.nii,m.nii",
        ",c.nii,m.nii",
        "gone,x.nii,m.nii", "same,c.nii,c.nii", "con,c.nii,m.nii", "",
    ]  # fmt: skip
    text = "\r\n".join(rows).replace(",", delimiter)
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    entries, problems = read_manifest(tmp_path / "m.csv")
    assert [(entry.case, entry.row) for entry in entries] == [("good", 2)]
    told = "\n".join(map(str, problems))
    for words in (
        "row 3: a case's name is used for its folder",
        "; got ../evil", "row 4: ", "row 5 (GOOD): row 2 has the same case name",
        "row 6: case is empty", "row 7 (gone): ct does not exist: x.nii", "row 8 (same): CT and MRI are the same file",
        "row 9: ",
    ):  # fmt: skip
        assert words in told


@pytest.mark.parametrize(
    ("what", "code"), [("all good", 0), ("a broken row", 1), ("no manifest", 2), ("a fault", 1), ("--help", 0)]
)
def test_slicer_batch_script_returns_the_exit_code(cohort, tmp_path, monkeypatch, capsys, what, code):
    manifest = cohort.with_name(f"{code}.csv")
    rows = ["case,ct,mri", "head00,ct00.nii.gz,mri00.nii.gz", *["gone,ct00.nii.gz,gone.nii.gz"] * code]
    manifest.write_text("\n".join(rows), encoding="utf-8")
    words = {"no manifest": ["--", str(tmp_path / "none.csv"), "-o", str(tmp_path)], "--help": ["--help"]}.get(
        what, ["--", str(manifest), "-o", str(tmp_path / "out"), *COMMAND]
    )
    script = str(ROOT / "BrainFusion" / "BrainFusionSlicer" / "batch.py")
    if what == "a broken row":
        # As in Slicer, whose MRML is loaded then; where slicer-core is not installed, without it.
        run = (
            "import importlib.util, runpy, sys\nif importlib.util.find_spec('slicer'): import slicer\n"
            f"sys.argv = {[script, *words]!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return
    if what == "a fault":
        monkeypatch.setattr(cli, "main", None)
    monkeypatch.setattr(sys, "argv", [script, *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(script, run_name="__main__")
    assert end.value.code == code
    assert ("Traceback" in capsys.readouterr().err) == (what == "a fault")


@pytest.mark.filterwarnings("ignore")  # Dask's own, and the sockets of the worker that is killed
@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_killed_dask_worker_gives_the_same_table(cohort, plain, tmp_path):
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'brainfusion[cohort]'")
    entries = read_manifest(cohort)[0]
    killed = []
    with dask_cluster(workers=2) as (address, workers):

        def tell(row, done, total):
            if not killed:
                killed.append(workers[0].pid)
                os.killpg(workers[0].pid, signal.SIGKILL)

        run_cohort(entries, tmp_path, QUICK, scheduler=address, report=tell)
    assert killed
    assert rows_of(tmp_path) == rows_of(plain)


def test_case_on_dask_stops_when_its_run_is_gone(tmp_path, monkeypatch):
    tasks = {"case": SimpleNamespace(state="executing")}
    worker = SimpleNamespace(get_current_task=lambda: "case", state=SimpleNamespace(tasks=tasks))
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(get_worker=lambda: worker))
    monkeypatch.setattr(running, "fuse_case", lambda entry, folder, settings, cancel: cancel)
    cancel = running._fuse_on_dask(None, tmp_path, QUICK)
    assert not cancel()
    tasks["case"].state = "cancelled"
    assert cancel()
    tasks.clear()
    assert cancel()


def free_address() -> str:
    """Return an address on this machine at which nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{free.getsockname()[1]}"


def test_unreachable_scheduler_is_an_error(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "SCHEDULER_ANSWERS_S", 0.5)
    pytest.importorskip("distributed", reason="distributed is not installed: pip install 'brainfusion[cohort]'")
    with socket.socket() as silent:  # bound, and nobody listens
        silent.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(SettingsError, match="no Dask scheduler answers at this address"):
            run_cohort(read_manifest(cohort)[0], tmp_path, QUICK, scheduler=address)
