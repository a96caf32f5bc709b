"""The review of a cohort in the browser: who is let in, what is shown, and what becomes of decisions."""

from __future__ import annotations

import csv
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from BrainFusionLib.case import to_document
from BrainFusionLib.cli.main import main
from BrainFusionLib.cohort.decided import COLUMNS, Line, add_line, only_reviewer, read_lines
from BrainFusionLib.cohort.one_case import SEAL, Seal
from BrainFusionLib.cohort.review_server import POLICY, ReviewServer
from BrainFusionLib.cohort.reviewed import Changed, decide_on, decisions_in, find_cases, look_at, refresh_overview
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.cohort.running import table
from BrainFusionLib.cohort.states import States
from BrainFusionLib.errors import BrainFusionError, ImageFileError, RecordError, SettingsError
from BrainFusionLib.folder import write_case
from BrainFusionLib.io import write_json
from BrainFusionLib.report.contents import report_contents
from BrainFusionLib.report.decisions import with_decisions
from BrainFusionLib.signing import content_sha256, sign_result
from BrainFusionLib.verdict.judge import Verdict
from Testing.browser import chromium
from Testing.report_case import AMBER, FINDING, judged, result_of, small_head

EVIL = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>"
TWO_PATIENTS = "the DICOM headers give different patient IDs"
RED = Verdict("red", (replace(FINDING, level="red", text=EVIL),))


