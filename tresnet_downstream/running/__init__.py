"""Code that the trainings of all tasks share: configs, the runner, hooks, optimisers, checkpoints, provenance."""
