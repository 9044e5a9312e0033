"""Pictures of a run: instances drawn on images, grids of tiles.

Images are [h, w, 3] uint8 RGB arrays throughout. Matplotlib and Pillow are imported where they are
needed, since training itself needs neither. Drawn by our own hand, not by torchvision.utils: that
knows neither captions that keep out of each other's way, nor titles and tiles of unlike sizes in a
grid, its import takes torch along, and a picture is no reason for a run to need another library.
"""

import colorsys
import io
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from runtime.errors import one_line
from runtime.files import write_atomically

CLEAR_SIDE_PX = 320  # images are enlarged until the shorter side has this, for readable captions
LONGEST_PX = 4096  # of an enlarged image
FONT_PX = 13
CAPTION_PX = FONT_PX + 5  # height of a caption's plate
SIDE_PER_FONT = 45  # pixels of the shorter side for one of the font, on large pictures
GAP_PX = 6
MOST_DRAWN = 20  # predictions on one picture; more of them hide it


def instance_colours(n: int) -> list[tuple[int, int, int]]:
    """`n` RGB colours, neighbours in the list far apart in hue."""
    golden = 0.61803398875  # steps of the golden ratio never come near an earlier hue soon
    tones = ((0.85, 1.0), (0.5, 0.95), (0.95, 0.65))  # saturation, value
    colours = []
    for i in range(n):
        saturation, value = tones[i % len(tones)]
        r, g, b = colorsys.hsv_to_rgb((0.02 + i * golden) % 1.0, saturation, value)
        colours.append((round(255 * r), round(255 * g), round(255 * b)))
    return colours


def draw_instances(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    masks: np.ndarray,
    captions: Sequence[str] = (),
    colours: Sequence[tuple[int, int, int]] | None = None,
    keep_size: bool = False,
) -> np.ndarray:
    """A copy of the image with translucent masks, their outlines, boxes and captions.

    image:       [h, w, 3] uint8 RGB
    boxes_xyxy:  [n, 4] pixels of `image`
    masks:       [n, h, w] bool or uint8, non-zero inside
    captions:    n texts, or none at all; the first get the best places
    colours:     n RGB triples (None: one of its own for each)
    keep_size:   k below is 1: for the frames of a video
    Returns uint8 RGB, [h * k, w * k, 3] with the smallest whole k that makes the shorter side at
    least CLEAR_SIDE_PX, unless the longer one would exceed LONGEST_PX. Captions and lines grow with
    images that are much larger than that.
    n = 0 is fine. Raises ValueError when the counts or sizes differ.
    """
    height, width = image.shape[:2]
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    masks = np.asarray(masks).reshape(-1, height, width) != 0
    colours = instance_colours(len(boxes)) if colours is None else colours
    captions = captions or [""] * len(boxes)
    counts = {len(boxes), len(masks), len(captions), len(colours)}
    if len(counts) != 1:
        raise ValueError(
            f"{len(boxes)} boxes, {len(masks)} masks, {len(captions)} captions, "
            f"{len(colours)} colours: wanted equal counts"
        )
    scale = 1 if keep_size else _enlargement(height, width)
    font_px = fitting_font(height * scale, width * scale)
    line_px = max(1, font_px // FONT_PX)
    size_wh = (width * scale, height * scale)
    canvas = cv2.resize(np.ascontiguousarray(image), size_wh, interpolation=cv2.INTER_LINEAR)
    large_masks = [_enlarged(mask, size_wh) for mask in masks]
    for mask, colour in zip(large_masks, colours, strict=True):
        canvas[mask > 0] = (0.55 * canvas[mask > 0] + 0.45 * np.array(colour)).astype(np.uint8)
    # Lines after all fillings and captions last: what is small must stay on top.
    for mask, box, colour in zip(large_masks, boxes, colours, strict=True):
        contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, colour, 2 * line_px, cv2.LINE_AA)
        if np.isfinite(box).all():
            inside = np.clip(box * scale, -2, max(size_wh) + 2)  # OpenCV's integers are 32-bit
            left, top, right, bottom = (round(v) for v in inside)
            cv2.rectangle(canvas, (left, top), (right, bottom), colour, line_px, cv2.LINE_AA)
    return _with_names(canvas, captions, boxes * scale, colours, font_px)


