"""The server of the review of a cohort: on this machine only, for whoever has the address with its token.

It serves three files of this package, the pages that are made of a cohort's records, and nothing else; no name in a
request ever becomes a path. Every request must come from its own pages: the token or the cookie that it was exchanged
for, ``Host`` and ``Origin`` are checked, so that neither another user, nor a page of the web in the same browser, nor a
name that points to this machine gets anything.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from BrainFusionLib.case.codec import from_plain
from BrainFusionLib.case.decision import Action
from BrainFusionLib.cohort.review_pages import case_page, list_page
from BrainFusionLib.cohort.reviewed import Changed, decide_on
from BrainFusionLib.cohort.states import Case, States
from BrainFusionLib.errors import BrainFusionError, ImageFileError, RecordError
from BrainFusionLib.report.page import raw, style_sheet

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MOST_BYTES = 64_000
_CASE = re.compile(r"/case/([1-9]\d{0,6})")
# How long an open connection may be silent.
_SILENT_S = 30


@dataclass(frozen=True)
class Secrets:
    """The token of the printed address, the cookie that it is exchanged for, and what each decision has to carry."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    decisions: str = field(default_factory=lambda: secrets.token_urlsafe(32))


@dataclass(frozen=True)
class Asked:
    """A decision as the page sends it; `mark` is that of the case as it was shown."""

    action: Action
    name: str
    comment: str
    mark: str


class ReviewServer(ThreadingHTTPServer):
    """Serves the pages of one cohort.

    Parameters
    ----------
    folder
        Of the cohort's results.
    cases
        In the order in which they are shown.
    port
        0 for any that is free.

    Raises
    ------
    ImageFileError
        The port cannot be used.
    """

    daemon_threads = True
    # Another program on this port must not be mistaken for this one, nor answer in its place.
    allow_reuse_port = False
    allow_reuse_address = sys.platform != "win32"  # there it would let another program do that

    def __init__(self, folder: Path, cases: Sequence[Case], port: int = 0) -> None:
        self.folder, self.cases, self.secrets = folder, cases, Secrets()
        self.states, self.deciding = States(folder), threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ImageFileError(
                f"port {port} of this machine cannot be used ({error}). Give another one, or none for any that is free."
            ) from error

    @property
    def origin(self) -> str:
        """Where its pages are."""
        return f"http://{HOST}:{self.server_port}"

    @property
    def address(self) -> str:
        """The address to open, with the token."""
        return f"{self.origin}/?token={self.secrets.token}"

    @property
    def cookie_name(self) -> str:
        """The name of its cookie: browsers keep one jar for all ports of a machine."""
        return f"brainfusion-{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that closes a connection early is not an error."""


