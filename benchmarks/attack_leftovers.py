"""What a command that was stopped leaves behind: whole results, or those of before, and nothing hidden."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.attack_commands import Stage
from BrainFusionLib.case.replacing import complete_replacement
from BrainFusionLib.cohort.one_case import SEAL
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.folder import read_case
from BrainFusionLib.io.leftovers import STAGING, TEMPORARY
from BrainFusionLib.signing import content_sha256

RESULTS = ("fused.nii.gz", "ct_in_mri.nii.gz", "ct_to_mri.tfm")


class Faults:
    """What was found wrong after one kill; each fault counts once."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, fault: str, said: str) -> None:
        """Note a fault."""
        if fault not in dict(self.found):
            self.found.append((fault, said))


def nothing_hidden(place: Path, faults: Faults) -> None:
    """Check that no hidden file or folder is left, and nothing in the folder for temporary files."""
    hidden = [path for prefix in (STAGING, TEMPORARY) for path in place.glob(f"**/{prefix}*")]
    hidden += (place / "out-tmp").iterdir()
    if hidden:
        faults.add("hidden left", " ".join(str(path.relative_to(place)) for path in hidden)[:300])


def whole_or_nothing(stage: Stage, command: str, earlier: bool, output: Path, faults: Faults) -> None:
    """Check a copy of what is left: a reader completes a replacement that was stopped."""
    if not output.exists():
        if earlier:
            faults.add("half-written", "the former result is gone")
        return
    copy = output.with_name("copy")
    shutil.copytree(output, copy)
    try:
        if command == "training":
            _training_is_whole(copy)
            return
        for case in _cases(command):
            former = stage.former[command] / case if earlier else None
            case_is_whole(copy / case, stage.whole[command] / case, former)
        if (copy / "cohort.tsv").exists():
            _rows(copy)
    except (BrainFusionError, ValueError, KeyError, OSError) as error:
        faults.add("half-written", f"{type(error).__name__}: {error}"[:300])
    finally:
        shutil.rmtree(copy)


def _cases(command: str) -> list[str]:
    return [""] if command == "fuse" else ["head0", "head1"]


def case_is_whole(case: Path, new: Path, former: Path | None) -> None:
    """Check that a case's folder holds all of the new result, or of the former one, or nothing.

    Raises
    ------
    ValueError, OSError, BrainFusionError
        It does not.
    """
    complete_replacement(case)
    if not (case / "result.json").exists():
        found = [path.name for path in case.iterdir() if not path.name.startswith(".")] if case.exists() else []
        if found or former is not None:
            raise ValueError(f"no result.json, but {found}; former: {former is not None}")
        return
    read_case(case)
    made = [_hashes(folder) for folder in (new, former) if folder is not None]
    if _hashes(case) not in made:
        raise ValueError("the files are neither the new result's nor the former's")
    if not (case / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the report is cut off")
    if (case / SEAL).exists():
        sealed = json.loads((case / SEAL).read_text(encoding="utf-8"))["files"]
        if any(content_sha256(case / name) != wanted for name, wanted in sealed.items()):
            raise ValueError("the seal is of other files")


def _training_is_whole(output: Path) -> None:
    from training.checkpoint import load_checkpoint

    for name in ("last.pt", "best.pt"):
        if (output / name).exists():
            load_checkpoint(output / name)
    for path in output.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in output.glob("*.npz"):
        np.load(path).close()


def same_result(stage: Stage, command: str, output: Path, faults: Faults) -> None:
    """Check that a run to the end gives what it gives when nothing was stopped before."""
    whole = stage.whole[command]
    names, wanted = ({path.relative_to(f).as_posix() for path in f.rglob("*")} for f in (output, whole))
    if names != wanted:
        faults.add("other result", f"files: {sorted(names ^ wanted)}")
        return
    if command == "training":
        same = _training_result(output) == _training_result(whole)
    else:
        same = all(_hashes(output / case) == _hashes(whole / case) for case in _cases(command))
        same = same and (command == "fuse" or _rows(output) == _rows(whole))
    if not same:
        faults.add("other result", "other values")


def _training_result(output: Path) -> list[Any]:
    from training.checkpoint import load_checkpoint

    clocked = ("seconds", "slices_per_s", "waiting_share")
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    tensors = load_checkpoint(output / "last.pt")["trained"]
    return [
        [{key: value for key, value in line.items() if key not in clocked} for line in lines],
        {name: tensor.tolist() for name, tensor in tensors.items()},
        json.loads((output / "weights.json").read_text(encoding="utf-8"))["sha256"],
    ]


def _rows(output: Path) -> list[dict[str, str]]:
    with (output / "cohort.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    if any(None in row.values() or "case" not in row for row in rows):
        raise ValueError("cohort.tsv is cut off")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _hashes(folder: Path) -> list[str]:
    return [_sha256(folder / name) for name in RESULTS]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