def instances_tile(
    image: np.ndarray, boxes_xyxy: np.ndarray, masks: np.ndarray, names: Sequence[str],
    scores: Any = None,
) -> np.ndarray:
    """`draw_instances` with names, or, with scores [n], of the `surest` with name and score.

    A line below tells how many more there are.
    """
    if scores is None:
        return draw_instances(image, boxes_xyxy, masks, names)
    numbers = np.asarray(scores, float).reshape(-1)
    drawn = surest(numbers)
    captions = [f"{names[i]} {numbers[i]:.2f}" for i in drawn]
    tile = draw_instances(image, np.asarray(boxes_xyxy).reshape(-1, 4)[drawn],
                          np.asarray(masks)[drawn], captions)
    more = len(numbers) > len(drawn)
    return with_note(tile, f"the {len(drawn)} surest of {len(numbers)}" if more else "")


def shrunk(
    image: np.ndarray, boxes_xyxy: Any, masks: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image [h, w, 3], boxes [n, 4] and masks [n, h, w], smaller where they are larger than needed.

    Then the shorter side has CLEAR_SIDE_PX.
    """
    boxes, masks = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4), np.asarray(masks)
    height, width = image.shape[:2]
    factor = CLEAR_SIDE_PX / min(height, width)
    if factor >= 1:
        return image, boxes, masks
    size = (round(width * factor), round(height * factor))
    small = np.zeros((len(masks), *size[::-1]), np.uint8)
    for out, mask in zip(small, masks, strict=True):
        cv2.resize(mask.astype(np.uint8), size, dst=out, interpolation=cv2.INTER_NEAREST)
    boxes = boxes * ((size[0] / width, size[1] / height) * 2)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), boxes, small


def surest(scores: Any) -> np.ndarray:
    """Positions of the at most MOST_DRAWN highest scores, the highest first: what to draw."""
    return np.argsort(-np.asarray(scores, float).reshape(-1), kind="stable")[:MOST_DRAWN]


def with_note(image: np.ndarray, text: str, font_px: int = FONT_PX) -> np.ndarray:
    """RGB image with a line of text below it; as it is without text."""
    if not text:
        return image
    height, width = image.shape[:2]
    plate_px = font_px + CAPTION_PX - FONT_PX
    canvas = np.pad(image, ((0, plate_px), (0, 0), (0, 0)), constant_values=255)
    return _with_titles(canvas, [text], [(0, height, width)], font_px)


def _enlarged(mask: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """0/255 mask of another size, with smooth borders instead of stairs."""
    soft = cv2.resize(mask.astype(np.uint8) * 255, size_wh, interpolation=cv2.INTER_LINEAR)
    return np.where(soft > 127, np.uint8(255), np.uint8(0))


@lru_cache(maxsize=4)
def _font(size_px: int) -> Any:
    import matplotlib
    from PIL import ImageFont

    # Matplotlib brings a font that knows most alphabets, which OpenCV's and old Pillow's do not.
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size_px)


def _enlargement(height: int, width: int) -> int:
    """The k of `draw_instances`: a strip, enlarged by its short side, would fill the memory."""
    wanted = -(-CLEAR_SIDE_PX // max(1, min(height, width)))
    return max(1, min(wanted, LONGEST_PX // max(height, width)))


def fitting_font(height: int, width: int) -> int:
    """The font's size in pixels for captions on a picture of this size: FONT_PX on small ones."""
    return max(FONT_PX, min(height, width) // SIDE_PER_FONT)


def draw_lines(image: np.ndarray, texts: Sequence[str], keep_size: bool = False) -> np.ndarray:
    """RGB image with lines of text on dark plates, from its top left downwards.

    keep_size: else a small image is enlarged as `draw_instances` does
    """
    from PIL import Image, ImageDraw

    scale = 1 if keep_size else _enlargement(*image.shape[:2])
    size_wh = (image.shape[1] * scale, image.shape[0] * scale)
    picture = Image.fromarray(cv2.resize(np.ascontiguousarray(image), size_wh,
                                         interpolation=cv2.INTER_LINEAR))
    font_px = fitting_font(*size_wh)
    font, pen = _font(font_px), ImageDraw.Draw(picture)
    for i, text in enumerate(map(one_line, texts)):
        width = math.ceil(pen.textlength(text, font=font)) + 6
        _draw_plate(pen, text, (GAP_PX, GAP_PX + i * (font_px + 5), width), (40, 40, 40), font)
    return np.asarray(picture).copy()


def _with_names(
    canvas: np.ndarray, captions: Sequence[str], boxes: np.ndarray, colours: Sequence[Any],
    font_px: int = FONT_PX,
) -> np.ndarray:
    """Each text on a plate of its colour at its box (xyxy), where it hides least of other plates.

    Always inside the picture. Text without a finite box is left out.
    """
    from PIL import Image, ImageDraw

    font, plate_px = _font(font_px), font_px + CAPTION_PX - FONT_PX
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    plates: list[tuple[int, int, int]] = []  # x, y, width; the first stands on top
    names = [(one_line(text), box, colour)
             for text, box, colour in zip(captions, boxes, colours, strict=True)
             if text and np.isfinite(box).all()]
    for text, box, _ in names:
        width = math.ceil(pen.textlength(text, font=font)) + 6
        places = _places(box, width, picture.width, picture.height, plate_px)
        hidden = [sum(_shared(place, other, plate_px) for other in plates) for place in places]
        plates.append(places[int(np.argmin(hidden))])  # the first of those that hide least
    for (text, _, colour), plate in reversed(list(zip(names, plates, strict=True))):
        _draw_plate(pen, text, plate, colour, font)
    return np.asarray(picture).copy()


def _places(
    box: np.ndarray, width: int, room_w: int, room_h: int, high: int = CAPTION_PX
) -> list[tuple[int, int, int]]:
    """Where a plate can stand so that it is read as the box's, the usual place first."""
    left, top, right, bottom = (float(v) for v in box)
    at = [(left, top - high), (left, top), (right - width, top - high),
          (right - width, top), (left, bottom - high), (left, bottom),
          (right - width, bottom - high), (right - width, bottom),
          ((left + right - width) / 2, (top + bottom - high) / 2)]
    return [(int(np.clip(x, 0, max(0, room_w - width))),
             int(np.clip(y, 0, max(0, room_h - high))), width) for x, y in at]


def _shared(
    plate: tuple[int, int, int], other: tuple[int, int, int], high: int = CAPTION_PX
) -> int:
    """Pixels that two plates have in common."""
    (x, y, width), (other_x, other_y, other_width) = plate, other
    across = min(x + width, other_x + other_width) - max(x, other_x)
    down = high - abs(y - other_y)
    return max(across, 0) * max(down, 0)


def _draw_plate(pen: Any, text: str, plate: tuple[int, int, int], colour: Any, font: Any) -> None:
    x, y, width = plate
    high = round(font.size) + CAPTION_PX - FONT_PX
    # Pillow's rectangles include their last row and column.
    pen.rectangle((x, y, x + width - 1, y + high - 1), fill=tuple(colour))
    red, green, blue = colour
    ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else "white"
    pen.text((x + 3, y + high / 2), text, fill=ink, font=font, anchor="lm")


def _with_titles(
    canvas: np.ndarray, titles: Sequence[str], places: Sequence[tuple[int, int, int]],
    font_px: int = FONT_PX,
) -> np.ndarray:
    """Texts on white at (x, y), with an ellipsis where they are wider than their column."""
    from PIL import Image, ImageDraw

    font = _font(font_px)
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    for text, (x, y, width) in zip(map(one_line, titles), places, strict=True):
        shown, fits = text, len(text)
        while fits and pen.textlength(shown, font=font) + 6 > width:
            fits -= 1
            shown = text[:fits].rstrip() + "…"
        _draw_plate(pen, shown if fits else "", (x, y, width), (255, 255, 255), font)
    return np.asarray(picture).copy()


def save_grid(
    tiles: Sequence,
    path: str | Path,
    titles: Sequence[str] = (),
) -> None:
    """Write `draw_grid` as one PNG. Raises SaveError when the file cannot be written."""
    save_image(draw_grid(tiles, titles), path)


def draw_grid(
    tiles: Sequence, titles: Sequence[str] = ()
) -> np.ndarray:
    """Images beside and below each other.

    tiles:    images [h, w, 3] uint8 of any sizes, filling an about square grid;
              or rows, each a list of images
    titles:   one over each tile; for rows, one over each column
    No tiles give a small empty picture.
    """
    rows = list(tiles)
    if rows and isinstance(rows[0], np.ndarray):
        columns = math.ceil(math.sqrt(len(rows)))
        starts = range(0, len(rows), columns)
        title_rows = [list(titles[i : i + columns]) for i in starts] if titles else []
        rows = [rows[i : i + columns] for i in starts]
    else:
        title_rows = [list(titles)] if titles else []
    widths = [
        max(row[j].shape[1] for row in rows if j < len(row))
        for j in range(max((len(row) for row in rows), default=0))
    ]
    heights = [
        max((tile.shape[0] for tile in row), default=0) + CAPTION_PX * (i < len(title_rows))
        for i, row in enumerate(rows)
    ]
    size = (sum(heights) + GAP_PX * (len(rows) + 1), sum(widths) + GAP_PX * (len(widths) + 1))
    canvas = np.full((*size, 3), 255, np.uint8)

    texts, places = [], []
    y = GAP_PX
    for i, row in enumerate(rows):
        top, x = y, GAP_PX
        if i < len(title_rows):
            top += CAPTION_PX
        for j, tile in enumerate(row):
            canvas[top : top + tile.shape[0], x : x + tile.shape[1]] = tile
            if i < len(title_rows) and j < len(title_rows[i]):
                texts.append(title_rows[i][j])
                places.append((x, y, widths[j]))
            x += widths[j] + GAP_PX
        y += heights[i] + GAP_PX
    return _with_titles(canvas, texts, places)


def draw_legend(
    entries: Sequence[tuple[str, tuple[int, int, int]]], width: int
) -> np.ndarray:
    """Names beside patches of their RGB colours, in columns, on `width` pixels."""
    from PIL import Image, ImageDraw

    entries = [(one_line(text), colour) for text, colour in entries]
    font, line = _font(FONT_PX), FONT_PX + GAP_PX
    longest = max((math.ceil(font.getlength(text)) for text, _ in entries), default=0)
    column = longest + line + 3 * GAP_PX
    columns = max(1, (width - GAP_PX) // column)
    rows = -(-len(entries) // columns)
    picture = Image.new("RGB", (max(width, column), rows * line + GAP_PX), "white")
    pen = ImageDraw.Draw(picture)
    for i, (text, colour) in enumerate(entries):
        x, y = GAP_PX + i // rows * column, i % rows * line
        pen.rectangle((x, y, x + FONT_PX, y + FONT_PX), fill=tuple(colour), outline="gray")
        pen.text((x + line, y + FONT_PX / 2), text, fill="black", font=font, anchor="lm")
    return np.asarray(picture)


def stack(images: Sequence[np.ndarray]) -> np.ndarray:
    """RGB images below each other, at the left, on white."""
    width = max(image.shape[1] for image in images)
    return np.concatenate([
        np.pad(image, ((0, 0), (0, width - image.shape[1]), (0, 0)), constant_values=255)
        for image in images])


def side_by_side(groups: Sequence[Sequence[np.ndarray]], per_row: int) -> list[list[np.ndarray]]:
    """Rows for `draw_grid` of `per_row` groups each, such as pairs of image and label."""
    return [[tile for group in groups[i : i + per_row] for tile in group]
            for i in range(0, len(groups), per_row)]


def fitted(pixels: np.ndarray, longest_px: int, enlarge: bool = False) -> np.ndarray:
    """The image with its longer side at `longest_px`; a smaller one only with `enlarge`.

    Each pixel is one of the source: colours that stand for classes must not mix.
    """
    from PIL import Image

    longest = max(pixels.shape[:2])
    if longest <= longest_px and not enlarge:
        return pixels
    size = [max(1, round(side * longest_px / longest)) for side in pixels.shape[1::-1]]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))


def save_image(image: np.ndarray, path: str | Path) -> None:
    """Write a uint8 RGB image atomically, in the form of its suffix; PNG where that says none.

    Raises SaveError when it cannot be written.
    """
    from PIL import Image

    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower(), "PNG")
    if kind == "PNG":
        _, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        content = encoded.tobytes()
    else:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind)
        content = buffer.getvalue()
    write_atomically(path, lambda file: file.write(content))
