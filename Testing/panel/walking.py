"""A user who clicks at random, and what must hold after every click; see `test_walks`."""

import hashlib
import random
import sys
import traceback
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import slicer
import slicer.util
import vtk
from answering import AnsweringRunner

from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

VOLUME, TRANSFORM = "vtkMRMLScalarVolumeNode", "vtkMRMLLinearTransformNode"
# Of the nodes that he makes in a walk, of each kind.
MOST_DRAWN = 3
PLACES = np.array([(0.0, 0.0, 0.0), (60.0, 10.0, -20.0), (-10.0, -60.0, 50.0)])
# Of Slicer's presets.xml.
OPACITY = ((-1000, 0), (152.19, 0), (278.93, 0.190476), (952, 0.2))


class KnowingRunner(AnsweringRunner):
    """Finds the true pose wherever the two volumes are, and is green about no other one.

    What it has judged is noted: no verdict may be shown for other voxels.
    """

    def __init__(self, phantom):
        super().__init__(phantom.transform)
        self.phantom, self.judged, self.exported = phantom, set(), []
        self.fails = None  # the error of the next job

    def run(self, request, inputs, progress, done):
        moves = [
            raw.lps_from_ijk @ np.linalg.inv(own.grid.lps_from_ijk)
            for raw, own in ((inputs.ct, self.phantom.ct), (inputs.mri, self.phantom.mri))
        ]
        truth = moves[0] @ self.phantom.transform.moving_from_fixed_lps @ np.linalg.inv(moves[1])
        self.pose = RigidTransform(truth)
        given = self.pose if request.given is None else request.given
        off = given.moving_from_fixed_lps - truth
        self.colour = "green" if np.abs(off @ (60, 60, 60, 1)).max() < 0.5 else "red"
        self.judged.add((digest(np.asarray(inputs.ct.array_kji)), digest(np.asarray(inputs.mri.array_kji))))
        if self.fails is not None:
            error, self.fails = self.fails, None
            done(None, error)
            return
        super().run(request, inputs, progress, done)

    def export(self, order, inputs, progress, done):
        from BrainFusionSlicer.jobs import ExportOrder, Shapes, ShapesOrder

        progress("exporting", 0.5)
        if self.meanwhile is not None:
            self.meanwhile()
        if isinstance(order, ExportOrder):
            self.exported.append((order, inputs))
            done((str(order.target / "registration.dcm"),), None)
            return
        if not isinstance(order, ShapesOrder):
            done((str(order.path),), None)
            return
        cube = Volume(np.pad(np.ones((3, 3, 3)), 1), Grid((5, 5, 5), (20.0, 20.0, 20.0), (-40.0, -40.0, -40.0)))
        corners = np.array([[x, y, z] for x in (-80, 80) for y in (-90, 90) for z in (-80, 80)], float)
        done(Shapes(corners, cube, cube), None)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def matrix_of(node):
    """The voxels of a volume to its own frame, RAS."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def world_of(node, points):
    """Where points between the voxels of a volume, (n, 3), are in the world, RAS mm."""
    own = points @ matrix_of(node)[:3, :3].T + matrix_of(node)[:3, 3]
    to_world, parent = vtk.vtkGeneralTransform(), node.GetParentTransformNode()
    if parent is not None:
        parent.GetTransformToWorld(to_world)
    return np.array([to_world.TransformPoint(point) for point in own])


def look_of(node):
    """How a node is shown: whatever its display nodes say."""
    shown = []
    for n in range(node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0):
        display = node.GetNthDisplayNode(n)
        if display is not None and display.GetSaveWithScene():
            values = [display.GetVisibility(), display.GetOpacity(), display.GetColorNodeID()]
            if display.IsA("vtkMRMLScalarVolumeDisplayNode"):
                values += [display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()]
            shown.append(tuple(values))
    return tuple(shown)


def content_of(node):
    """What a user has made of a node, apart from the transform that it is under."""
    if node.IsA("vtkMRMLVolumeNode"):
        image = node.GetImageData()
        return None if image is None else (digest(slicer.util.arrayFromVolume(node)), matrix_of(node).tobytes())
    if node.IsA("vtkMRMLTransformNode"):
        return slicer.util.arrayFromTransformMatrix(node).tobytes() if node.IsLinear() else "not linear"
    if node.IsA("vtkMRMLMarkupsNode"):
        return tuple(tuple(node.GetNthControlPointPosition(n)) for n in range(node.GetNumberOfControlPoints()))
    return None


def file_of(node):
    storage = node.GetStorageNode() if node.IsA("vtkMRMLStorableNode") else None
    return None if storage is None else storage.GetFileName()


class Walk:
    """One user, one panel, one scene."""

    def __init__(self, panel, runner, layers, phantom, tmp_path, seed):
        self.panel, self.runner, self.layers, self.phantom, self.folder = panel, runner, layers, phantom, tmp_path
        self.random = random.Random(seed)
        self.steps, self.faults = [], []
        self.serial = 0
        self.make_scene()

    # ---- the user's scene --------------------------------------------------------------------------------------------

    def make_scene(self):
        self.users, self.lent = {}, set()  # by the nodes' ids; those that may be overwritten
        bridge = sys.modules["BrainFusionSlicer.bridge"]
        made = []
        for name, volume in (("CT", self.phantom.ct), ("MRI", self.phantom.mri), ("CT2", self.phantom.ct)):
            node = slicer.mrmlScene.AddNewNodeByClass(VOLUME, f"{name}")
            bridge.node_from_volume(volume, node)
            node.SetAttribute("DICOM.instanceUIDs", f"1.2 1.3 {len(made)}")
            made.append(node)
        flair = slicer.mrmlScene.AddNewNodeByClass(VOLUME, "FLAIR")
        slicer.util.updateVolumeFromArray(flair, np.full((3, 4, 5), 7, np.int16))
        flair.CreateDefaultDisplayNodes()
        made.append(flair)
        for n, name in enumerate(("own of the CT", "own of the MRI", "plan")):
            transform = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, name)
            self.turn(transform, 10 * n, 8 * n)
            made.append(transform)
        tumour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
        tumour.SetReferenceImageGeometryParameterFromVolumeNode(made[1])
        electrode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "electrode")
        electrode.AddControlPoint(1, 2, 3)
        made += [tumour, electrode]
        for _n in range(3):  # the views of Slicer's layout
            slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
        for node in made:
            if node.IsA("vtkMRMLStorableNode") and not node.IsA("vtkMRMLSegmentationNode"):
                storage = node.CreateDefaultStorageNode()
                storage.UnRegister(None)
                slicer.mrmlScene.AddNode(storage)
                storage.SetFileName(f"/user/{node.GetName()}")
                node.SetAndObserveStorageNodeID(storage.GetID())
            self.note(node)

    def note(self, node):
        """Note what the user has made of a node, and where he has put it."""
        before = self.users.get(node.GetID())
        self.users[node.GetID()] = SimpleNamespace(
            node=node, name=node.GetName(), content=content_of(node), look=look_of(node), file=file_of(node),
            parent=self.parent_id(node), is_result=before is not None and before.is_result,
        )  # fmt: skip

    def parent_id(self, node):
        parent = node.GetParentTransformNode() if node.IsA("vtkMRMLTransformableNode") else None
        return None if parent is None else parent.GetID()

    def turn(self, transform, mm, degrees):
        moved = vtk.vtkTransform()
        moved.Translate(mm, -mm / 2, mm / 3)
        moved.RotateWXYZ(degrees, 1, 2, 3)
        before = slicer.util.arrayFromTransformMatrix(transform)
        slicer.util.updateTransformMatrixFromArray(
            transform, slicer.util.arrayFromVTKMatrix(moved.GetMatrix()) @ before
        )

    def pick(self, *kinds, ours=False):
        """One of the user's nodes, or, if asked for, one of the module's."""
        from BrainFusionSlicer import ownership

        nodes = [entry.node for entry in self.users.values() if not kinds or any(entry.node.IsA(k) for k in kinds)]
        if ours:
            scene = slicer.mrmlScene
            nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
            nodes = [n for n in nodes if ownership.role_of(n) and (not kinds or any(n.IsA(k) for k in kinds))]
        return self.random.choice(nodes) if nodes else None

    # ---- what the user does ------------------------------------------------------------------------------------------

    def click(self, name):
        button = getattr(self.panel.ui, name)
        if button.isEnabled() and not button.isHidden():
            button.click()

    def fuse(self):
        self.click("fuseButton")

    def register(self):
        self.click("registerButton")

    def check(self):
        self.click("checkButton")

    def refine(self):
        self.click("refineButton")

    def undo(self):
        self.click("undoButton")

    def adjust(self):
        self.click("adjustButton")

    def approve(self):
        self.panel.ui.signerEdit.setText("A. Surgeon")
        self.click(self.random.choice(["approveButton", "rejectButton", "commentButton"]))

    def look(self):
        self.click(
            self.random.choice(
                ["fusedCheckBox", "overlayButton", "outlineButton", "checkerboardButton", "showUnregisteredButton"]
            )
        )

    def show_errors(self):
        self.click("errorLayerButton")

    def show_3d(self):
        self.click("threeDButton")

    def jump(self):
        self.click("jumpButton")

    def swap(self):
        self.click("swapButton")

    def overwrite(self):
        from BrainFusionSlicer import panel_state

        parameters = self.panel._parameterNode
        if parameters and not self.panel.ui.overwriteButton.isHidden():
            blocked = panel_state.blocked_outputs(parameters, self.panel._permitted.nodes())
            self.lent |= {node.GetID() for node in blocked[:1]}
            self.click("overwriteButton")

    def choose(self):
        """Choose something in a box."""
        ui = self.panel.ui
        box = self.random.choice([ui.referenceComboBox, ui.referenceComboBox, ui.gridComboBox, ui.startComboBox])
        box.setCurrentIndex(self.random.randrange(box.count))

    def choose_bone(self):
        self.click("boneCheckBox")

    def choose_input(self):
        ui = self.panel.ui
        selector = self.random.choice([ui.ctSelector, ui.mriSelector, ui.mriSelector, ui.startTransformSelector])
        kind = TRANSFORM if selector is ui.startTransformSelector else VOLUME
        named = [self.named("CT"), self.named("MRI")]
        if selector is ui.ctSelector:
            named = [self.named("CT"), self.named("CT2")]
        elif selector is ui.mriSelector:
            named = [self.named("MRI"), self.named("MRI"), self.named("FLAIR"), None]
        selector.setCurrentNode(self.pick(kind) if kind == TRANSFORM else self.random.choice(named))

    def named(self, name):
        """The user's volume that was called so, whatever it is called now."""
        return next((entry.node for entry in self.users.values() if entry.name.split(" #")[0] == name), None)

    def choose_pair(self):
        self.panel.ui.ctSelector.setCurrentNode(self.named("CT"))
        self.panel.ui.mriSelector.setCurrentNode(self.named("MRI"))

    def choose_output(self):
        ui = self.panel.ui
        selector = self.random.choice([ui.fusedSelector, ui.transformSelector, ui.alphaSelector, ui.resampledSelector])
        kind = TRANSFORM if selector is ui.transformSelector else VOLUME
        what = self.random.randrange(4)
        if what == 0:
            selector.activateExtraItem("CREATE")
        else:
            selector.setCurrentNode([None, self.pick(kind), self.pick(kind, ours=True)][what - 1])

    def leave_and_enter(self):
        self.panel.exit()
        self.nothing_temporary("after leaving the panel")
        self.panel.enter()

    def drag_ours(self):
        """Drag the transform of a result: by the handles, or in the Transforms module."""
        transform = self.pick(TRANSFORM, ours=True)
        if transform is not None:
            self.turn(transform, self.random.choice([0.01, 4, -9]), self.random.choice([0, 3]))

    def drag_users(self):
        transform = self.pick(TRANSFORM)
        if transform is not None:
            self.turn(transform, 7, 5)
            self.note(transform)

    def put_under(self):
        """Put one of his nodes under one of his transforms, or under none, or under one of the module's."""
        node = self.pick("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode")
        above = self.random.choice([None, self.pick(TRANSFORM), self.pick(TRANSFORM, ours=True)])
        if node is not None:
            node.SetAndObserveTransformNodeID(None if above is None else above.GetID())
            self.note(node)

    def harden(self):
        node = self.pick("vtkMRMLVolumeNode", "vtkMRMLMarkupsNode", "vtkMRMLSegmentationNode")
        parent = None if node is None else node.GetParentTransformNode()
        if parent is not None and parent.IsTransformToWorldLinear():
            node.HardenTransform()
            self.note(node)

    def warp(self):
        """Put one of his nodes under a transform that is not linear, or out of it."""
        node = self.pick(VOLUME, TRANSFORM)
        if node is None or node.GetName().split(" #")[0] == "FLAIR":
            return
        parent = node.GetParentTransformNode()
        if parent is not None and not parent.IsTransformToWorldLinear():
            node.SetAndObserveTransformNodeID(None)
        elif self.random.random() < 0.5:
            warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
            self.note(warp)
            node.SetAndObserveTransformNodeID(warp.GetID())
        self.note(node)

    def file_away(self):
        """Make one of his nodes a child of a volume in the data tree."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node, volume = self.pick("vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode"), self.pick(VOLUME)
        if node is not None and volume is not None:
            hierarchy.CreateItem(hierarchy.GetItemByDataNode(volume) or hierarchy.GetSceneItemID(), node)

    def draw(self):
        """Draw on a volume where it is shown, as Slicer's Segment Editor does: under no transform."""
        volume = self.named(self.random.choice(["CT", "CT", "MRI"]))
        if volume is not None and sum(entry.name.startswith("drawn") for entry in self.users.values()) < MOST_DRAWN:
            drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
            drawn.SetReferenceImageGeometryParameterFromVolumeNode(volume)
            self.note(drawn)

    def place_a_point(self):
        """Place a point in the world, and file it under a volume in the data tree."""
        volume = self.named(self.random.choice(["CT", "CT", "MRI"]))
        if volume is not None and sum(entry.name.startswith("placed") for entry in self.users.values()) < MOST_DRAWN:
            placed = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "placed")
            placed.AddControlPoint(20, 10, 0)
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
            hierarchy.CreateItem(hierarchy.GetItemByDataNode(volume) or hierarchy.GetSceneItemID(), placed)
            self.note(placed)

    def clone(self):
        """Clone a volume or a transform, his own or the module's, in the data tree."""
        node = self.pick(VOLUME, TRANSFORM, ours=self.random.random() < 0.6)
        if node is None or sum("copy" in entry.name for entry in self.users.values()) >= MOST_DRAWN:
            return
        scene = slicer.mrmlScene
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
        self.serial += 1
        name = f"copy{self.serial}"
        slicer.vtkSlicerSubjectHierarchyModuleLogic.CloneSubjectHierarchyItem(hierarchy, item, name)
        self.note(scene.GetFirstNodeByName(name))

    def landmarks(self):
        self.click("placeButton")

    def export(self):
        """Save the report, or the transform."""
        self.click(self.random.choice(["saveReportButton", "saveTransformButton"]))

    def export_dicom(self):
        """Write DICOM to a folder, or into the database, at the first press or at the second."""
        button = self.random.choice(["exportButton", "databaseButton"])
        for _n in range(self.random.choice([1, 2])):
            self.click(button)
        exported, self.runner.exported = self.runner.exported, []
        for order, inputs in exported:
            if order.doubt is None:
                self.export_is_true(order, inputs)

    def export_is_true(self, order, inputs):
        """What leaves without a doubt has the true pose, in the frames of the two files."""
        parameters, flip = self.panel._parameterNode, np.diag([-1.0, -1.0, 1.0, 1.0])
        on_ct, on_mri = self.phantom.transform.apply(PLACES), PLACES
        files = [
            apply_affine(flip @ matrix_of(node) @ own.grid.ijk_from_lps, points)
            for node, own, points in (
                (parameters.ctVolume, self.phantom.ct, on_ct),
                (parameters.mriVolume, self.phantom.mri, on_mri),
            )
        ]
        off = 0.0
        if order.pose is not None:
            off = np.linalg.norm(order.pose.apply(files[1]) - files[0], axis=1).max()
        if order.moved_from_fixed is not None and order.reference == "mri":
            ijk = apply_affine(np.linalg.inv(inputs.ct.lps_from_ijk), order.moved_from_fixed.apply(files[1]))
            off = max(off, np.linalg.norm(apply_affine(self.phantom.ct.grid.lps_from_ijk, ijk) - on_ct, axis=1).max())
        if off > 1.0:
            self.faults.append(f"a pose that is {off:.1f} mm off was exported without a doubt")

    def rename(self):
        node = self.pick(ours=self.random.random() < 0.3)
        if node is not None:
            self.serial += 1
            node.SetName(f"{node.GetName().split(' #')[0]} #{self.serial}")
            if node.GetID() in self.users:
                self.note(node)

    def recolour(self):
        node = self.pick(VOLUME)
        if node is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetAutoWindowLevel(False)
            node.GetDisplayNode().SetWindowLevel(self.random.randrange(100, 900), 40)
            self.note(node)

    def paint(self):
        node = self.pick(VOLUME, ours=self.random.random() < 0.5)
        if node is not None and node.GetImageData() is not None:
            slicer.util.arrayFromVolume(node)[0, 0, 0] += 1
            slicer.util.arrayFromVolumeModified(node)
            if node.GetID() in self.users:
                self.note(node)
            else:  # a result that the user has worked on
                self.note(node)
                self.users[node.GetID()].is_result = True

    def delete(self):
        node = self.pick(ours=self.random.random() < 0.7)
        if node is None or (node.GetName().split(" #")[0] in ("CT", "MRI") and self.random.random() < 0.8):
            return
        key = node.GetID()
        self.users.pop(key, None)
        under = [entry for entry in self.users.values() if entry.parent == key]
        slicer.mrmlScene.RemoveNode(node)
        for entry in under:  # a result's transform gives back what it has moved
            entry.parent = self.parent_id(entry.node)

    def meanwhile(self):
        """Do something while a job runs."""
        what = self.random.choice(
            [self.choose_input, self.put_under, self.delete, self.rename, self.paint, self.harden, self.drag_users,
             self.leave_and_enter, self.recolour, self.drag_ours, self.look, self.undo]
        )  # fmt: skip
        start = self.random.choice([self.fuse, self.register, self.check, self.refine, self.show_3d])
        self.steps.append(f"  ({start.__name__}, and meanwhile {what.__name__})")

        def act():
            self.runner.meanwhile = None
            what()

        self.runner.meanwhile = act
        start()
        self.runner.meanwhile = None

    def fail(self):
        from BrainFusionLib.errors import RegistrationError

        self.runner.fails = RegistrationError("could not be aligned", RigidTransform.identity())
        self.random.choice([self.fuse, self.register, self.check])()
        self.runner.fails = None

    def save_and_load(self):
        """Save the scene, close it, and load it again."""
        self.serial += 1
        path = str(self.folder / f"scene{self.serial}.mrb")
        for key, entry in self.users.items():
            entry.node.SetAttribute("Walk.Key", key)
        assert slicer.mrmlScene.WriteToMRB(path)
        self.panel.exit()
        slicer.mrmlScene.Clear()
        self.panel.enter()
        assert slicer.mrmlScene.ReadFromMRB(path, True)
        scene, before, self.users = slicer.mrmlScene, self.users, {}
        for node in [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]:
            entry = before.get(node.GetAttribute("Walk.Key") or "")
            if entry is None:
                continue
            self.note(node)
            self.users[node.GetID()].is_result = entry.is_result
            made = content_of(node)
            if node.IsA("vtkMRMLVolumeNode") and entry.content is not None:  # numbers in headers are rounded
                geometry = [np.frombuffer(content[1]) for content in (entry.content, made)]
                if entry.content[0] != made[0] or not np.allclose(*geometry, atol=1e-4):
                    self.faults.append(f"{entry.name} came back changed from the saved scene")
        ids = {entry.node.GetAttribute("Walk.Key"): key for key, entry in self.users.items()}
        for entry in self.users.values():  # where he had put them, by the new ids
            was = before[entry.node.GetAttribute("Walk.Key")].parent
            entry.parent = ids.get(was, entry.parent) if was else None
        self.lent = {ids[key] for key in self.lent if key in ids}

    def add_scene(self):
        """Add a scene that was saved before to this one, as by dropping it onto the window."""
        self.serial += 1
        path = str(self.folder / f"scene{self.serial}.mrb")
        for entry in self.users.values():
            entry.node.RemoveAttribute("Walk.Key")  # the copies are nobody's
        assert slicer.mrmlScene.WriteToMRB(path)
        for entry in self.users.values():
            entry.file = file_of(entry.node)
        assert slicer.mrmlScene.ReadFromMRB(path, False)

    def close_scene(self):
        slicer.mrmlScene.Clear()
        self.make_scene()
        self.choose_pair()

    # ---- what must hold ----------------------------------------------------------------------------------------------

    ACTIONS: ClassVar = {
        "fuse": 10, "register": 6, "check": 5, "refine": 5, "undo": 10, "adjust": 6, "approve": 6, "look": 10,
        "show_errors": 3, "show_3d": 4, "jump": 1, "swap": 1, "overwrite": 2, "choose": 8, "choose_bone": 2,
        "choose_input": 4, "choose_pair": 6, "choose_output": 4, "leave_and_enter": 3, "drag_ours": 6, "drag_users": 4,
        "put_under": 6, "harden": 2, "rename": 3, "recolour": 2, "paint": 2, "delete": 3, "meanwhile": 6, "fail": 2,
        "save_and_load": 1, "close_scene": 1, "warp": 1, "file_away": 2, "landmarks": 2, "export": 2,
        "export_dicom": 3, "add_scene": 1, "draw": 4, "place_a_point": 2, "clone": 2,
    }  # fmt: skip
    # What moves nothing but what it says: the module's own buttons.
    BUTTONS: ClassVar = {
        "fuse", "register", "check", "refine", "undo", "approve", "look", "show_errors", "show_3d", "jump", "swap",
        "overwrite", "choose", "choose_bone", "choose_input", "choose_pair", "choose_output", "leave_and_enter", "fail",
        "landmarks", "export", "export_dicom",
    }  # fmt: skip

    def go(self, steps):
        """Walk; return the faults, each with the steps that led to it."""
        self.choose_pair()
        names = list(self.ACTIONS)
        for _n in range(steps):
            name = self.random.choices(names, [self.ACTIONS[name] for name in names])[0]
            self.steps.append(name)
            before = self.places() if name in self.BUTTONS else None
            try:
                getattr(self, name)()
                self.check_all(name)
                if before is not None:
                    self.nothing_is_moved_by_itself(name, before)
            except Exception as error:
                self.raised(type(error), error, error.__traceback__)
            if self.faults:
                break
        return [f"{fault}\n  after: {', '.join(self.steps[-25:])}" for fault in self.faults]

    def raised(self, kind, error, trace):
        """Note what a callback of Qt or VTK has raised, which they only print."""
        lines = traceback.format_exception(kind, error, trace)
        self.faults.append("".join(lines[-4:]))

    def check_all(self, name):
        self.users_nodes_are_untouched(name)
        self.green_is_true(name)
        self.results_are_where_they_belong(name)
        self.views_are_true(name)

    def places(self):
        """Where his nodes are, by their ids: the transforms above them as a matrix, and the one that they are under."""
        found = {}
        for key, entry in self.users.items():
            parent = entry.node.GetParentTransformNode() if entry.node.IsA("vtkMRMLTransformableNode") else None
            if parent is None or parent.IsTransformToWorldLinear():
                world = np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
                found[key] = (world, parent)
        return found

    def nothing_is_moved_by_itself(self, name, before):
        """Each of his nodes stands where it did, or was moved with one of the volumes, or by a result it is under."""
        from BrainFusionSlicer import ownership

        now = self.places()
        moves = {key: now[key][0] @ np.linalg.inv(before[key][0]) for key in now.keys() & before.keys()}
        volumes = [self.named(word) for word in ("CT", "CT2", "MRI")]
        with_volumes = [moves[node.GetID()] for node in volumes if node is not None and node.GetID() in moves]
        for key, move in moves.items():
            parents = now[key][1], before[key][1]
            is_under_ours = parents[0] is not None and ownership.role_of(parents[0]) == "transform"
            if parents[0] == parents[1] and is_under_ours:
                continue
            if not any(np.allclose(move, other, atol=1e-4) for other in (np.eye(4), *with_volumes)):
                self.faults.append(f"{name}: {self.users[key].name} was moved by itself")

    def views_are_true(self, name):
        """The CT in colour stands where the CT does."""
        from BrainFusionSlicer import ownership

        for shown in slicer.util.getNodesByClass(VOLUME):
            if ownership.review_role_of(shown) != "CT":
                continue
            of = [n for n in slicer.util.getNodesByClass(VOLUME) if n.GetImageData() == shown.GetImageData()]
            same = [
                n.GetParentTransformNode() == shown.GetParentTransformNode()
                and np.allclose(matrix_of(n), matrix_of(shown))
                for n in of
                if n != shown
            ]
            if not any(same):
                self.faults.append(f"{name}: the CT in colour is not where the CT is")

    def users_nodes_are_untouched(self, name):
        from BrainFusionSlicer import ownership

        for key, entry in list(self.users.items()):
            node = entry.node
            if node.GetScene() is None:
                self.faults.append(f"{name}: {entry.name} was removed")
                self.users.pop(key)
                continue
            if ownership.role_of(node) is not None and not entry.is_result:
                if key not in self.lent:
                    self.faults.append(
                        f"{name}: {entry.name} was taken as an output without a question {key} {self.lent}"
                    )
                self.users.pop(key)
                continue
            kept = {
                "name": node.GetName() == entry.name,
                "content": content_of(node) == entry.content,
                "display": entry.is_result or look_of(node) == entry.look,
                "file": file_of(node) == entry.file,
            }
            if entry.is_result and not kept["content"] and key in self.lent:
                self.users.pop(key)
                continue
            changed = [what for what, is_kept in kept.items() if not is_kept]
            self.faults += [f"{name}: the {what} of {entry.name} was changed" for what in changed]
            parent = node.GetParentTransformNode() if node.IsA("vtkMRMLTransformableNode") else None
            is_ours = parent is not None and ownership.role_of(parent) == "transform"
            if self.parent_id(node) != entry.parent and not is_ours and not entry.is_result:
                was = entry.parent and slicer.mrmlScene.GetNodeByID(entry.parent)
                # Under a result's transform he had put it himself, which Undo has taken it out of.
                if was is None or ownership.role_of(was) is None:
                    self.faults.append(f"{name}: {entry.name} is under {self.parent_id(node)}, not {entry.parent}")

    def green_is_true(self, name):
        from BrainFusionSlicer import ownership

        ui, parameters = self.panel.ui, self.panel._parameterNode
        if not parameters or "Green" not in ui.verdictLabel.text or ui.verdictFrame.isHidden():
            return
        ct, mri = parameters.ctVolume, parameters.mriVolume
        if ownership.registered_ct_of(self.panel.registeredNodes()[0]) not in (None, ct):
            return  # a resampled CT is what was registered, and is what is shown
        places = []
        for node, own, points in (
            (ct, self.phantom.ct, self.phantom.transform.apply(PLACES)),
            (mri, self.phantom.mri, PLACES),
        ):
            places.append(world_of(node, apply_affine(own.grid.ijk_from_lps, points)))
        off = np.linalg.norm(places[0] - places[1], axis=1).max()
        if off > 1.0:
            self.faults.append(f"{name}: green, and the two are {off:.1f} mm off")
        if tuple(digest(slicer.util.arrayFromVolume(node)) for node in (ct, mri)) not in self.runner.judged:
            self.faults.append(f"{name}: green for voxels that were never judged")

    def results_are_where_they_belong(self, name):
        """A fused volume that is approved, or shown beside its verdict, lies on the volume whose voxels it has."""
        from BrainFusionSlicer import decisions, ownership

        ui, parameters = self.panel.ui, self.panel._parameterNode
        if not parameters or self.panel._state.card is None:
            return
        fused = self.panel.registeredNodes()[0]
        if fused is None or self.panel._state.card.colour not in ("green", "amber", "red"):
            return
        approved = decisions.state_of(fused) == "approved"
        is_of_fused = "earlier pose" not in ui.verdictFindingsLabel.text and ui.outlineButton.isEnabled()
        if not (approved or is_of_fused):
            return
        pairs = {"mri": parameters.mriVolume, "ct": parameters.ctVolume}
        grid = fused.GetAttribute(ownership.GRID_ATTRIBUTE) or "mri"
        if grid in pairs and fused.GetImageData() is not None and fused.GetID() not in self.users:
            off = np.linalg.norm(world_of(fused, PLACES) - world_of(pairs[grid], PLACES), axis=1).max()
            if off > 0.5:
                self.faults.append(f"{name}: the fused volume is {off:.1f} mm off the {grid}, beside a verdict")

    def everything_is_undone(self):
        """By Undo alone all of his nodes are where he had put them, as far as that can be known."""
        from BrainFusionSlicer import ownership, registered_ct

        self.panel.enter()
        for name in ("CT", "CT2"):
            self.choose_pair()
            self.panel.ui.ctSelector.setCurrentNode(self.named(name))
            for _n in range(200):
                if self.panel.ui.undoButton.isHidden() or not self.panel.ui.undoButton.isEnabled():
                    break
                self.panel.ui.undoButton.click()
                if registered_ct.standing_of(self.named(name), self.named("MRI")).name in ("HARDENED", "HOMELESS"):
                    self.panel.ui.undoButton.click()  # it stays, to say why
                    break
            left = registered_ct.abandoned_by(self.named(name), self.named("MRI"))
            if left and self.named(name) is not None and self.named("MRI") is not None:
                self.faults.append(f"Undo did not reach {[node.GetName() for node in left]}")
            self.check_all("undo")
        for entry in self.users.values():
            parent = slicer.mrmlScene.GetNodeByID(entry.parent) if entry.parent else None
            now = self.parent_id(entry.node)
            above = None if now is None else slicer.mrmlScene.GetNodeByID(now)
            is_ours = above is not None and ownership.role_of(above) == "transform"
            if now != entry.parent and not is_ours and (parent is None or ownership.role_of(parent) is None):
                self.faults.append(f"after all was undone {entry.name} is under {now}, not {entry.parent}")

    def nothing_temporary(self, when):
        from BrainFusionSlicer import ownership, three_d

        scene = slicer.mrmlScene
        for n in range(scene.GetNumberOfNodes()):
            node = scene.GetNthNode(n)
            role = ownership.review_role_of(node)
            if role is not None and role != ownership.THREE_D_ROLE:
                self.faults.append(f"{when}: {node.GetName()} ({role}) was left")
            if node.GetAttribute("BrainFusion.Adjusting"):
                self.faults.append(f"{when}: {node.GetName()} still has its handles")
        if not three_d.is_shown(scene):
            left = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode")]
            self.faults += [f"{when}: {left} was left"] if left else []
