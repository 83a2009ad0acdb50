"""Reports: one page with the scores, the errors and the comparisons of runs.

A section of your own is a function in one file: see :func:`section`.
"""

from tresnet_downstream.evaluation.report.data import ReportData
from tresnet_downstream.evaluation.report.parts import Column, Figure, Section, Table
from tresnet_downstream.evaluation.report.registry import section
from tresnet_downstream.evaluation.report.writing import write_report

__all__ = ["Column", "Figure", "ReportData", "Section", "Table", "section", "write_report"]
