"""Reads a COCO annotation file into the arrays of `CocoIndex`.

`plain` reads the form that nearly all files have, in bulk; what it does not take goes to `careful`,
which reads record by record, finds what other spellings mean and names faults.
Both give the same arrays.
"""

from data.coco_format.parsing.coco import parse_coco

__all__ = ["parse_coco"]