def add_case(folder: Path, name: str, verdict: Verdict, notes: tuple[str, ...] = ()) -> None:
    """Write a case as the cohort does, with its seal."""
    head = small_head()
    result = replace(judged(result_of(*head), verdict), notes=notes)
    (folder / name).mkdir()
    files = list(write_case(result, head[2], folder / name).values())
    sums = {path.name: content_sha256(path) for path in files}
    made = Row.of(name, result)
    seal = Seal(result.request, None, (), version="0", files=sums, row=made, thumbnail="/9j/4AAQ")
    write_json(to_document(seal), folder / name / SEAL)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of an amber, a red and a refused case, a broken one, and things that should not be found."""
    folder = tmp_path_factory.mktemp("cohort")
    add_case(folder, "amber", AMBER)
    add_case(folder, "red", RED, (TWO_PATIENTS, EVIL))
    (folder / "broken").mkdir()
    (folder / "broken" / "result.json").write_text("{", encoding="utf-8")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "result.json").write_text("{", encoding="utf-8")
    (folder / "elsewhere").symlink_to(tmp_path_factory.mktemp("other"), target_is_directory=True)
    rows = [Row("gone", "refused", error=f"=could not be aligned {EVIL}")]
    (folder / "cohort.tsv").write_text(table(rows), encoding="utf-8")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "cohort", symlinks=True))


def case_named(folder: Path, name: str) -> Any:
    return next(case for case in find_cases(folder) if case.name == name)


def decide(folder: Path, name: str, action: Any, comment: str = "", mark: str | None = None) -> None:
    case = case_named(folder, name)
    decide_on(case, folder, action, "A. Surgeon", comment, look_at(case, folder).mark if mark is None else mark)


def test_the_worst_cases_come_first_and_links_and_hidden_folders_are_not_cases(folder: Path) -> None:
    assert [case.name for case in find_cases(folder)] == ["broken", "gone", "red", "amber"]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ImageFileError, match="Give the folder"):
            find_cases(path)


def test_decisions_go_into_the_table_and_into_the_result(folder: Path) -> None:
    decide(folder, "amber", "approve", '=cmd("x")\tof\nmany lines')
    decide(folder, "gone", "reject", "as expected")
    with (folder / "review.tsv").open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream, delimiter="\t")
    assert (first["case"], first["action"], first["verdict"]) == ("amber", "approve", "amber")
    assert first["comment"] == '\'=cmd("x") of many lines'
    assert first["result_sha256"]
    assert (second["case"], second["verdict"], second["result_sha256"]) == ("gone", "refused", "")
    seen = look_at(case_named(folder, "amber"), folder)
    assert (seen.state, seen.problem) == ("approved", "")
    assert seen.standings[0].decision.comment == '=cmd("x") of\nmany lines'
    assert look_at(case_named(folder, "gone"), folder).state == "rejected"
    assert [line.name for line in read_lines(folder)] == ["A. Surgeon", "A. Surgeon"]


def test_the_cohorts_page_shows_what_was_decided_and_what_is_void_by_now(folder: Path) -> None:
    page = folder / "cohort.html"
    refresh_overview(find_cases(folder), folder)
    assert not page.exists()
    page.write_text("of the run", encoding="utf-8")
    refresh_overview(find_cases(folder), folder)
    assert ">decision<" not in page.read_text(encoding="utf-8")
    decide(folder, "amber", "approve", EVIL)
    decide(folder, "red", "reject")
    decide(folder, "red", "comment", "run it again")
    refresh_overview(find_cases(folder), folder)
    text = page.read_text(encoding="utf-8")
    assert re.search(r"Approved by A. Surgeon, [^<]*: &lt;script&gt;", text)
    assert re.search(r"Rejected by A. Surgeon, [^<;]*; Comment by A. Surgeon, [^<;]*: run it again", text)
    assert 'href="./amber/report.html"' in text
    assert EVIL not in text
    record = folder / "amber" / "result.json"
    record.write_text(
        record.read_text(encoding="utf-8").replace('"device": "cpu"', '"device": "cuda"'), encoding="utf-8"
    )
    assert decisions_in(folder)["amber"].startswith("Void: Approved by")


@pytest.mark.parametrize("now", ["another result", "no result"])
def test_a_decision_is_not_shown_with_another_patients_case_of_that_name(folder: Path, now: str) -> None:
    decide(folder, "amber", "reject", "not this patient")
    shutil.rmtree(folder / "amber")
    if now == "another result":
        add_case(folder, "amber", RED)
    else:
        (folder / "cohort.tsv").write_text(table([Row("amber", "refused", error="no pose")]), encoding="utf-8")
    case = case_named(folder, "amber")
    seen = look_at(case, folder)
    assert (seen.lines, seen.state, States(folder).of([case])) == ((), "unsigned", ["unsigned"])
    assert "amber" not in decisions_in(folder)
    assert len(read_lines(folder)) == 1


def test_the_cohorts_page_says_void_when_voxels_were_changed(folder: Path) -> None:
    decide(folder, "amber", "approve")
    states, cases = States(folder), [case_named(folder, "amber")]
    assert states.of(cases) == ["approved"]
    (folder / "amber" / "fused.nii.gz").touch()  # nothing has changed
    assert states.of(cases) == ["approved"]
    (folder / "amber" / "fused.nii.gz").write_bytes(b"others")
    assert states.of(cases) == ["void"]
    assert decisions_in(folder)["amber"].startswith("Void: Approved by")


def test_a_folder_named_like_a_script_is_a_folder_on_the_cohorts_page(folder: Path) -> None:
    (folder / "amber").rename(folder / "javascript:alert(1)")
    (folder / "cohort.html").write_text("of the run", encoding="utf-8")
    refresh_overview(find_cases(folder), folder)
    assert 'href="./javascript:alert(1)/report.html"' in (folder / "cohort.html").read_text(encoding="utf-8")


def test_a_report_with_two_places_for_decisions_is_not_changed() -> None:
    place = "<!-- decisions -->"
    assert with_decisions(f"{place} a {place} b <!-- end of decisions -->", ()) is None
    assert with_decisions(f"{place} a <!-- end of decisions --> b <!-- end of decisions -->", ()) is None


def test_nobody_decides_on_what_is_not_shown(folder: Path) -> None:
    mark = look_at(case_named(folder, "amber"), folder).mark
    sign_result(folder / "amber", "reject", "B. Physicist")
    with pytest.raises(Changed, match="look at it again"):
        decide(folder, "amber", "approve", mark=mark)
    assert read_lines(folder) == []


@pytest.mark.parametrize("name", ["broken", "gone"])
def test_what_has_no_result_is_not_approved(folder: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be approved"):
        decide(folder, name, "approve")
    decide(folder, name, "comment", "run again")
    decide(folder, name, "reject")
    assert (
        States(folder).of([case_named(folder, name)])
        == [look_at(case_named(folder, name), folder).state]
        == ["rejected"]
    )


def test_a_result_that_was_changed_after_it_was_made_is_not_approved(folder: Path) -> None:
    (folder / "red" / "ct_to_mri.tfm").write_text("#Insight Transform File V1.0\n", encoding="utf-8")
    case = case_named(folder, "red")
    assert look_at(case, folder).problem.startswith("changed since the result was made: ct_to_mri.tfm")
    with pytest.raises(SettingsError, match="cannot be approved"):
        decide(folder, "red", "approve")


LINE = Line("2026-01-01T00:00:00Z", "a", "comment", "+A", "-1", "red", "0")


def test_lines_survive_a_killed_writer_and_many_processes(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom BrainFusionLib.cohort.decided import *\n"
        "for n in range(8):\n with only_reviewer(Path(sys.argv[1])):\n"
        "  add_line(Path(sys.argv[1]), Line('', sys.argv[2], 'comment', 'A', str(n), '', ''))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "bc"]
    assert [process.wait(60) for process in running] == [0, 0]
    with (tmp_path / "review.tsv").open("a", encoding="utf-8") as stream:
        stream.write("cut\tshort")
    with only_reviewer(tmp_path):
        add_line(tmp_path, LINE)
    lines = read_lines(tmp_path)
    assert lines[-1] == LINE
    for name in "bc":
        assert [line.comment for line in lines if line.case == name] == [str(n) for n in range(8)]
    assert (tmp_path / "review.tsv").read_text(encoding="utf-8").count("\t".join(COLUMNS)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_table_that_leads_out_of_the_cohort_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "review.tsv").symlink_to(tmp_path / "other")
    with pytest.raises(ImageFileError, match="cannot be written"):
        add_line(tmp_path / "cohort", LINE)
    with pytest.raises(RecordError, match="is a link"):
        read_lines(tmp_path / "cohort")
    assert not (tmp_path / "other").exists()


# --- what is taken from a report -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report(written: Path) -> str:
    return (written / "amber" / "report.html").read_text(encoding="utf-8")


def test_pictures_and_volumes_of_a_report_are_found(report: str) -> None:
    contents = report_contents(report)
    assert len(contents.pictures) == 9
    assert [picture.edges is not None for picture in contents.pictures] == 3 * [True] + 6 * [False]
    assert contents.pictures[0].letters == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    assert contents.viewer is not None
    assert contents.viewer.mri.name == "MRI"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"size": [', '"size": [1, '),
        ('"step_mm": ', '"step_mm": "1"+'),
        ('"grey": "', '"grey": "</script>'),
        ('"grey": "', '"grey": "AAAA'),
        ('"name": "MRI"', '"name": ["MRI"]'),
        ('"centre": [', '"centre": [-1, '),
        ('"worst": ', '"worst": {}, "other": '),
        ('"local": [', '"local": [{}, '),
    ],
)
def test_a_report_with_other_data_has_no_viewer(report: str, old: str, new: str) -> None:
    assert old in report
    assert report_contents(report.replace(old, new, 1)).viewer is None


@pytest.mark.parametrize(
    "figure",
    [
        f'<figure class="picture"><img src="x" onerror="alert(1)">{EVIL}</figure>',
        '<figure class="picture"><img src="data:image/svg+xml;base64,AAAA"></figure>',
        '<figure class="picture"><img src=\'data:image/png;base64,AAAA" onload="alert(1)\'></figure>',
        '<figure class="picture"><img src="https://example.org/x.png"></figure>',
        '<img src="data:image/png;base64,AAAA">',
        "<" * 3000,
    ],
)
def test_only_pictures_are_taken_from_a_page(figure: str) -> None:
    assert report_contents(figure).pictures == ()


# --- the server ----------------------------------------------------------------------------------------------------


class Client:
    """Asks the server over the network, as anybody could."""

    def __init__(self, server: ReviewServer) -> None:
        self.server = server
        self.host = f"127.0.0.1:{server.server_port}"

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None:
            headers = {"Content-Length": str(len(body.encode())), **headers}
        for name, value in {"Host": self.host, **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders(None if body is None else body.encode())
        answer = connection.getresponse()
        told = answer.status, answer.read().decode(), answer.headers
        connection.close()
        return told

    @property
    def let_in(self) -> dict[str, str]:
        return {"Cookie": f"{self.server.cookie_name}={self.server.secrets.cookie}"}

    @property
    def trusted(self) -> dict[str, str]:
        return {
            **self.let_in,
            "Origin": self.server.origin,
            "Content-Type": "application/json",
            "X-BrainFusion-Secret": self.server.secrets.decisions,
        }

    def case(self, name: str) -> str:
        numbers = {case.name: number for number, case in enumerate(self.server.cases, 1)}
        return f"/case/{numbers[name]}"

    def mark(self, name: str) -> str:
        found = re.search('data-mark="(.*?)"', self.ask("GET", self.case(name), **self.let_in)[1])
        assert found
        return found[1]

    def decide(self, case: str, seen: str, /, **changed: Any) -> tuple[int, str, Any]:
        asked = {"action": "approve", "name": "A. Surgeon", "comment": "", "mark": seen, **changed}
        return self.ask("POST", self.case(case), json.dumps(asked), **self.trusted)


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with ReviewServer(folder.resolve(), find_cases(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Client(server)
        server.shutdown()
        thread.join()


def test_the_token_is_exchanged_for_a_cookie_and_nothing_else_lets_in(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    status, _, headers = client.ask("GET", f"/?token={client.server.secrets.token}")
    assert status == 303
    assert headers["Location"] == "/"
    assert "HttpOnly; SameSite=Strict" in headers["Set-Cookie"]
    assert client.server.secrets.token not in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, page, headers = client.ask("GET", "/", Cookie=cookie)
    assert status == 200
    assert "review of 4 cases" in page
    assert headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    name = client.server.cookie_name
    for path, headers in (
        ("/", {}),
        ("/review.js", {}),
        ("/?token=", {}),
        ("/?token=wrong", client.let_in),
        ("/?token=\u00e9", {}),
        (f"/?token={client.server.secrets.token}&token=x", {}),
        ("/", {"Cookie": f"{name}=wrong"}),
        ("/", {"Cookie": f"{name}="}),
        ("/", {"Cookie": f"other={client.server.secrets.cookie}"}),
        ("/case/1", {"Cookie": f"{name}={client.server.secrets.token}"}),
    ):
        status, words, _ = client.ask("GET", path.encode().decode("latin-1").replace("\xc3\xa9", "%C3%A9"), **headers)
        assert status in (403, 404), (path, headers)
        assert words.endswith(".")
        assert "cohort" not in words


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
        {"Host": "localhost.evil.example:80"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_hosts_and_pages_get_nothing(client: Client, headers: dict[str, str]) -> None:
    for path in ("/", f"/?token={client.server.secrets.token}", "/style.css"):
        status, words, told = client.ask("GET", path, **{**client.let_in, **headers})
        assert status == 403
        assert words.endswith(".")
        assert told["Set-Cookie"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/amber/result.json", "/cohort.tsv", "/review.tsv", "/../cohort.tsv", "/case/../../etc/passwd", "/.hidden/",
        "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/case/0", "/case/5", "/case/99999999999", "/case/1/", "/case/-1",
        "/case/%31", "/elsewhere/", "/review.js/..", "/?x=1", "/static/../viewer.js", "/report.html", "/\\etc\\passwd",
        "http://evil.example/",
    ],
)  # fmt: skip
def test_nothing_but_the_pages_is_served(client: Client, path: str) -> None:
    status, words, _ = client.ask("GET", path, **client.let_in)
    assert status == 404 or (path.startswith("http") and "review of 4 cases" in words)
    assert "root:" not in words


def test_an_address_that_is_none_is_no_fault(client: Client) -> None:
    assert client.ask("GET", "http://[::1/", **client.let_in)[0] == 404


def test_cookies_of_others_whatever_they_hold_do_not_hide_ours(client: Client) -> None:
    """Python's own parser stops at what it does not know, and takes minutes for many quotes."""
    cookie = client.let_in["Cookie"]
    for other in ('a="\\"', "{}; b", "=;;"):
        assert client.ask("GET", "/", Cookie=f"{other}; {cookie}")[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_refused(client: Client, method: str) -> None:
    assert client.ask(method, "/", **client.let_in)[0] == 501


def test_pages_show_planted_markup_as_text(client: Client) -> None:
    for name in ("red", "gone", "amber", "broken"):
        status, page, _ = client.ask("GET", client.case(name), **client.let_in)
        assert status == 200
        assert "owned'</script>" not in page
        assert re.findall(r"<script[^>]*>", page) == [
            *(['<script type="application/json" id="viewer-data">', '<script src="/viewer.js">'] if "viewer" in page
              else []),
            '<script src="/review.js">',
        ]  # fmt: skip
        assert not re.search(r"\son\w+=", re.sub(r"&lt;.*?&gt;", "", page))
    assert "/viewer.js" in client.ask("GET", client.case("amber"), **client.let_in)[1]
    assert EVIL not in client.ask("GET", "/", **client.let_in)[1]


def test_the_notes_of_a_case_stand_beside_its_verdict_and_in_the_list(client: Client) -> None:
    red, amber = (client.ask("GET", client.case(name), **client.let_in)[1] for name in ("red", "amber"))
    box = red[red.index('<section class="verdict') :]
    assert TWO_PATIENTS in box[: box.index("</section>")]
    assert TWO_PATIENTS not in amber
    assert TWO_PATIENTS in client.ask("GET", "/", **client.let_in)[1]


def test_two_tabs_do_not_decide_on_each_others_case(client: Client, folder: Path) -> None:
    first = second = client.mark("amber")
    assert client.decide("amber", first)[:2] == (200, "Approved.")
    status, words, _ = client.decide("amber", second, action="reject")
    assert status == 409
    assert "look at it again" in words
    assert client.decide("amber", client.mark("amber"), action="reject")[0] == 200
    assert [line.action for line in read_lines(folder)] == ["approve", "reject"]
    page = client.ask("GET", "/", **client.let_in)[1]
    assert "1 rejected, 3 without a decision" in page


def test_the_list_says_when_a_decision_is_void(client: Client, folder: Path) -> None:
    client.decide("amber", client.mark("amber"))
    path = folder / "amber" / "result.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"device": "cpu"', '"device": "cuda"'), encoding="utf-8")
    assert "1 void" in client.ask("GET", "/", **client.let_in)[1]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": ""}, 403),
        ({"Cookie": ""}, 403),
        ({"X-BrainFusion-Secret": "x"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Length": "64001"}, 413),
        ({"Content-Length": "-1"}, 413),
        ({"Transfer-Encoding": "chunked"}, 415),
    ],
)
def test_decisions_are_taken_from_the_page_only(
    client: Client, folder: Path, changed: dict[str, str], status: int
) -> None:
    asked = {"action": "approve", "name": "A", "comment": "", "mark": client.mark("amber")}
    found, words, _ = client.ask("POST", client.case("amber"), json.dumps(asked), **{**client.trusted, **changed})
    assert found == status
    assert words.endswith(".")
    assert read_lines(folder) == []


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"name": "  "}, 422),
        ({"name": 7}, 400),
        ({"action": "delete"}, 400),
        ({"path": "/etc/passwd"}, 400),
        ({"comment": "x" * 4001}, 422),
        ({"mark": "other"}, 409),
    ],
)
def test_a_wrong_decision_is_refused(client: Client, folder: Path, changed: dict[str, Any], status: int) -> None:
    assert client.decide("amber", client.mark("amber"), **changed)[0] == status
    for body in ("", "[]", "{", "[" * 60_000):
        assert client.ask("POST", client.case("amber"), body, **client.trusted)[0] == 400
    assert read_lines(folder) == []


