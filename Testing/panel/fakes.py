"""Stand-ins for what the panel needs of Slicer's application, on PySide6 without a screen.

Each follows a file of the Slicer 5.12 sources, or of CTK's, which its docstring names; what the real thing does not
have, the fake does not have either. PythonQt's ways (properties read without calling, connecting signals by name) are
made here, so that the module is the same in both: `as_in_pythonqt` makes ``label.text()`` fail as it does in Slicer.
"""

import enum
import itertools
import typing
import weakref
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import vtk
from PySide6 import QtCore, QtGui, QtWidgets

NODE_CHANGED = "currentNodeChanged(vtkMRMLNode*)"
HEIGHT = 16777215  # QWIDGETSIZE_MAX


# Those of the fakes whose arguments PySide6 knows as objects only.
MRML_SIGNALS = {f"{name}(vtkMRMLNode*)" for name in ("currentNodeChanged", "nodeAddedByUserAction")}


def connect(self, signature, slot):
    """PythonQt's QObject.connect(signal, slot): PythonQt/src/PythonQt.cpp; a signal that is not there is an error here.

    The real one prints a line, and nothing is ever heard.
    """
    is_known = signature in MRML_SIGNALS or self.metaObject().indexOfSignal(signature) >= 0
    assert is_known, f"{type(self).__name__} has no signal {signature}"
    getattr(self, signature.partition("(")[0]).connect(slot)


def as_in_pythonqt(kind):
    """Give a class Qt's properties as PythonQt's member lookup does, ahead of the methods of the same names.

    PythonQt/src/PythonQtClassInfo.cpp, `member`: ``text`` is a word, and ``text()`` an error; ``isChecked`` is no
    property, and stays a method beside ``checked``.
    """

    def made(name):
        return property(
            lambda self: QtCore.QObject.property(self, name), lambda self, value: self.setProperty(name, value)
        )

    meta = kind.staticMetaObject
    names = {meta.property(n).name() for n in range(meta.propertyCount())} - set(vars(kind))
    virtual = {"sizeHint", "minimumSizeHint"} | ({"text"} if issubclass(kind, QtWidgets.QProgressBar) else set())
    for name in names - virtual:  # C++ calls those, and would find the property
        setattr(kind, name, made(name))
    kind.connect = connect
    return kind


class Label(QtWidgets.QLabel):
    """QLabel."""


class Frame(QtWidgets.QFrame):
    """QFrame."""


class Button(QtWidgets.QPushButton):
    """QPushButton."""


class CheckBox(QtWidgets.QCheckBox):
    """QCheckBox."""


class ComboBox(QtWidgets.QComboBox):
    """QComboBox."""


class LineEdit(QtWidgets.QLineEdit):
    """QLineEdit."""


class DoubleSpinBox(QtWidgets.QDoubleSpinBox):
    """QDoubleSpinBox."""


class FileDialog(QtWidgets.QFileDialog):
    """QFileDialog; PythonQt returns the chosen name alone, PySide6 with the filter (which is an argument in C++)."""

    @staticmethod
    def getSaveFileName(*words):  # noqa: N802
        return QtWidgets.QFileDialog.getSaveFileName(*words)[0]

    @staticmethod
    def getOpenFileName(*words):  # noqa: N802
        return QtWidgets.QFileDialog.getOpenFileName(*words)[0]


class Table(QtWidgets.QTableWidget):
    """QTableWidget."""


class ProgressBar(QtWidgets.QProgressBar):
    """QProgressBar."""


class MRMLWidget(QtWidgets.QWidget):
    """qMRMLWidget: Libs/MRML/Widgets/qMRMLWidget.h."""

    mrmlSceneChanged = QtCore.Signal(object)  # noqa: N815

    def setMRMLScene(self, scene):  # noqa: N802
        self.mrmlSceneChanged.emit(scene)


