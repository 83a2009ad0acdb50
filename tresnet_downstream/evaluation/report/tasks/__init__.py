"""From runs of a task to the data of its report, one file for each task."""
