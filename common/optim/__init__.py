"""What updates weights: optimizers, mixed precision, moving averages."""