class CollapsibleButton(QtWidgets.QGroupBox):
    """ctkCollapsibleButton: CTK, Libs/Widgets/ctkCollapsibleButton.h; a group box that shows a title."""

    text = property(lambda self: self.title, lambda self, text: self.setTitle(text))
    collapsed = property(lambda self: self.maximumHeight < HEIGHT, lambda self, collapsed: self.setCollapsed(collapsed))

    def setCollapsed(self, collapsed):  # noqa: N802
        self.setMaximumHeight(self.fontMetrics().height() + 6 if collapsed else HEIGHT)


class SliderWidget(QtWidgets.QWidget):
    """ctkSliderWidget: CTK, Libs/Widgets/ctkSliderWidget.h; double values, a slider with a number beside it.

    Of its setters only ``setValue`` is a slot; the others are properties.
    """

    valueChanged = QtCore.Signal(float)  # noqa: N815

    def __init__(self):
        super().__init__()
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal)
        self._slider.setRange(0, 100)
        self._suffix = ""
        self._number = QtWidgets.QLabel()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._number)
        self._slider.valueChanged.connect(self._changed)

    def _changed(self, step):
        self._number.setText(f"{step / 100:.2f}{self._suffix}")
        self.valueChanged.emit(step / 100)

    def _set_suffix(self, suffix):
        self._suffix = suffix
        self._changed(self._slider.value())

    def setValue(self, value):  # noqa: N802
        self._slider.setValue(round(100 * value))

    value = property(lambda self: self._slider.value() / 100, setValue)
    minimum = property(
        lambda self: self._slider.minimum() / 100, lambda self, value: self._slider.setMinimum(round(100 * value))
    )
    maximum = property(
        lambda self: self._slider.maximum() / 100, lambda self, value: self._slider.setMaximum(round(100 * value))
    )
    suffix = property(lambda self: self._suffix, _set_suffix)


SELECTORS, FOLLOWED = weakref.WeakSet(), weakref.WeakSet()


# No closure: where nothing in Python holds a node, the garbage collector clears what is called for its events.
def tell_selectors(caller, event):
    scene, name = caller.GetScene(), caller.GetID()
    for selector in list(SELECTORS):
        if selector.scene == scene and name in selector._ids:
            selector.rename(caller)


