"""What the headers of a pair say: read from DICOM and sidecars, kept with the volume, judged, never identifying."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from BrainFusionLib.acquisition import CtAcquisition, MriAcquisition, PairAcquisition, pair_acquisition
from BrainFusionLib.case import Inputs, Request, Source, run, to_document
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import read_volume, write_volume
from BrainFusionLib.io.dicom_acquisition import read_acquisition
from BrainFusionLib.io.dicom_files import DicomFile
from BrainFusionLib.io.dicom_pixels import PixelData
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.volume import Volume

CENTRE = np.array([0.0, 30.0, 40.0])


def header(**tags):
    data = Dataset()
    data.Rows, data.Columns, data.PixelSpacing = 256, 256, [1.0, 1.0]
    data.PatientName, data.PatientID, data.InstitutionName = "Doe^Jane", "ID-4711", "General Hospital"
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def read(*datasets, spacing=1.0):
    files = [DicomFile(Path("slice"), data, PixelData(0)) for data in datasets]
    return read_acquisition(files, CENTRE, spacing)


def siemens(**tags):
    usual = {
        "Modality": "MR", "Manufacturer": "SIEMENS", "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS3D"],
        "MagneticFieldStrength": 3, "PixelBandwidth": 200, "AcquisitionMatrix": [0, 256, 256, 0],
        "InPlanePhaseEncodingDirection": "ROW", "MRAcquisitionType": "3D", "SliceThickness": 1,
        "ScanningSequence": ["GR", "IR"], "ScanOptions": "IR", "StudyDate": "20260302",
    }  # fmt: skip
    return header(**{**usual, **tags})


# ---------------------------------------------------------------- DICOM, by vendor


def test_siemens_says_its_distortion_correction_and_the_distance_from_the_isocentre():
    found = read(siemens())
    assert (found.vendor, found.distortion_correction, found.normalised, found.volumetric) == (
        "Siemens",
        "3D",
        True,
        True,
    )
    assert (found.readout_axis, found.echo_planar, found.fat_suppressed) == ("j", False, False)
    assert found.isocentre_mm == pytest.approx(50.0)
    # 42.577 MHz/T * 3 T / 200 Hz * 1 mm
    assert found.mm_per_ppm == pytest.approx(0.6387, abs=1e-4)
    assert found.fat_shift_mm == pytest.approx(3.45 * 0.6387, abs=1e-3)


@pytest.mark.parametrize(("word", "correction"), [("ND", "none"), ("DIS2D", "2D"), ("DIS3D", "3D"), ("M", None)])
def test_image_types_give_the_correction(word, correction):
    assert read(siemens(ImageType=["ORIGINAL", "PRIMARY", "M", word])).distortion_correction == correction


def test_contradicting_image_types_are_unknown():
    assert read(siemens(ImageType=["ORIGINAL", "PRIMARY", "ND", "DIS2D"])).distortion_correction is None


@pytest.mark.parametrize(
    ("group", "creator", "element", "value"),
    [(0x51, "SIEMENS MR HEADER", 0x16, "p2 M/ND/NORM"), (0x21, "SIEMENS MR SDI 02", 0x75, ["ORIGINAL", "M", "ND"])],
)
def test_private_image_types_of_siemens_count(group, creator, element, value):
    data = siemens(ImageType=["ORIGINAL", "PRIMARY", "M"])
    data.private_block(group, creator, create=True).add_new(element, "LO", value)
    assert read(data).distortion_correction == "none"


@pytest.mark.parametrize("maker", ["GE MEDICAL SYSTEMS", "Philips Medical Systems", "Canon_MEC", "TOSHIBA"])
def test_other_vendors_do_not_say_whether_they_corrected(maker):
    found = read(siemens(Manufacturer=maker))
    assert found.distortion_correction is None
    assert (found.isocentre_mm is not None) == maker.startswith("GE")


def test_philips_states_the_shift_of_fat_itself():
    data = siemens(Manufacturer="Philips Medical Systems")
    data.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x22, "FL", 1.5)
    assert read(data).fat_shift_mm == pytest.approx(1.5)
    del data.PixelBandwidth
    assert read(data).mm_per_ppm == pytest.approx(1.5 / 3.4)


def test_interpolation_does_not_hide_the_acquired_pixel():
    found = read(siemens(Rows=512, Columns=512, PixelSpacing=[0.5, 0.5]))
    assert found.acquired_pixel_mm == pytest.approx(1.0)


def test_an_enhanced_file_says_the_same_in_its_groups():
    data = header(Modality="MR", Manufacturer="Siemens Healthineers", MagneticFieldStrength=1.5, MRAcquisitionType="2D")
    del data.PixelSpacing
    data.EchoPlanarPulseSequence = "NO"

    def item(**tags):
        made = Dataset()
        for name, value in tags.items():
            setattr(made, name, value)
        return Sequence([made])

    shared = Dataset()
    shared.MRImagingModifierSequence = item(PixelBandwidth=250.0)
    shared.PixelMeasuresSequence = item(PixelSpacing=[1.0, 1.0], SliceThickness=3.0)
    shared.MRFOVGeometrySequence = item(MRAcquisitionFrequencyEncodingSteps=128, InPlanePhaseEncodingDirection="COLUMN")
    shared.MRModifierSequence = item(SpectrallySelectedSuppression="FAT")
    frame = Dataset()
    frame.MRImageFrameTypeSequence = item(FrameType=["ORIGINAL", "PRIMARY", "M", "NONE"])
    private = Dataset()
    private.private_block(0x21, "SIEMENS MR SDI 02", create=True).add_new(0x75, "CS", ["ORIGINAL", "M", "DIS2D"])
    frame.private_block(0x21, "SIEMENS MR SDI 02", create=True).add_new(0xFE, "SQ", Sequence([private]))
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence([frame])
    assert read(data, spacing=3.5) == MriAcquisition(
        vendor="Siemens", distortion_correction="2D", field_t=1.5, bandwidth_hz=250.0, acquired_pixel_mm=2.0,
        readout_axis="i", volumetric=False, slice_thickness_mm=3.0, slice_spacing_mm=3.5, echo_planar=False,
        fat_suppressed=True, normalised=False, isocentre_mm=50.0,
    )  # fmt: skip


@pytest.mark.parametrize(("field", "frequency", "tesla"), [(15000, None, 1.5), (None, 123.2, 2.89), (0, 63.8, 1.5)])
def test_the_field_comes_in_tesla_gauss_or_as_a_frequency(field, frequency, tesla):
    data = siemens(MagneticFieldStrength=field)
    if frequency:
        data.ImagingFrequency = frequency
    assert read(data).field_t == pytest.approx(tesla, abs=0.01)


def test_a_field_in_which_the_slices_differ_is_unknown():
    found = read(siemens(), siemens(), siemens(PixelBandwidth=300))
    assert (found.bandwidth_hz, found.field_t) == (None, 3.0)


def test_headers_with_nonsense_are_read_without_an_error():
    data = siemens(ScanningSequence="EP", ContrastBolusAgent="Gadovist 1.0")
    for keyword in ("MagneticFieldStrength", "PixelBandwidth", "SliceThickness", "AcquisitionMatrix", "StudyDate"):
        data.add(pydicom.DataElement(keyword, "LO", "not a number"))
    found = read(data)
    assert (found.field_t, found.bandwidth_hz, found.slice_thickness_mm, found.day) == (None, None, None, None)
    assert (found.echo_planar, found.contrast_agent, found.mm_per_ppm) == (True, True, None)


ODD = (
    ("LO", ""), ("LO", "\\"), ("LO", "a" * 60), ("OB", b"\xff\xfe"), ("LO", ["1", ""]), ("SQ", [Dataset()]), ("SQ", []),
    ("FD", float("nan")), ("FD", [1e300, -1.0]), ("PN", "a^b"),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), ODD)
@pytest.mark.parametrize("make", ["siemens", "ct"])
def test_no_value_of_any_attribute_makes_reading_fail(make, kind, value):
    data = ct() if make == "ct" else siemens()
    for element in list(data):
        if element.keyword not in ("Modality", "Rows", "Columns"):
            data[element.tag] = pydicom.DataElement(element.tag, kind, value)
    assert read(data) is not None


def ct(**tags):
    usual = {
        "Modality": "CT", "Manufacturer": "SIEMENS", "ManufacturerModelName": "SOMATOM Force", "KVP": 120,
        "ConvolutionKernel": ["Hr60f", "3"], "SliceThickness": 0.75, "ReconstructionDiameter": 250,
        "GantryDetectorTilt": -12.5, "StudyDate": "20260305",
    }  # fmt: skip
    return header(**{**usual, **tags})


def test_a_ct_says_kernel_slices_and_tilt():
    found = read(ct(), spacing=0.5)
    assert replace(found, day=None) == CtAcquisition(
        vendor="Siemens", model="SOMATOM Force", kernel="Hr60f", kvp=120.0, slice_thickness_mm=0.75,
        slice_spacing_mm=0.5, reconstruction_diameter_mm=250.0, tilt_deg=-12.5,
    )  # fmt: skip


@pytest.mark.parametrize("model", ["O-arm O2", "AXIOM-Artis", "Azurion 7", "Cios Spin"])
def test_cone_beam_scanners_are_known_by_their_model(model):
    assert read(ct(ManufacturerModelName=model)).cone_beam is True
    assert read(ct()).cone_beam is None


# ---------------------------------------------------------------- kept with the volume


def test_a_series_carries_its_acquisition_through_reading_and_resampling(tmp_path):
    for k in range(3):
        data = siemens(ImagePositionPatient=[0, 0, 2.0 * k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"1.2.3.{k}"
        data.StudyInstanceUID, data.SeriesInstanceUID = "1.2", "1.2.3"
        data.Rows = data.Columns = 4
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
        data.PhotometricInterpretation, data.PixelData = "MONOCHROME2", bytes(32)
        data.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path)
    assert volume.acquisition.distortion_correction == "3D"
    assert volume.acquisition.slice_spacing_mm == pytest.approx(2.0)
    assert volume.acquisition.isocentre_mm == pytest.approx(np.linalg.norm([1.5, 1.5, 2.0]))
    from BrainFusionLib.resample import resample_onto

    for grid in (volume.grid, Grid((2, 2, 2))):
        assert resample_onto(volume, grid).acquisition == volume.acquisition
    assert volume.with_array(volume.array_kji + 1).acquisition == volume.acquisition


SIDECAR = {
    "Modality": "MR", "Manufacturer": "Siemens", "MagneticFieldStrength": 3, "PixelBandwidth": 240,
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], "MRAcquisitionType": "3D", "SliceThickness": 1,
    "InPlanePhaseEncodingDirectionDICOM": "ROW", "BaseResolution": 32, "ScanningSequence": "GR_IR",
    "PatientName": "Doe^Jane", "AcquisitionDateTime": "2026-03-02T10:11:12.0",
}  # fmt: skip


def nifti(folder, sidecar, name="t1.nii.gz"):
    grid = Grid((32, 64, 2), (1.0, 0.5, 1.0), (-15.5, 14.25, 39.5))
    write_volume(Volume(np.zeros(grid.shape_kji), grid), folder / name)
    if sidecar is not None:
        text = sidecar if isinstance(sidecar, str) else json.dumps(sidecar)
        (folder / f"{name.partition('.')[0]}.json").write_text(text)
    return read_volume(folder / name)


def test_a_sidecar_says_what_dcm2niix_wrote(tmp_path):
    found = nifti(tmp_path, SIDECAR).acquisition
    assert (found.distortion_correction, found.field_t, found.readout_axis, found.echo_planar) == (
        "none",
        3.0,
        "j",
        False,
    )
    assert found.acquired_pixel_mm == pytest.approx(1.0)
    assert found.isocentre_mm == pytest.approx(50.0, abs=0.01)


@pytest.mark.parametrize(
    ("sidecar", "why"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "does not hold fields"),
        ("\ufffd", "not valid JSON"),
        (" " * 2_000_000, "too large"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_left_aside_with_a_note(tmp_path, sidecar, why):
    volume = nifti(tmp_path, sidecar)
    assert volume.acquisition is None
    assert [why in note for note in volume.notes] == [True]


@pytest.mark.parametrize("sidecar", [None, {}, {"schema_version": 2}, {"Modality": "PT"}, {"PixelBandwidth": [{}]}])
def test_no_sidecar_and_others_files_say_nothing(tmp_path, sidecar):
    volume = nifti(tmp_path, sidecar)
    assert (volume.acquisition, volume.notes) == (None, ())


@pytest.mark.parametrize(("field", "kind"), [("EchoTime", MriAcquisition), ("KVP", CtAcquisition)])
def test_a_sidecar_without_a_modality_is_known_by_its_fields(tmp_path, field, kind):
    assert isinstance(nifti(tmp_path, {field: 100}).acquisition, kind)


def test_odd_values_in_a_sidecar_are_unknown(tmp_path):
    odd = {name: [None, {"a": 1}] for name in SIDECAR} | {
        "Modality": "MR",
        "PixelBandwidth": 1e400,
        "SliceThickness": True,
    }
    found = nifti(tmp_path, odd).acquisition
    assert replace(found, slice_spacing_mm=None) == MriAcquisition()


# ---------------------------------------------------------------- the pair, judged


def judged(**mri):
    return judge(Evidence(acquisition=PairAcquisition(mri=MriAcquisition(**mri))))


def levels(verdict):
    headers = (
        "echo_planar",
        "far_uncorrected",
        "distortion_not_corrected",
        "distortion_corrected_in_plane",
        "cone_beam",
    )
    return {f.code: f.level for f in verdict.findings if f.code in headers}


def test_headers_alone_say_only_what_they_justify():
    assert levels(judged()) == {}
    assert levels(judged(distortion_correction="3D", isocentre_mm=90.0, echo_planar=False)) == {}
    assert levels(judged(echo_planar=True)) == {"echo_planar": "amber"}
    assert levels(judged(distortion_correction="none", isocentre_mm=20.0)) == {"distortion_not_corrected": "green"}
    assert levels(judged(distortion_correction="none")) == {"distortion_not_corrected": "green"}
    assert levels(judged(distortion_correction="none", isocentre_mm=70.0)) == {"far_uncorrected": "amber"}
    assert levels(judged(distortion_correction="2D")) == {"distortion_corrected_in_plane": "green"}
    cone = Evidence(acquisition=PairAcquisition(ct=CtAcquisition(cone_beam=True)))
    assert levels(judge(cone)) == {"cone_beam": "green"}


def test_a_green_finding_leaves_the_verdict_green():
    from BrainFusionLib.verdict.table import CRITERIA

    rows = [criterion for criterion in CRITERIA if criterion.code == "distortion_not_corrected"]
    mri = MriAcquisition(distortion_correction="none")
    verdict = judge(Evidence(acquisition=PairAcquisition(mri=mri)), rows)
    assert (verdict.colour, [finding.level for finding in verdict.findings]) == ("green", ["green"])


# ---------------------------------------------------------------- privacy


def test_a_pair_keeps_the_days_between_the_scans_and_no_date():
    pair = pair_acquisition(read(ct()), read(siemens()))
    assert pair.days_apart == 3
    assert (pair.ct.day, pair.mri.day, pair.ct.patient, pair.mri.patient) == (None, None, None, None)
    assert pair_acquisition(read(ct(StudyDate="19000101")), read(siemens())).days_apart is None


def test_headers_of_the_wrong_modality_are_ignored():
    assert pair_acquisition(read(siemens()), read(ct())) is None


def test_nothing_that_identifies_is_kept():
    odd = ct(ManufacturerModelName="Scanner of General Hospital", ConvolutionKernel="doe kernel")
    text = json.dumps(to_document(pair_acquisition(read(odd), read(siemens())))).lower()
    assert not [word for word in ("doe", "jane", "4711", "hospital", "2026", "1.2.3") if word in text]


def test_a_result_holds_what_the_headers_say_and_no_date():
    from BrainFusionLib import fuse
    from BrainFusionLib.phantom import make_pair
    from BrainFusionLib.settings import FusionSettings, Settings

    pair = make_pair(spacing_mm=5.0)
    ct_volume, mri = replace(pair.ct, acquisition=read(ct())), replace(pair.mri, acquisition=read(siemens()))
    settings = Settings(fusion=FusionSettings("average"))
    result = fuse(ct_volume, mri, settings, transform=pair.transform, check=False)
    assert result.evidence.acquisition == pair_acquisition(ct_volume.acquisition, mri.acquisition)
    document = to_document(result.without_names(), {})
    assert document["evidence"]["acquisition"]["mri"]["distortion_correction"] == "3D"
    kept = document["evidence"]["acquisition"]["ct"]
    assert result.evidence.acquisition.ct.kernel
    assert (kept["kernel"], kept["model"]) == (None, None)
    text = json.dumps(document["evidence"]) + json.dumps(document["volumes"])
    assert str(ct_volume.acquisition.day) not in text
    assert ct_volume.acquisition.patient not in text


@pytest.mark.parametrize(("other", "is_noted"), [("ID-0815", True), ("ID-4711 ", False), ("", False)])
def test_a_result_notes_two_patient_ids_without_their_values(other, is_noted):
    from BrainFusionLib.phantom import make_pair

    pair = make_pair(spacing_mm=5.0)
    of_ct, of_mri = read(ct(PatientID=other)), read(siemens())
    request = Request(Source("CT"), Source("MRI"), given=pair.transform, check=False, fuse=False)
    inputs = Inputs(replace(pair.ct, acquisition=of_ct), replace(pair.mri, acquisition=of_mri))
    noted = [note for note in run(request, inputs).notes if "different patient IDs" in note]
    assert bool(noted) is is_noted
    assert not any("0815" in note or of_mri.patient in note for note in noted)
