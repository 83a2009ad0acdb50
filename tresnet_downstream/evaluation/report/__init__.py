"""Reports: one page that answers how good a run is, where it is bad, and whether it is better than another."""

from tresnet_downstream.evaluation.report.writing import write_report

__all__ = ["write_report"]