class NodeComboBox(QtWidgets.QWidget):
    """qMRMLNodeComboBox: Libs/MRML/Widgets/qMRMLNodeComboBox.h; the nodes of some classes, and none.

    A widget with a box in it, and not a box.

    With its habits: when its node is removed, Qt moves to the row that takes its place, and that node is chosen; its
    model hears of a removal at priority -10, before references to the node are cleared; a program's ``setCurrentNode``
    is activated like a user's choice; ``addNode`` counts as the user's, whoever calls it; while a scene is imported
    its nodes are not offered (qMRMLSceneModel.cxx), only when that ends, to observers that were there earlier; a new
    name of the current node counts as a change (it listens to QComboBox::currentTextChanged, which Qt 5.15, of which
    Slicer 5.12 is made, sends whenever the index changes; Qt 6.12 does not where two nodes have one name).
    """

    currentNodeChanged = QtCore.Signal(object)  # noqa: N815
    nodeActivated = QtCore.Signal(object)  # noqa: N815
    nodeAddedByUser = QtCore.Signal(object)  # noqa: N815
    nodeAddedByUserAction = QtCore.Signal(object)  # noqa: N815

    def __init__(self):
        super().__init__()
        self.scene, self.types, self.none, self._ids = None, [], "None", [None]
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self.setFocusProxy(self._box)
        self._box.currentIndexChanged.connect(self._changed)
        SELECTORS.add(self)

    def _changed(self, index):
        if index >= 0:
            self.currentNodeChanged.emit(self.currentNode())

    def rename(self, node):
        """Show a node's name as it is: qMRMLSceneModel::onMRMLNodeModified."""
        row = self._ids.index(node.GetID())
        if self._box.itemText(row) != node.GetName():
            self._box.setItemText(row, node.GetName())
            if row == self._box.currentIndex():
                self._changed(row)

    def setMRMLScene(self, scene):  # noqa: N802
        self.scene = scene
        self._tags = [
            scene.AddObserver(event, lambda caller, event: self._fill())
            for event in (scene.EndCloseEvent, scene.EndImportEvent)
        ]
        self._tags.append(
            scene.AddObserver(
                scene.NodeAddedEvent, lambda caller, event: None if scene.IsImporting() else self._fill(), 10.0
            )
        )
        self._tags.append(scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._remove, -10.0))
        self._fill()

    def leaveScene(self):  # noqa: N802
        """What the destructor does; Python may collect the scene first."""
        SELECTORS.discard(self)
        for tag in self._tags:
            self.scene.RemoveObserver(tag)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _remove(self, scene, event, node):
        if scene.IsClosing() or node.GetID() not in self._ids:
            return
        row = self._ids.index(node.GetID())
        del self._ids[row]
        self._box.removeItem(row)  # if it was the current row, Qt makes the next one current, or the last

    def _fill(self):
        current = self._ids[max(0, self._box.currentIndex())]
        self._box.blockSignals(True)
        self._box.clear()
        self._box.addItem(self.none)
        self._ids = [None]
        for kind in self.types:
            for index in range(self.scene.GetNumberOfNodesByClass(kind)):
                node = self.scene.GetNthNodeByClass(index, kind)
                if node.GetClassName() == kind and not node.GetHideFromEditors():
                    self._box.addItem(node.GetName())
                    self._ids.append(node.GetID())
                    if node not in FOLLOWED:
                        FOLLOWED.add(node)
                        node.AddObserver(vtk.vtkCommand.ModifiedEvent, tell_selectors)
        self._box.setCurrentIndex(self._ids.index(current) if current in self._ids else 0)
        self._box.blockSignals(False)
        if current not in self._ids:
            self.currentNodeChanged.emit(None)

    def currentNode(self):  # noqa: N802
        chosen = self._ids[max(0, self._box.currentIndex())]
        return None if chosen is None else self.scene.GetNodeByID(chosen)

    def setCurrentNode(self, node):  # noqa: N802
        wanted = None if node is None else node.GetID()
        row = self._ids.index(wanted) if wanted in self._ids else 0
        if row != self._box.currentIndex():
            self._box.setCurrentIndex(row)
            if row > 0:
                self.nodeActivated.emit(node)

    def addNode(self, kind=None):  # noqa: N802
        node = self.scene.AddNewNodeByClass(kind or self.types[0])
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def activateExtraItem(self, data):  # noqa: N802
        """A click on an item of the menu; the real one takes the item's index."""
        if data.startswith("CREATE"):
            self.nodeAddedByUserAction.emit(self.addNode())
        elif data.startswith("DELETE"):
            self.scene.RemoveNode(self.currentNode())


CLASSES = {
    "QLabel": Label, "QFrame": Frame, "QPushButton": Button, "QCheckBox": CheckBox, "QComboBox": ComboBox,
    "QProgressBar": ProgressBar, "QLineEdit": LineEdit, "QTableWidget": Table,
    "QDoubleSpinBox": DoubleSpinBox, "qMRMLWidget": MRMLWidget,
    "ctkCollapsibleButton": CollapsibleButton, "ctkSliderWidget": SliderWidget, "qMRMLNodeComboBox": NodeComboBox,
}  # fmt: skip
for _class in CLASSES.values():
    as_in_pythonqt(_class)
LAYOUTS = {
    "QVBoxLayout": QtWidgets.QVBoxLayout,
    "QHBoxLayout": QtWidgets.QHBoxLayout,
    "QFormLayout": QtWidgets.QFormLayout,
}


