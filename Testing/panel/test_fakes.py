"""The fakes have the habits of the real classes, and Slicer's real scene has those that the panel relies on."""

import enum
import typing

import fakes
import pytest
import slicer
import vtk

VOLUME = "vtkMRMLScalarVolumeNode"


@pytest.fixture
def scene(module):
    return slicer.mrmlScene


@pytest.fixture
def observe(scene):
    """Add observers to the scene until the test ends: a scene that is destroyed calls those that are left."""
    tags = []
    yield lambda event, call: tags.append(scene.AddObserver(event, call))
    for tag in tags:
        scene.RemoveObserver(tag)


@pytest.fixture
def selector(scene):
    made = fakes.NodeComboBox()
    made.types = [VOLUME]
    made.setMRMLScene(scene)
    yield made
    made.leaveScene()


@pytest.fixture
def volumes(scene, selector):
    return [scene.AddNewNodeByClass(VOLUME, name) for name in ("first", "second", "third")]


@pytest.mark.parametrize(("removed", "then"), [(0, 1), (1, 2), (2, 1)])
def test_a_selector_jumps_to_a_neighbour_when_its_node_is_removed(scene, selector, volumes, removed, then):
    selector.setCurrentNode(volumes[removed])
    heard = []
    selector.currentNodeChanged.connect(heard.append)
    scene.RemoveNode(volumes[removed])
    assert selector.currentNode() == volumes[then]
    assert heard == [volumes[then]]


def test_a_selector_hears_of_a_removal_after_observers_of_default_priority(scene, selector, volumes, observe):
    selector.setCurrentNode(volumes[1])
    order = []
    observe(scene.NodeAboutToBeRemovedEvent, lambda caller, event: order.append("observer"))
    selector.currentNodeChanged.connect(lambda node: order.append("selector"))
    scene.RemoveNode(volumes[1])
    assert order == ["observer", "selector"]


def test_a_programs_choice_is_activated_too(selector, volumes):
    heard = []
    selector.nodeActivated.connect(heard.append)
    selector.setCurrentNode(volumes[1])
    selector.setCurrentNode(volumes[1])
    selector.setCurrentNode(None)
    assert heard == [volumes[1]]


def test_a_new_name_of_the_current_node_counts_as_a_change(selector, volumes):
    selector.setCurrentNode(volumes[1])
    heard = []
    selector.currentNodeChanged.connect(heard.append)
    volumes[0].SetName("renamed")
    assert heard == []
    volumes[1].SetName("renamed, too")
    assert heard == [volumes[1]]


def test_only_the_menu_is_the_users_action(selector):
    by_user, by_action = [], []
    selector.nodeAddedByUser.connect(by_user.append)
    selector.nodeAddedByUserAction.connect(by_action.append)
    added = selector.addNode()
    assert (by_user, by_action) == ([added], [])
    selector.activateExtraItem("CREATE/Volume")
    assert by_action == by_user[1:] == [selector.currentNode()]


