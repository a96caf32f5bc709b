"""What is said about a pose that is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from BrainFusionLib import register, registration
from BrainFusionLib.errors import RegistrationError, Remedy
from BrainFusionLib.evidence import PoseEvidence
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.registration import Registration
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.volume import Volume

NONE_STANDS_OUT = PoseEvidence(
    similarity_nmi=1.2, margin_nats=0.01, agreement_mm=0.1, perturbed_margin_nmi=0.01, overlap=0.95,
    thinnest_mm=180.0, thickest_voxel_mm=3.0, mirrored_margin_nats=0.3, sampling_error_mm=0.05, lever=1.0,
)  # fmt: skip


@pytest.mark.parametrize(("thin_mm", "remedy"), [(32.0, Remedy.GIVE_ROUGH_START), (120.0, None)])
def test_only_the_refusal_of_a_thin_slab_names_its_thickness_and_advises_a_start(
    monkeypatch: pytest.MonkeyPatch, thin_mm: float, remedy: Remedy | None
) -> None:
    pair = make_pair(2, spacing_mm=6.0)
    evidence = replace(NONE_STANDS_OUT, thinnest_mm=thin_mm)

    def found(ct: Volume, mri: Volume, settings: RegistrationSettings, **options: object) -> Registration:
        return Registration(pair.transform, None, evidence, False, {}, {}, "cpu")

    monkeypatch.setattr(registration, "register", found)
    with pytest.raises(RegistrationError, match="no pose stands out") as caught:
        register(pair.ct, pair.mri)
    assert caught.value.remedy is remedy
    assert ("only 32 mm thick" in caught.value.problem) is (remedy is not None)
