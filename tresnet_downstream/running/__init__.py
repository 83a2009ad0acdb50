"""What every training shares: configs, the runner, hooks, optimisers, checkpoints, and what a score is kept with."""
