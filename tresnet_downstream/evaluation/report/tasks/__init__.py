"""Prepares the data of a report from the runs of a task. There is one module for each task."""