def test_the_scene_names_none_of_its_events(scene, observe):
    """So an observer that serves two events cannot tell which one it was called for."""
    heard = []
    for event in (scene.StartCloseEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
        observe(event, lambda caller, name: heard.append(name))
    scene.RemoveNode(scene.AddNewNodeByClass(VOLUME))
    scene.Clear()
    assert set(heard) == {"NoEvent"}


def test_an_observer_of_a_removal_gets_the_node_while_its_references_stand(scene, volumes, observe):
    volumes[0].SetNodeReferenceID("other", volumes[1].GetID())
    heard = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def gone(caller, event, node):
        heard.append((node, volumes[0].GetNodeReference("other")))

    observe(scene.NodeAboutToBeRemovedEvent, gone)
    scene.RemoveNode(volumes[1])
    assert heard == [(volumes[1], volumes[1])]
    assert volumes[0].GetNodeReferenceID("other") is None


def test_a_selector_does_not_offer_hidden_nodes(scene, selector, volumes):
    hidden = scene.CreateNodeByClass(VOLUME)
    hidden.UnRegister(None)
    hidden.SetHideFromEditors(True)
    scene.AddNode(hidden)
    selector.setCurrentNode(hidden)
    assert selector.currentNode() is None


def test_a_selector_offers_nodes_of_an_imported_scene_when_the_import_has_ended(scene, selector, observe, tmp_path):
    scene.AddNewNodeByClass(VOLUME, "saved")
    path = str(tmp_path / "scene.mrml")
    scene.Commit(path)
    scene.Clear()
    heard = []

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(caller, event, node):
        if node.IsA(VOLUME):
            selector.setCurrentNode(node)
            heard.append(selector.currentNode())

    def choose(caller, event):
        selector.setCurrentNode(scene.GetFirstNodeByName("saved"))
        heard.append(selector.currentNode())

    observe(scene.NodeAddedEvent, added)
    observe(scene.EndImportEvent, choose)
    scene.SetURL(path)
    scene.Import()
    assert heard == [None, scene.GetFirstNodeByName("saved")]


class Size(enum.Enum):
    small = "Small"
    large = "Large"


class Chosen:
    size: Size
    mask: typing.Union[slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007


@pytest.fixture
def parameters(scene):
    return scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


def test_the_wrapper_keeps_members_by_name_and_raises_on_names_that_it_lacks(parameters):
    wrapped = fakes.parameter_node_wrapper(Chosen)(parameters)
    assert wrapped.size is Size.small
    wrapped.size = Size.large
    assert parameters.GetParameter("size") == "large"
    del wrapped
    parameters.SetParameter("size", "removed")
    with pytest.raises(ValueError, match="not a name"):
        fakes.parameter_node_wrapper(Chosen)(parameters)


def test_the_wrapper_keeps_a_node_of_a_union_under_the_number_of_its_class(scene, parameters):
    wrapped = fakes.parameter_node_wrapper(Chosen)(parameters)
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    wrapped.mask = labels
    assert parameters.GetNodeReference("mask.1") == labels
    wrapped.mask = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert parameters.GetNodeReference("mask.1") is None
    wrapped.mask = None
    assert wrapped.mask is None


def test_a_scene_says_nothing_when_it_is_saved(scene, observe, tmp_path):
    """So what must not be saved has to be marked, and cannot be put away in time."""
    heard = []
    for event in (scene.StartSaveEvent, scene.EndSaveEvent):
        observe(event, lambda caller, name: heard.append(name))
    assert scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    assert heard == []


def test_widgets_have_words_and_numbers_as_in_pythonqt_and_refuse_calls(application):
    """PythonQt finds a property ahead of the method of its name, and no setter that is not a slot."""
    label, box, edit = fakes.Label("words"), fakes.CheckBox(), fakes.LineEdit("name")
    assert (label.text, edit.text, box.checked, box.isChecked(), box.enabled) == ("words", "name", False, False, True)
    for read in (label, edit, fakes.Button("press")):
        with pytest.raises(TypeError, match="not callable"):
            read.text()
    assert not hasattr(fakes.SliderWidget, "setMinimum")
    assert not hasattr(fakes.NodeComboBox, "currentIndex")


@pytest.mark.parametrize(
    ("widget", "signal"),
    [
        (fakes.Button, "clicked(int)"),
        (fakes.SliderWidget, "valueChanged(float)"),
        (fakes.NodeComboBox, "changed(bool)"),
    ],
)
def test_a_signal_that_a_class_does_not_have_is_not_connected(application, widget, signal):
    with pytest.raises(AssertionError, match="has no signal"):
        widget().connect(signal, print)


def test_the_display_of_a_node_that_is_removed_is_removed_by_slicer(scene, volumes):
    volumes[0].CreateDefaultDisplayNodes()
    display = volumes[0].GetDisplayNode()
    scene.RemoveNode(volumes[0])
    assert display.GetScene() is None
