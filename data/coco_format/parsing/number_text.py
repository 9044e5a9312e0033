"""Numbers out of JSON text, many at once: array operations over the bytes, no object a number.

A number of at most eight characters fits one 64-bit word, in which its digits are put together by
three multiplications; longer ones and those with a sign or an exponent are read one by one.
"""

from dataclasses import dataclass

import numpy as np

_WORD = 8  # bytes
_BLANKS = (32, 9, 10, 13)
_COMMA, _DOT, _OPEN, _CLOSE = b",.[]"
_SIGNS = b"-+eE"
_ZEROS = np.uint64(0x3030303030303030)  # the character 0, eight times
_DOT_BIT = np.uint64(0x1010101010101010)  # that a dot has and no digit, once "0" is taken off
_FRACTION_OF = np.uint64(0x0706050403020100)  # bit of a dot -> digits behind it, by multiplication
_POWERS = 10.0 ** np.arange(_WORD)
_BYTE = np.uint64(8)
_EIGHT_DIGITS = (  # (mask, factor, shift): pairs of digits, then of pairs, then of those
    (0x0F0F0F0F0F0F0F0F, 10 * 2**8 + 1, 8),
    (0x00FF00FF00FF00FF, 100 * 2**16 + 1, 16),
    (0x0000FFFF0000FFFF, 10000 * 2**32 + 1, 32),
)


@dataclass(frozen=True)
class NumberLists:
    """values:  float64, of all lists, one after the other
    numbers: int64 [lists], how many each has
    depths:  int64 [lists], brackets around its numbers: 1 in [1, 2], 2 in [[1, 2]]
    owners:  int64 [lists], which of the text's values it is or belongs to, from 0
    """

    values: np.ndarray
    numbers: np.ndarray
    depths: np.ndarray
    owners: np.ndarray


def read_lists(text: bytes) -> NumberLists | None:
    """The innermost lists of a text such as `[[1, 2.5], [3]], [[4]]`.

    text: valid JSON values with commas between them
    None where it holds anything but lists whose members are either numbers only or lists only,
    or an empty list.
    """
    text = b" " * _WORD + text  # so that there is a whole word before the end of any number
    chars = np.frombuffer(text, np.uint8)
    is_number = ((chars - 48) < 10) | (chars == _DOT)
    signs = [sign for sign in _SIGNS if sign in text]
    for sign in signs:
        is_number |= chars == sign
    is_bracket = (chars == _OPEN) | (chars == _CLOSE)
    known = is_number | is_bracket | (chars == _COMMA)
    for blank in _BLANKS:
        known |= chars == blank
    edges = np.flatnonzero(is_number[1:] != is_number[:-1]) + 1
    if not known.all() or len(edges) % 2:
        return None
    starts, ends = edges[0::2], edges[1::2]
    brackets = np.flatnonzero(is_bracket)
    opens = chars[brackets] == _OPEN
    depths = np.cumsum(np.where(opens, 1, -1))
    owners = np.cumsum(opens & (depths == 1)) - 1
    # an innermost list is an opening bracket with a closing one behind it, and has all numbers
    inner = np.flatnonzero(opens[:-1] & ~opens[1:])
    first = np.searchsorted(starts, brackets[inner])
    numbers = np.searchsorted(starts, brackets[inner + 1]) - first
    if numbers.sum() != len(starts) or not numbers.all():
        return None
    values = _values(text, starts, ends, signs)
    return NumberLists(values, numbers, depths[inner], owners[inner])


def _values(text: bytes, starts: np.ndarray, ends: np.ndarray, signs: list[int]) -> np.ndarray:
    lengths = ends - starts
    words = np.ndarray(len(text) - _WORD + 1, "<u8", text, strides=(1,))[ends - _WORD]
    blank = np.maximum(_WORD - lengths, 0).astype(np.uint64) * _BYTE  # bits before the number
    digits = (words ^ _ZEROS) >> blank << blank
    dot = (digits & _DOT_BIT) >> np.uint64(4)  # the lowest bit of the dot's byte; 0 without one
    before = dot - (dot != 0)  # the bytes of the digits before the dot
    fraction = (dot * _FRACTION_OF) >> np.uint64(56)
    digits = np.where(dot == 0, digits,
                      digits & ~(before << _BYTE | np.uint64(0xFF)) | (digits & before) << _BYTE)
    for mask, factor, shift in _EIGHT_DIGITS:
        digits = (digits & np.uint64(mask)) * np.uint64(factor) >> np.uint64(shift)
    # exact, as both are whole numbers below 2^53: the quotient is the nearest float there is
    values = digits / _POWERS[fraction.astype(np.int64) & (_WORD - 1)]
    odd = lengths > _WORD
    chars = np.frombuffer(text, np.uint8)
    for sign in signs:
        odd[np.searchsorted(starts, np.flatnonzero(chars == sign), side="right") - 1] = True
    chosen = np.flatnonzero(odd)
    if len(chosen):
        spans = zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
        values[chosen] = [float(text[start:end]) for start, end in spans]
    return values