def load_ui(path):
    """slicer.util.loadUI. QUiLoader with an overridden createWidget crashes in PySide6; this reads what we use."""
    root = ElementTree.parse(path).getroot()
    used = {widget.get("class") for widget in root.iter("widget") if not widget.get("class").startswith("Q")}
    declared = {custom.findtext("class") for custom in root.iter("customwidget")}
    assert used == declared, f"{path}: Qt knows no such classes by itself, or none of these is used: {used ^ declared}"
    found = {}
    top = _widget(root.find("widget"), found)
    for connection in root.iter("connection"):
        assert connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        found[connection.findtext("sender")].mrmlSceneChanged.connect(
            found[connection.findtext("receiver")].setMRMLScene
        )
    stops = [found[stop.text] for stop in root.iter("tabstop")]
    for first, second in itertools.pairwise(stops):
        QtWidgets.QWidget.setTabOrder(first, second)
    for label in root.iter("widget"):
        buddy = label.find("property[@name='buddy']/cstring")
        if buddy is not None:
            found[label.get("name")].setBuddy(found[buddy.text])
    top.found = found
    return top


def _widget(element, found):
    widget = CLASSES[element.get("class")]()
    widget.setObjectName(element.get("name"))
    found[element.get("name")] = widget
    for prop in element.findall("property"):
        _set(widget, prop)
    if element.find("attribute[@name='horizontalHeaderStretchLastSection']") is not None:
        widget.horizontalHeader().setStretchLastSection(True)
    layout = element.find("layout")
    if layout is not None:
        widget.setLayout(_layout(layout, found))
    return widget


def _set(widget, prop):
    name, value = prop.get("name"), prop[0]
    if name in ("buddy", "geometry"):
        return
    if name == "nodeTypes":
        widget.types = [entry.text for entry in value]
    elif name == "noneDisplay":
        widget.none = value.text
    elif name == "SlicerParameterName":
        widget.setProperty(name, value.text)
    elif name in ("showChildNodeTypes", "noneEnabled", "addEnabled", "renameEnabled", "removeEnabled"):
        assert isinstance(widget, NodeComboBox)
    elif isinstance(widget, SliderWidget) and name == "singleStep":
        assert value.tag == "double"
    elif name == "editTriggers":
        assert value.text == "QAbstractItemView::NoEditTriggers"
        widget.setEditTriggers(QtWidgets.QAbstractItemView.NoEditTriggers)
    elif value.tag == "set":
        widget.setTextInteractionFlags(QtCore.Qt.TextSelectableByMouse | QtCore.Qt.TextSelectableByKeyboard)
    elif value.tag == "enum":
        widget.setFrameShape(QtWidgets.QFrame.StyledPanel)
    else:
        parsed = {"bool": lambda t: t == "true", "number": int, "double": float}.get(value.tag, str)(value.text or "")
        assert isinstance(getattr(type(widget), name), property), f"{type(widget).__name__} has no {name}"
        setattr(widget, name, parsed)


def _layout(element, found):
    layout = LAYOUTS[element.get("class")]()
    numbers = {prop.get("name"): int(prop.findtext("number")) for prop in element.findall("property")}
    if "spacing" in numbers:
        layout.setSpacing(numbers.pop("spacing"))
    if numbers:
        layout.setContentsMargins(*(numbers[f"{side}Margin"] for side in ("left", "top", "right", "bottom")))
    for item in element.findall("item"):
        child = item[0]
        if child.tag == "spacer":
            layout.addStretch()
            continue
        made = _widget(child, found) if child.tag == "widget" else _layout(child, found)
        if isinstance(layout, QtWidgets.QFormLayout):
            role = QtWidgets.QFormLayout.FieldRole if item.get("column") == "1" else QtWidgets.QFormLayout.LabelRole
            if item.get("colspan"):
                role = QtWidgets.QFormLayout.SpanningRole
            (layout.setWidget if child.tag == "widget" else layout.setLayout)(int(item.get("row")), role, made)
        elif child.tag == "widget":
            layout.addWidget(made)
        else:
            layout.addLayout(made)
    for index, factor in enumerate((element.get("stretch") or "").split(",")):
        if factor:
            layout.setStretch(index, int(factor))
    return layout


class Timer(QtCore.QTimer):
    """QTimer in PythonQt."""

    def connect(self, signature, slot):
        assert signature == "timeout()"
        self.timeout.connect(slot)


