"""Experiment trackers, set by the key ``tracker`` of a config: TensorBoard, Weights & Biases and MLflow.

:mod:`.settings` reads the key. :mod:`.journal` stores all logged values of a run in its folder. :mod:`.hook` writes the
journal during training and sends its records to each tracker (:mod:`.wandb_run`, :mod:`.mlflow_run`), beginning with
the records that the tracker lacks. :mod:`.results` adds the results of a scoring.
"""
