"""What the design card names: losses, schedules, parallel wrappers, optim, checkpoints."""