class _Refused(Exception):  # noqa: N818  (an answer)
    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = _SILENT_S

    def version_string(self) -> str:
        return "BrainFusion"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (http.server's name)
        """Keep quiet: addresses hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself refuses as everything else is answered."""
        self.close_connection = True
        self._answer(HTTPStatus(code), "This request cannot be answered.")

    def do_GET(self) -> None:
        self._guarded(self._get)

    def do_POST(self) -> None:
        self._guarded(self._post)

    def _guarded(self, act: Any) -> None:
        try:
            act()
        except _Refused as refused:
            self.close_connection = True  # what it may still be sending is not read
            self._answer(refused.status, refused.sentence)
        except BrainFusionError as error:
            self._answer(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception:
            self.close_connection = True
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of the program. Nothing was kept.")

    # --- who asks ---------------------------------------------------------------------------------------------------

    def _check_place(self) -> None:
        """Refuse requests that were sent to another name, or by a page of somebody else."""
        hosts = self.headers.get_all("Host") or []
        if hosts != [f"{HOST}:{self.server.server_port}"]:
            raise _Refused(HTTPStatus.FORBIDDEN, f"Open the page under {HOST}, by the address that was printed.")
        if any(origin != self.server.origin for origin in self.headers.get_all("Origin") or []):
            raise _Refused(HTTPStatus.FORBIDDEN, "Another page asked for this, and gets nothing.")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise _Refused(HTTPStatus.FORBIDDEN, "Another page asked for this, and gets nothing.")

    def _check_cookie(self) -> None:
        # Ours needs no quotes; Python's own parser takes minutes for some that have them.
        parts = [part.partition("=") for one in self.headers.get_all("Cookie") or [] for part in one.split(";")]
        values = [value for name, _, value in parts if name.strip() == self.server.cookie_name]
        if not any(_same(value.strip(), self.server.secrets.cookie) for value in values):
            raise _Refused(HTTPStatus.FORBIDDEN, "Open the address that brainfusion review printed, with its token.")

    # --- what is asked for ------------------------------------------------------------------------------------------

    def _get(self) -> None:
        self._check_place()
        path, _, query = self.path.partition("?")
        tokens = parse_qs(query).get("token", [])
        if path == "/" and tokens:
            if len(tokens) != 1 or not _same(tokens[0], self.server.secrets.token):
                raise _Refused(HTTPStatus.FORBIDDEN, "This token is not the one that was printed.")
            cookie = f"{self.server.cookie_name}={self.server.secrets.cookie}; HttpOnly; SameSite=Strict; Path=/"
            self._answer(HTTPStatus.SEE_OTHER, "", Location="/", Set_Cookie=cookie)
            return
        self._check_cookie()
        if query:
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such page.")
        case = _CASE.fullmatch(path)
        if path == "/":
            self._answer(HTTPStatus.OK, list_page(self.server.cases, self.server.states), "text/html")
        elif case is not None:
            number = self._number(case)
            made = case_page(
                self.server.cases, number, self.server.folder, self.server.states, self.server.secrets.decisions
            )
            self._answer(HTTPStatus.OK, made, "text/html")
        elif path == "/style.css":
            self._answer(HTTPStatus.OK, style_sheet(), "text/css")
        elif path in ("/review.js", "/viewer.js"):
            self._answer(HTTPStatus.OK, raw(path[1:]), "text/javascript")
        else:
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _post(self) -> None:
        self._check_place()
        if self.headers.get("Origin") != self.server.origin:
            raise _Refused(HTTPStatus.FORBIDDEN, "Decisions are taken from the page of this review only.")
        self._check_cookie()
        if not _same(self.headers.get("X-BrainFusion-Secret", ""), self.server.secrets.decisions):
            raise _Refused(HTTPStatus.FORBIDDEN, "Decisions are taken from the page of this review only.")
        case = _CASE.fullmatch(self.path)
        if case is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such case.")
        number, asked = self._number(case), self._body()
        try:
            decision = from_plain(asked, Asked)
        except RecordError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "A decision has an action, a name, a comment and a mark.") from error
        try:
            with self.server.deciding:
                decide_on(
                    self.server.cases[number - 1], self.server.folder, decision.action, decision.name,
                    decision.comment, decision.mark,
                )  # fmt: skip
        except Changed as error:
            self._answer(HTTPStatus.CONFLICT, str(error))
            return
        words = {"approve": "Approved.", "reject": "Rejected."}.get(decision.action, "Comment kept.")
        self._answer(HTTPStatus.OK, words)

    def _number(self, case: re.Match[str]) -> int:
        number = int(case[1])
        if number > len(self.server.cases):
            raise _Refused(HTTPStatus.NOT_FOUND, "There is no such case.")
        return number

    def _body(self) -> dict[str, Any]:
        """Return the JSON object of a request."""
        if self.headers.get_content_type() != "application/json" or "Transfer-Encoding" in self.headers:
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "A decision is sent as JSON.")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > _MOST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This is too long for a decision.")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST, "A decision is sent as JSON.")
        return asked

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain", **headers: str) -> None:
        content = text.encode("utf-8", "replace")
        self.send_response(status)
        for name, value in {**_HEADERS, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def _same(given: str, wanted: str) -> bool:
    """Compare two secrets in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
