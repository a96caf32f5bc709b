"""Stand-ins for Slicer's Sample Data and for its progress dialog, for the sample of our own."""

from __future__ import annotations

import types
from types import SimpleNamespace

LISTS = ("uris", "fileNames", "nodeNames", "loadFiles", "loadFileTypes", "checksums")


class SampleDataSource:
    """SampleDataSource: Modules/Scripted/SampleData/SampleData.py. It counts its lists, and compares all as text."""

    def __init__(self, sampleName, customDownloader, thumbnailFileName, **lists):  # noqa: N803
        self.sampleName = self.sampleDescription = sampleName
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        uris = lists["uris"]
        if isinstance(uris, str):
            lists = {name: [value] for name, value in lists.items()}
        elif isinstance(uris, list | tuple):
            lists = {name: [None] * len(uris) if value is None else value for name, value in lists.items()}
        for name, value in lists.items():
            setattr(self, name, value)
        if len({len(value) for value in lists.values()}) > 1:
            raise ValueError("All fields of sample data source must have the same length")

    def __eq__(self, other):
        return str(vars(self)) == str(vars(other))

    __hash__ = None


def sample_data(modules):
    """Return a module like SampleData; `modules` stands for slicer.modules, which holds what is listed."""
    modules.sampleDataSources = {}

    class SampleDataLogic:
        """SampleDataLogic, the same file."""

        @staticmethod
        def registerCustomSampleDataSource(  # noqa: N802
            category="Custom", sampleName=None, uris=None, fileNames=None, nodeNames=None,  # noqa: N803
            customDownloader=None, thumbnailFileName=None, loadFileTypes=None, loadFiles=None,  # noqa: N803
            loadFileProperties={}, checksums=None, loadFileType=None,  # noqa: N803, B006
        ):  # fmt: skip
            listed = modules.sampleDataSources.setdefault(category, [])
            source = SampleDataSource(
                sampleName, customDownloader, thumbnailFileName, uris=uris, fileNames=fileNames, nodeNames=nodeNames,
                loadFiles=loadFiles, loadFileTypes=loadFileTypes, checksums=checksums,
            )  # fmt: skip
            if source not in listed:
                listed.append(source)

        def downloadSamples(self, sampleName):  # noqa: N802, N803
            """Return what is downloaded: custom downloaders are not called."""
            sources = [s for listed in modules.sampleDataSources.values() for s in listed if s.sampleName == sampleName]
            return [uri for source in sources for uri in source.uris]

    made = types.ModuleType("SampleData")
    made.SampleDataLogic = SampleDataLogic
    return made


def click(source):
    """Click the button of a source, as SampleDataWidget.setCategoriesFromSampleDataSources connects it."""
    assert source.sampleDescription or source.nodeNames[0]
    if source.customDownloader:
        source.customDownloader(source)


class ProgressDialog:
    """What slicer.util.createProgressDialog returns: a QProgressDialog, with PythonQt's properties."""

    def __init__(self, cancel_at=101, **given):
        assert set(given) <= {"parent", "value", "maximum", "labelText", "windowTitle", "autoClose"}
        self.shown, self.is_open, self._cancel_at = [], True, cancel_at

    value = property(lambda self: self.shown[-1], lambda self, value: self.shown.append(int(value)))
    wasCanceled = property(lambda self: max(self.shown, default=0) >= self._cancel_at)  # noqa: N815

    def close(self):
        """Close it."""
        self.is_open = False


class Application(SimpleNamespace):
    """slicer.app, with the signal that is sent when all modules are loaded."""

    def connect(self, signal, slot):
        """Connect a slot, as PythonQt does."""
        assert signal == "startupCompleted()"
        self.slots = [*getattr(self, "slots", []), slot]
