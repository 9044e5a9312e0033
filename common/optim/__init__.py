"""What an update is made of: optimizers, mixed precision, averages, accumulation."""

from common.optim.learner import Learner, trained_average
from common.optim.precision import Precision
from common.optim.steps import accumulated, add_terms, set_lr

__all__ = [
    "Learner",
    "Precision",
    "accumulated",
    "add_terms",
    "set_lr",
    "trained_average",
]
