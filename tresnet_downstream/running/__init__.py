"""What the trainings of every task share: configs, the runner, hooks, optimisers, checkpoints, provenance of scores."""
