"""How large a training is: its network, the batch that fits, and the time between validations."""

from runtime.sizing.batch import Trial, settled_batch, with_batch_size
from runtime.sizing.pace import paced
from runtime.sizing.summary import ModelSize

__all__ = ["ModelSize", "Trial", "paced", "settled_batch", "with_batch_size"]