def fake_qt():
    """Module qt: what the panel uses of it."""
    return {
        "QTimer": Timer, "Qt": QtCore.Qt, "QKeySequence": QtGui.QKeySequence, "QFileDialog": FileDialog,
        "QTableWidgetItem": QtWidgets.QTableWidgetItem,
    }  # fmt: skip


def parameter_node_wrapper(cls):
    """Base/Python/slicer/parameterNodeWrapper: typed attributes over a vtkMRMLScriptedModuleNode.

    Nodes are kept as node references, a union of node classes under ``name.0``, ``name.1`` …, members of an Enum by
    their names (serializers.py); ``connectGui`` connects what names a parameter, fills boxes with the labels of an Enum
    and sets the classes of a selector (guiConnectors.py), and what a widget says while it is being written to is not
    heard. Values are kept as they were read when the parameter node was last modified (``_CachedParameterWrapper``),
    and a name that an Enum does not have is an error, also while the wrapper is made.
    """
    types = typing.get_type_hints(cls)

    class Wrapper:
        def __init__(self, node):
            object.__setattr__(self, "parameterNode", node)
            object.__setattr__(self, "cached", {})
            for name, kind in types.items():
                if is_enum(kind):
                    if not node.HasParameter(name):
                        node.SetParameter(name, next(iter(kind)).name)
                elif not any(node.HasParameter(key) for key in keys_of(name, kind)):
                    self.write(name, None)
            self.read()
            alive = weakref.ref(self)
            tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: alive() and alive().read())
            object.__setattr__(self, "tag", tag)

        def __del__(self):
            if hasattr(self, "tag"):
                self.parameterNode.RemoveObserver(self.tag)

        def read(self):
            self.cached.update({name: self.value_of(name, kind) for name, kind in types.items()})

        def value_of(self, name, kind):
            if is_enum(kind):
                if not self.parameterNode.HasParameter(name):  # _Parameter.read
                    self.parameterNode.SetParameter(name, next(iter(kind)).name)
                key = self.parameterNode.GetParameter(name)
                if key not in kind.__members__:
                    raise ValueError(f"Found {key!r} in parameter node but it is not a name in {kind!r}")
                return kind[key]
            found = [key for key in keys_of(name, kind) if self.parameterNode.HasParameter(key)]
            return self.parameterNode.GetNodeReference(found[0]) if found else None

        def write(self, name, value):
            kind = types[name]
            if is_enum(kind):
                assert isinstance(value, kind)
                self.parameterNode.SetParameter(name, value.name)
                return
            classes = classes_of(kind)
            assert value is None or isinstance(value, tuple(c for c in classes if c is not type(None)))
            was_modified = self.parameterNode.StartModify()
            for key in keys_of(name, kind):
                self.parameterNode.UnsetParameter(key)
                self.parameterNode.RemoveNodeReferenceIDs(key)
            matching = next(n for n, c in enumerate(classes) if len(classes) == 1 or isinstance(value, c))
            key = keys_of(name, kind)[matching]
            self.parameterNode.SetParameter(key, "")
            self.parameterNode.SetNodeReferenceID(key, None if value is None else value.GetID())
            self.parameterNode.EndModify(was_modified)

        def __getattr__(self, name):
            if name not in types:
                raise AttributeError(name)
            return self.cached[name]

        def __setattr__(self, name, value):
            if name not in types:
                raise AttributeError(name)
            # Read back before anybody hears of it: VTK calls observers of one priority in no order to rely on.
            was_modified = self.parameterNode.StartModify()
            self.write(name, value)
            self.cached[name] = self.value_of(name, types[name])
            self.parameterNode.EndModify(was_modified)

        def StartModify(self):  # noqa: N802
            return self.parameterNode.StartModify()

        def EndModify(self, was_modified):  # noqa: N802
            return self.parameterNode.EndModify(was_modified)

        def AddObserver(self, event, callback, priority=0.0):  # noqa: N802
            return self.parameterNode.AddObserver(event, callback, priority)

        def RemoveObserver(self, tag):  # noqa: N802
            return self.parameterNode.RemoveObserver(tag)

        def connectGui(self, gui):  # noqa: N802
            widgets = {w.property("SlicerParameterName"): w for w in vars(gui).values() if hasattr(w, "property")}
            widgets.pop(None, None)
            assert set(widgets) <= set(types)
            connected, showing = [], []

            def write_to(name, widget):
                if is_enum(types[name]):
                    widget.setCurrentIndex(list(types[name]).index(getattr(self, name)))
                else:
                    widget.setCurrentNode(getattr(self, name))

            def show(caller=None, event=None):
                if showing:
                    return
                showing.append(True)
                for name, widget in widgets.items():
                    write_to(name, widget)
                showing.clear()

            def read(name, widget):
                if not showing:
                    kind = types[name]
                    chosen = list(kind)[widget.currentIndex] if is_enum(kind) else widget.currentNode()
                    setattr(self, name, chosen)

            for name, widget in widgets.items():
                if is_enum(types[name]):
                    assert isinstance(widget, ComboBox)
                    widget.clear()
                    for member in types[name]:
                        widget.addItem(member.label())
                else:
                    assert isinstance(widget, NodeComboBox)
                    widget.types = [c.__name__ for c in classes_of(types[name]) if c is not type(None)]
            for name, widget in widgets.items():
                write_to(name, widget)
                slot = lambda *said, name=name, widget=widget: read(name, widget)  # noqa: E731
                signal = widget.currentIndexChanged if is_enum(types[name]) else widget.currentNodeChanged
                signal.connect(slot)
                connected.append((signal, slot))
            tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, show)
            return connected, tag

        def disconnectGui(self, gui_tag):  # noqa: N802
            connected, tag = gui_tag
            for signal, slot in connected:
                signal.disconnect(slot)
            self.RemoveObserver(tag)

    Wrapper.__name__ = cls.__name__
    return Wrapper


