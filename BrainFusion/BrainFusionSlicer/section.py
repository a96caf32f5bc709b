"""What a further section of the panel is; `BrainFusionSlicer.sections` lists them."""

from __future__ import annotations

import slicer.util


class Section:
    """One collapsible part of the panel, between the review and *Outputs*.

    A section owns what it shows and connects: the panel calls the methods below, and knows nothing else of it. It reads
    the choices from ``panel._parameterNode`` (``None`` while there is no scene), the widgets from ``panel.ui``, where
    their names are those of all the panel, and what can be done now from ``panel._state``.
    """

    UI = ""  # the name of its .ui file, without the ending: a qMRMLWidget

    def __init__(self, panel) -> None:
        self.panel = panel
        self._isShowing = False  # while the widgets are written to, what they say is not heard
        self.widget = slicer.util.loadUI(panel.resourcePath(f"UI/{self.UI}.ui"))

    def setup(self) -> None:
        """Connect the widgets; once, when all of the panel's are there."""

    def update(self) -> None:
        """Show what can be done now; after every change of the choices, their nodes, or what is running."""

    def holds(self, view) -> bool:
        """Say whether a view (`review.View`) that the section shows shows what it says still."""
        return True

    def put_away(self) -> None:
        """Leave nothing temporary in the scene: the panel is left, or the module ends."""

    def forget(self) -> None:
        """Let go of all nodes: the scene is being closed."""

    def pair(self) -> tuple:
        """Return the CT and the MRI that are chosen; ``None`` for each that is not."""
        parameters = self.panel._parameterNode
        return (parameters.ctVolume, parameters.mriVolume) if parameters else (None, None)

    def _quietly(self, call) -> None:
        """Write to widgets; the slots of the section that ask for `_isShowing` take no notice."""
        before, self._isShowing = self._isShowing, True
        try:
            call()
        finally:
            self._isShowing = before
