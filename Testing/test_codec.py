"""The codec: every request and every result survives the way to JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from BrainFusionLib.acquisition import CtAcquisition, MriAcquisition, PairAcquisition
from BrainFusionLib.case import (
    Decision,
    IntensityMap,
    Output,
    Pose,
    Provenance,
    Request,
    Result,
    Source,
    Volumes,
    from_document,
    from_plain,
    to_document,
    to_plain,
)
from BrainFusionLib.case.codec import _decoded_array
from BrainFusionLib.case.decision import Signed
from BrainFusionLib.case.result import Bone
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.errors import RecordError
from BrainFusionLib.evidence import (
    BrainAlignment,
    BrainShift,
    Distortion,
    Evidence,
    GivenPose,
    Inside,
    LocalErrors,
    LocalFit,
    PoseEvidence,
    Scale,
    SkullFit,
)
from BrainFusionLib.geometry import Grid, affine, rotation_matrix
from BrainFusionLib.landmarks import LandmarkErrors, LandmarkFit, LandmarkPoint, Landmarks
from BrainFusionLib.metrics.fidelity import Fidelity
from BrainFusionLib.settings import FusionSettings, OutputSettings, RegistrationSettings, SearchPass, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.verdict.criterion import Finding
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import Volume

numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(-1e6, 1e6)
text = st.text(max_size=12)
# An empty path is refused.
paths = st.text(min_size=1, max_size=12)
maybe = st.none()
axes = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: math.hypot(*axis) > 0.1)
rotations = st.builds(rotation_matrix, axes, st.floats(-180, 180))
triples = st.tuples(finite, finite, finite)
rigid = st.builds(lambda r, t: RigidTransform(affine(r, t)), rotations, triples)
affines = st.builds(
    lambda r, s, t: AffineTransform(affine(r @ np.diag(s), t)), rotations, st.tuples(*[st.floats(0.5, 2)] * 3), triples
)
transforms = rigid | affines
sizes = st.tuples(*[st.integers(1, 4)] * 3)
grids = st.builds(Grid, sizes, st.tuples(*[st.floats(0.1, 5)] * 3), triples, rotations)
points = st.integers(0, 3).flatmap(
    lambda n: st.lists(triples, min_size=n, max_size=n).map(lambda rows: np.array(rows, dtype=float).reshape(n, 3))
)


def built(kind, **given):
    """Return a strategy for a dataclass whose fields are all given."""
    assert {field.name for field in fields(kind) if field.init} == set(given), kind
    return st.builds(kind, **given)


vendors, truths = st.sampled_from([None, "Siemens", "GE", "Philips", "Canon"]), st.sampled_from([None, True, False])
days = maybe | st.integers(700_000, 750_000)
mri_acquisitions = built(
    MriAcquisition, vendor=vendors, distortion_correction=st.sampled_from([None, "none", "2D", "3D"]),
    field_t=maybe | finite, bandwidth_hz=maybe | finite, acquired_pixel_mm=maybe | finite,
    readout_axis=st.sampled_from([None, "i", "j"]), volumetric=truths, slice_thickness_mm=maybe | finite,
    slice_spacing_mm=maybe | finite, echo_planar=truths, fat_suppressed=truths, contrast_agent=truths,
    water_fat_shift_px=maybe | finite, normalised=truths, isocentre_mm=maybe | finite, day=days,
)  # fmt: skip
ct_acquisitions = built(
    CtAcquisition, vendor=vendors, model=maybe | text, cone_beam=truths, kernel=maybe | text, kvp=maybe | finite,
    slice_thickness_mm=maybe | finite, slice_spacing_mm=maybe | finite, reconstruction_diameter_mm=maybe | finite,
    tilt_deg=maybe | finite, contrast_agent=truths, day=days,
)  # fmt: skip
pair_acquisitions = built(
    PairAcquisition, ct=maybe | ct_acquisitions, mri=maybe | mri_acquisitions, days_apart=maybe | st.integers(-99, 99)
)


@st.composite
def volumes_on(draw, grid):
    values = draw(st.integers(0, 2**32 - 1))
    array = np.random.default_rng(values).normal(0, 1000, grid.shape_kji).astype(np.float32)
    return Volume(
        array,
        grid,
        draw(st.sampled_from(["CT", "MR", None])),
        draw(text),
        tuple(draw(st.lists(text))),
        draw(maybe | mri_acquisitions | ct_acquisitions),
    )


pose_evidence = built(
    PoseEvidence, similarity_nmi=numbers, margin_nats=maybe | numbers, agreement_mm=numbers,
    perturbed_margin_nmi=numbers, overlap=numbers, thinnest_mm=numbers, thickest_voxel_mm=numbers,
    mirrored_margin_nats=numbers,
    sampling_error_mm=numbers, lever=numbers, inner_apart_mm=maybe | numbers, from_start_mm=maybe | numbers,
    from_start_deg=maybe | numbers,
)  # fmt: skip
local_fits = built(
    LocalFit, median_mm=numbers, part_mm=numbers, share=numbers, least_share=numbers, voxel_mm=numbers,
    high_mm=st.none() | numbers, bias_mm=st.none() | numbers,
)  # fmt: skip
evidence = built(
    Evidence,
    pose=maybe | pose_evidence,
    given=maybe
    | built(
        GivenPose, found=maybe | pose_evidence, apart_mm=maybe | numbers, typical_mm=maybe | numbers, stretch_mm=numbers
    ),
    coverage=maybe | numbers,
    turned_deg=maybe | numbers,
    sides_assumed=maybe | st.booleans(),
    local=maybe
    | built(LocalErrors, spacing_mm=numbers, points_lps_mm=points, shifts_mm=points, fit=maybe | local_fits),
    skull=maybe
    | built(
        SkullFit,
        shift_mm=numbers,
        depth=numbers,
        brightness=numbers,
        at_edge=st.booleans(),
        voxel_mm=numbers,
        air=numbers,
    ),
    acquisition=maybe | pair_acquisitions,
    brain=maybe
    | built(
        BrainAlignment,
        is_used=st.booleans(),
        agreement_mm=maybe | numbers,
        centre_mm=maybe | numbers,
        worst_mm=maybe | numbers,
    ),
    inside=maybe | built(Inside, air_ml=numbers, defect_cm2=numbers, burr_holes=st.integers(0, 9)),
    brain_shift=maybe
    | built(
        BrainShift, judged=st.booleans(), reason=text, points_lps_mm=points, shifts_mm=points, p95_mm=numbers,
        low_mm=numbers, high_mm=numbers, median_mm=numbers, noise_mm=numbers, information_nats=numbers,
        gain_nats=numbers, affine_gain_nats=numbers, place=text, direction=text, ventricles_mm=maybe | numbers,
        ventricles_sd_mm=maybe | numbers, whole_mm=maybe | numbers, whole_sd_mm=maybe | numbers,
        part_nats=maybe | numbers, part_mm=maybe | numbers, part_place=text, part_power_nats=maybe | numbers,
    ),
    scale=maybe | built(Scale, **{field.name: numbers for field in fields(Scale)}),
    distortion=maybe | built(Distortion, **{field.name: numbers for field in fields(Distortion)}),
    landmarks=maybe | built(LandmarkFit, count=st.integers(2, 9), median_mm=numbers, worst_mm=numbers),
)  # fmt: skip
verdicts = built(
    Verdict,
    colour=st.sampled_from(["green", "amber", "red"]),
    findings=st.lists(
        built(
            Finding, code=text, level=st.sampled_from(["green", "amber", "red"]), measure=numbers, limit=numbers,
            unit=text, text=text,
        ),
        max_size=3,
    ).map(tuple),
    expected_error_mm=maybe | numbers,
    bound_mm=maybe | numbers,
)  # fmt: skip
sources = built(Source, name=text, path=maybe | paths, series=maybe | text, sha256=maybe | text)
passes = built(
    SearchPass, rotations=st.integers(1, 9), candidates=st.integers(4, 9), fine=st.booleans(), safe_margin=finite
)
all_settings = built(
    Settings,
    registration=built(
        RegistrationSettings,
        passes=st.lists(passes, min_size=1, max_size=3).map(tuple),
        samples=st.integers(2000, 9000),
        seed=st.integers(0, 99),
        model=st.just("rigid"),
        align=st.sampled_from(["skull", "brain"]),
        search=st.sampled_from(["global", "local"]),
    ),
    fusion=built(
        FusionSettings, rule=text, weights=maybe | paths, weights_sha256=maybe | text, batch_size=st.integers(1, 9)
    ),
    device=st.sampled_from(["auto", "cpu", "cuda", "mps"]),
    threads=maybe | st.integers(1, 8),
    output=built(
        OutputSettings,
        reference=st.sampled_from(["mri", "ct"]),
        grid=maybe | st.sampled_from(["mri", "ct", "union"]) | st.floats(0.2, 10),
    ),
    bone=st.booleans(),
)
places = st.lists(finite, min_size=3, max_size=3).map(np.array)
marks = st.lists(st.tuples(text, places, places), min_size=2, max_size=3).map(
    lambda rows: Landmarks(tuple(row[0] for row in rows), *(np.array([row[n] for row in rows]) for n in (1, 2)))
)
marked = built(LandmarkPoint, name=text, mri_lps_mm=places, ct_lps_mm=places, shift_mm=places, residual_mm=numbers)
requests = built(
    Request, ct=sources, mri=sources, mri_mask=maybe | sources, settings=all_settings, start=maybe | rigid,
    given=maybe | transforms, check=st.booleans(), fuse=st.booleans(), ct_offset=maybe | finite,
    stated=st.lists(text, max_size=2).map(tuple), landmarks=maybe | marks,
)  # fmt: skip
tables = st.dictionaries(text, finite, max_size=3)
sums = st.dictionaries(text, text, max_size=2)
decisions = built(
    Decision, action=st.sampled_from(["approve", "reject"]), name=st.sampled_from(["A. Surgeon", "外科医"]),
    comment=st.sampled_from(["", "moved\nby 2 mm"]), date=text, version=text,
    signed=built(Signed, inputs=sums, pose=text, result=text, files=sums), previous=text, seal=text,
)  # fmt: skip


@st.composite
def results(draw):
    grid = draw(grids)
    voxels = volumes_on(grid)
    made = built(
        Result,
        request=requests,
        pose=built(
            Pose, transform=transforms, rigid=rigid, origin=st.sampled_from(["registered", "given"]), movement=text,
            skull=maybe | rigid,
        ),
        verdict=verdicts,
        evidence=evidence,
        grid=st.just(grid),
        provenance=built(
            Provenance, date=text, versions=st.dictionaries(text, text, max_size=3), device=text, timings_s=tables,
            registration_timings_s=tables, registration_iterations=st.dictionaries(text, st.integers(), max_size=3),
            escalated=st.booleans(),
        ),
        fidelity=maybe
        | built(Fidelity, bone_error_hu=maybe | numbers, soft_tissue_error=maybe | numbers, overshoot=numbers),
        intensity=maybe
        | built(
            IntensityMap, meaning=text, ct_knots_hu=st.lists(numbers).map(tuple),
            ct_knots_fused=st.lists(numbers).map(tuple), mri_low=numbers, mri_high=numbers,
            window=st.tuples(numbers, numbers),
        ),
        landmarks=maybe
        | built(
            LandmarkErrors, median_mm=numbers, worst_mm=numbers, points=st.lists(marked, max_size=2).map(tuple)
        ),
        error_map=maybe | built(ErrorMap, grid=grids, values=text, bound_ratio=numbers),
        bone=maybe | built(Bone, threshold_hu=numbers, volume_ml=numbers, labels=maybe | voxels),
        notes=st.lists(text, max_size=3).map(tuple),
        volumes=maybe | built(Volumes, fused=voxels, ct_in_mri=voxels, alpha=maybe | voxels, mri=maybe | voxels),
        output=maybe
        | built(Output, reference=st.sampled_from(["mri", "ct"]), grid=maybe | st.just(grid), transform_moves=text),
        files=st.dictionaries(text, text, max_size=3),
        decisions=st.lists(decisions, max_size=2).map(tuple),
        warning=text,
    )  # fmt: skip
    return draw(made)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(results())
def test_every_result_survives_json(result):
    voxels = {}
    plain = json.loads(json.dumps(to_plain(result, voxels), allow_nan=False))
    assert from_plain(plain, Result, voxels) == result


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests)
def test_every_request_survives_json(request):
    assert from_document(json.loads(json.dumps(to_document(request))), Request) == request


def record(**changes):
    return {**to_document(Request(Source("a"), Source("b"))), **changes}


def test_missing_fields_are_named():
    plain = record()
    del plain["settings"]["fusion"]["rule"], plain["ct"]
    with pytest.raises(RecordError, match="missing fields: ct"):
        from_document(plain, Request)
    plain["ct"] = {"name": "a", "path": None, "series": None, "sha256": None}
    with pytest.raises(RecordError, match=r"missing fields: settings\.fusion\.rule"):
        from_document(plain, Request)


def test_unknown_fields_are_named():
    with pytest.raises(RecordError, match="unknown fields: colour"):
        from_document(record(colour="green"), Request)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("check",), "yes"),
        (("ct", "name"), 3),
        (("settings", "device"), "tpu"),
        (("settings", "registration", "samples"), 2.5),
        (("ct_offset",), 10**400),
        (("settings", "registration", "samples"), True),
        (("settings", "registration", "passes"), "many"),
        (("settings", "registration", "passes"), [3]),
        (("start",), {"moving_from_fixed_lps": [[1, 2], [3]]}),
        (("start",), {"moving_from_fixed_lps": [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]}),
        (("given",), {"class": "Field", "moving_from_fixed_lps": []}),
        (("mri",), None),
        (("settings",), []),
    ],
)
def test_value_of_the_wrong_type_is_named_by_its_path(place, value):
    plain = record()
    holder = plain
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    with pytest.raises(RecordError, match=place[-1]):
        from_document(plain, Request)


def test_another_schema_version_is_refused():
    with pytest.raises(RecordError, match="schema version 99"):
        from_document(record(schema_version=99), Request)
    plain = record()
    del plain["schema_version"]
    with pytest.raises(RecordError, match="schema version"):
        from_document(plain, Request)


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_what_is_not_an_object_is_refused(document):
    with pytest.raises(RecordError, match="JSON object"):
        from_document(document, Request)


def test_voxels_are_required_where_volumes_are():
    volume = Volume(np.zeros((2, 2, 2)), Grid((2, 2, 2)))
    with pytest.raises(RecordError, match="no mapping was given"):
        to_plain(volume)
    voxels = {}
    plain = to_plain(volume, voxels)
    with pytest.raises(RecordError, match="voxels"):
        from_plain(plain, Volume)
    assert from_plain(plain, Volume, voxels) == volume


def test_no_class_of_a_result_is_left_out():
    seen, todo = set(), [Result]
    while todo:
        kind = todo.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for hint in _types_in(kind):
            if is_dataclass(hint):
                todo.append(hint)
    assert {Request, Evidence, Verdict, Finding, RigidTransform, AffineTransform, Grid, Volume} <= seen


def _types_in(kind):
    import typing

    todo, found = list(typing.get_type_hints(kind).values()), []
    while todo:
        hint = todo.pop()
        arguments = typing.get_args(hint)
        todo += [a for a in arguments if a is not Ellipsis]
        if isinstance(hint, type) and not arguments:
            found.append(hint)
    return found


def test_names_and_paths_are_removed_together():
    settings = Settings(fusion=FusionSettings("network", "/home/miller/MILLER.npz"))
    request = Request(
        Source("MILLER.nrrd", "/home/miller/MILLER.nrrd"), Source("MILLER_T1.nrrd", "/home/x"), settings=settings
    )
    fused = Volume(
        np.zeros((2, 2, 2), np.float32), Grid((2, 2, 2)), "MR", "MILLER_T1.nrrd", ("MILLER_T1.nrrd: no orientation",)
    )
    told = Result(
        request,
        Pose(RigidTransform.identity(), RigidTransform.identity(), "given", "not moved"),
        Verdict("amber"),
        Evidence(),
        Grid((2, 2, 2)),
        Provenance("today", {}, "cpu"),
        notes=("MILLER_T1.nrrd: no orientation",),
        volumes=Volumes(fused, replace(fused, name="MILLER.nrrd in MILLER_T1.nrrd")),
    )
    plain = json.dumps(to_plain(told.without_names(), {}))
    assert "MILLER" not in plain
    assert "home" not in plain
    assert told.without_names().notes == ("MRI: no orientation",)
    assert "home" not in json.dumps(to_plain(told.without_paths(), {}))
    assert replace(told.without_paths()).request.ct.name == "MILLER.nrrd"


def test_number_too_large_is_refused_in_an_array_as_elsewhere():
    with pytest.raises(RecordError):
        _decoded_array([[1e999, 1.0, 2.0]], "owner", "path")


@pytest.mark.parametrize(
    ("rows", "words"),
    [([[1.0, 2.0], [1.0]], "uneven lists"), ([[1.0, "x"]], "got .x."), ([[1e999]], "inf")],
)
def test_wrong_numbers_of_an_array_are_refused_with_the_true_reason(rows, words):
    with pytest.raises(RecordError, match=words):
        _decoded_array(rows, "owner", "path")
