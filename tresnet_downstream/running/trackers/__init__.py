"""Experiment trackers: TensorBoard, Weights & Biases and MLflow, by the key ``tracker`` of a config.

:mod:`.settings` reads the key. :mod:`.journal` keeps what a run logs in a file of its folder. :mod:`.hook` writes the
journal in training and hands it to each tracker, :mod:`.wandb_run` and :mod:`.mlflow_run`, which first get what they
lack. :mod:`.results` adds what a scoring found.
"""