def test_a_port_in_use_is_refused(client: Client, folder: Path) -> None:
    for port in (client.server.server_port, 70_000):
        with pytest.raises(BrainFusionError, match="Give another one"):
            ReviewServer(folder, client.server.cases, port)


def test_a_page_that_cannot_be_written_at_the_end_loses_no_word(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(server: ReviewServer, poll_interval: float) -> None:
        raise KeyboardInterrupt

    def full(cases: object, folder: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(ReviewServer, "serve_forever", interrupted)
    monkeypatch.setattr("BrainFusionLib.cli.review.refresh_overview", full)
    assert main(["review", str(folder), "--no-browser"]) == 130
    said = capsys.readouterr()
    assert "Ended; all decisions are in" in said.out + said.err
    assert "cohort.html does not show them all: No space left on device" in said.out + said.err


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent there")
def test_ctrl_c_ends_the_command_within_a_second(folder: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-m", "BrainFusionLib", "review", str(folder), "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert running.stdout is not None
    assert re.match(r"4 cases: http://127\.0\.0\.1:\d+/\?token=\S{40,}$", running.stdout.readline())
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)  # the watch in `stopping` would end it with the same code after 1.5 s
    assert running.returncode == 130
    assert "Traceback" not in said


# --- in a browser --------------------------------------------------------------------------------------------------


IS_SEEN = """const box = document.getElementById("said").getBoundingClientRect();
return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight;"""


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cohort_is_reviewed_by_the_keyboard(client: Client, folder: Path) -> None:
    browser = chromium("browser")
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    try:
        wait = WebDriverWait(browser, 20, 0.05, [StaleElementReferenceException, NoSuchElementException])

        def press(key: str, until: str) -> None:
            browser.find_element("css selector", "body").send_keys(key)
            wait.until(lambda _: until in browser.find_element("css selector", "body").text)
            wait.until(lambda _: browser.execute_script("return document.readyState") == "complete")

        browser.get(client.server.address)
        assert "token" not in browser.current_url
        press("n", "case 1 of 4")
        press("r", "Enter your name first.")
        browser.find_element("id", "name").send_keys("A. Surgeon", Keys.ESCAPE)
        press("n", "case 2 of 4")
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        press("a", "This case cannot be approved: '=could not be aligned")
        press("r", "Rejected by A. Surgeon")
        press("n", "case 3 of 4")
        assert browser.title == "BrainFusion review: red"
        assert EVIL in browser.find_element("css selector", ".verdict").text
        press("n", "case 4 of 4")
        browser.find_element("css selector", "#viewer[data-ready=yes]")
        press("v", "HU")
        assert browser.switch_to.active_element.get_attribute("id") == "view-axial"
        browser.switch_to.active_element.send_keys("c")
        browser.switch_to.active_element.send_keys(f"an approved one {EVIL}", Keys.ESCAPE)
        browser.execute_script("scrollTo(0, document.body.scrollHeight)")
        press("a", "Approved by A. Surgeon")
        wait.until(lambda _: browser.execute_script(IS_SEEN))
        assert EVIL in browser.find_element("id", "decisions").text
        press("p", "case 3 of 4")
        press("l", "1 approved, 1 rejected")
        assert [entry for entry in browser.get_log("browser") if entry["source"] != "rendering"] == []
    finally:
        browser.quit()
    assert [(line.case, line.action) for line in read_lines(folder)] == [("gone", "reject"), ("amber", "approve")]
