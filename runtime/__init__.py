"""One process and its run: command line, errors, files, signals, ranks, logs."""