def is_enum(kind):
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def classes_of(kind):
    return typing.get_args(kind) or (kind,)


def keys_of(name, kind):
    """Under which names a node is kept: UnionSerializer numbers its classes."""
    classes = classes_of(kind)
    return [name] if len(classes) == 1 else [f"{name}.{index}" for index in range(len(classes))]


class Module:
    """ScriptedLoadableModule: Base/Python/slicer/ScriptedLoadableModule.py."""

    def __init__(self, parent):
        self.parent = parent


class Logic:
    """ScriptedLoadableModuleLogic, the same file: one parameter node a module, made when it is first asked for."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):  # noqa: N802
        import slicer

        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        return node


class Widget:
    """ScriptedLoadableModuleWidget, the same file."""

    def __init__(self, parent=None):
        self.parent = parent
        self.layout = parent.layout()

    def setup(self):
        """Nothing but the developer's buttons."""

    def resourcePath(self, name):  # noqa: N802
        return str(Path(__file__).parents[2] / "BrainFusion" / "Resources" / name)


class Panel(QtWidgets.QWidget):
    """The widget that a module is put into: qSlicerWidget, with isEntered of qSlicerAbstractModuleWidget."""

    isEntered = False  # noqa: N815

    def __init__(self):
        super().__init__()
        QtWidgets.QVBoxLayout(self).setContentsMargins(0, 0, 0, 0)


def note_entering(widget):
    """qSlicerScriptedLoadableModuleWidget.cxx: isEntered has changed when enter and exit of the module are called."""

    def noting(call, entered):
        def called():
            widget.parent.isEntered = entered
            call()

        return called

    widget.enter, widget.exit = noting(widget.enter, True), noting(widget.exit, False)


def child_widget_variables(widget):
    """slicer.util.childWidgetVariables: every named child as an attribute."""
    loaded = [widget, *widget.findChildren(MRMLWidget)]  # a .ui file's, and those put into it since
    return SimpleNamespace(**{name: child for part in loaded for name, child in part.found.items()})
