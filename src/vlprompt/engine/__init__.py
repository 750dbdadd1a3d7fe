"""How a method runs: the one loop, its schedule, checkpoints, evaluation, run directories."""
