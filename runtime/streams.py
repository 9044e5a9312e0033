"""The numbers that keep the streams of random numbers of a run apart.

Each is the first word of a seed sequence, in front of the run's seed and of what the numbers are
for. numpy pads a sequence of fewer than four words with zeros, so two uses of one number would give
the same numbers as soon as the rest agrees.
"""

from enum import IntEnum


class Stream(IntEnum):
    """What random numbers are drawn for, and the words behind the seed."""

    ORDER = 1  # of an epoch's samples: epoch
    SAMPLE = 2  # an instance sample's augmentation: epoch, position, index
    STEP = 3  # torch's generators in an update: step, rank
    SHARED = 4  # what all ranks draw alike in an update: step, number of the batch
    CLASS_SAMPLE = 5  # a classification sample's augmentation: epoch, position, index
    PASS = 6  # segmentation's order of a pass over the list: number of the pass
