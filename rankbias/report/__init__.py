"""Run folders in; tables, figures and one self-contained HTML page out. Knows files, not JAX."""

from rankbias.report.page import write_report

__all__ = ["write_report"]
