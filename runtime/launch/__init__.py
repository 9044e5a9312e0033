"""Several processes that train together, and how each of them ends."""
