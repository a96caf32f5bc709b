import pickle
from typing import get_type_hints

import pytest

from BrainFusionLib import errors
from BrainFusionLib.cli.remedies import PHRASES
from BrainFusionLib.errors import BrainFusionError, Cancelled, RegistrationError, Remedy
from BrainFusionLib.progress import stop_if
from BrainFusionLib.transform import RigidTransform, Transform

# What a caller who knows nothing of this library would catch (DESIGN section 7).
BUILT_IN = {
    "SettingsError": ValueError,
    "GeometryError": ValueError,
    "ImageContentError": ValueError,
    "ImageFileError": OSError,
    "RecordError": ValueError,
    "RegistrationError": RuntimeError,
    "WeightsError": RuntimeError,
    "MissingDependencyError": ImportError,
    "Cancelled": Exception,
}


def test_every_error_of_the_library_is_known_here():
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined == {*BUILT_IN, "BrainFusionError", "Remedy"}


@pytest.mark.parametrize(("name", "built_in"), BUILT_IN.items())
def test_errors_derive_from_the_base_and_a_built_in(name, built_in):
    kind = getattr(errors, name)
    for base in (BrainFusionError, built_in):
        with pytest.raises(base) as caught:
            raise kind("what to do")
        assert str(caught.value) == "what to do"


def test_cancelled_is_not_a_built_in_error():
    assert not issubclass(Cancelled, (ValueError, OSError, RuntimeError))


def test_a_failed_registration_carries_the_best_pose_found():
    pose = RigidTransform.identity()
    assert RegistrationError("no pose", pose).best_transform is pose
    assert RegistrationError("no pose").best_transform is None


def test_the_pose_of_a_failed_registration_has_the_type_of_a_transform():
    hints = get_type_hints(RegistrationError.__init__, localns={"Transform": Transform})
    assert hints["best_transform"] == Transform | None


def test_a_remedy_is_phrased_by_each_door():
    error = BrainFusionError("two series.", remedy=Remedy.CHOOSE_SERIES, details="  1. a\n  2. b")
    assert str(error).startswith(f"two series. {Remedy.CHOOSE_SERIES.value}\n  1. a")
    assert error.phrased({Remedy.CHOOSE_SERIES: "Use --series:"}) == "two series. Use --series:\n  1. a\n  2. b"


def test_the_library_names_no_option():
    assert not [remedy for remedy in Remedy if "--" in remedy.value or " -o" in remedy.value]


def test_the_command_has_a_phrase_for_every_remedy():
    assert set(PHRASES) == set(Remedy)


@pytest.mark.parametrize("kind", [BrainFusionError, RegistrationError, errors.ImageFileError])
def test_errors_can_be_pickled(kind):
    error = kind("what", remedy=Remedy.USE_CPU, details="more")
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back), back.remedy) == (kind, str(error), Remedy.USE_CPU)


def test_work_stops_only_when_cancelled():
    stop_if(None)
    stop_if(lambda: False)
    with pytest.raises(Cancelled, match="as requested"):
        stop_if(lambda: True)
