"""Checks data before a training: all annotations, all images, and images that splits share."""

from tresnet_downstream.data_check.check import MAX_DISTANCE, DataReport, check_data
from tresnet_downstream.data_check.config_sources import source_of_file, sources_of_config
from tresnet_downstream.data_check.findings import KINDS, Finding
from tresnet_downstream.data_check.fixing import write_cleaned
from tresnet_downstream.data_check.listing import Source
from tresnet_downstream.data_check.report import table, write_json

__all__ = [
    "KINDS",
    "MAX_DISTANCE",
    "DataReport",
    "Finding",
    "Source",
    "check_data",
    "source_of_file",
    "sources_of_config",
    "table",
    "write_cleaned",
    "write_json",
]
