"""From a config to a running training: one module for each task, and what they share."""
