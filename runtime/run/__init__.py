"""One run and its folder: log, metrics, clocks, and what is saved when it ends early."""
