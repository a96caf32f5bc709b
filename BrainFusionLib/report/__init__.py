"""The report that a planner looks at before trusting a result: one HTML file that needs no network."""

from BrainFusionLib.report.report import report_html, write_readme_picture, write_report

__all__ = ["report_html", "write_readme_picture", "write_report"]
