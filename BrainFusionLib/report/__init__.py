"""The report that a planner looks at before trusting a result: one HTML file that needs no network."""

from BrainFusionLib.report.report import report_html, write_report
from BrainFusionLib.report.stills import write_pictures

__all__ = ["report_html", "write_pictures", "write_report"]
