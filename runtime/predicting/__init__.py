"""`--predict`: which images or video, what their outputs are called, and the loop over them.

What a family does with an image stands in its own rooms; `loop.Results` says what that is.
"""

from runtime.predicting.inputs import Inputs, find_inputs
from runtime.predicting.loop import Item, Results, predict_all
from runtime.predicting.outputs import Plan, plan_predictions

__all__ = [
    "Inputs",
    "Item",
    "Plan",
    "Results",
    "find_inputs",
    "plan_predictions",
    "predict_all",
]
