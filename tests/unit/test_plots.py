import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from runtime.curves import (
    MAX_CURVE_POINTS,
    _numbers,
    _running_mean,
    _short,
    _summed,
    _thinned,
    plot_confusion,
    plot_curves,
    plot_precision_recall,
    read_metrics,
    unit_of,
)
from runtime.errors import SaveError
from runtime.pictures import (
    CAPTION_PX,
    CLEAR_SIDE_PX,
    GAP_PX,
    MOST_DRAWN,
    _places,
    _shared,
    draw_grid,
    draw_instances,
    draw_legend,
    draw_lines,
    instance_colours,
    instances_tile,
    save_grid,
    side_by_side,
    surest,
    with_note,
)

ROOT = Path(__file__).resolve().parents[2]
GRAY = np.full((40, 60, 3), 128, np.uint8)


def train(step, loss=1.0, **losses):
    event = {"event": "train", "iteration": step, "epoch": 0, "lr": 0.01, "loss": loss}
    return json.dumps(event | {"losses": losses})


def evaluated(step, **metrics):
    return json.dumps({"event": "eval", "iteration": step, "epoch": 0, "metrics": metrics})


def write(path, *lines):
    path.write_text("\n".join(lines))
    return path


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


# Curves


def test_read_metrics_sorts_events_and_skips_the_rest(tmp_path):
    path = write(
        tmp_path / "metrics.jsonl",
        train(0, B=1.0),
        '{"event": "resume", "iteration": 1}',
        "[1, 2]",
        '{"event": "train"}',
        evaluated(1, box=3.0),
        train(1, B=0.5),
        '{"event": "train", "iterat',
    )
    steps, evals = read_metrics(path)
    assert [each["iteration"] for each in steps] == [0, 1]
    assert [each["metrics"] for each in evals] == [{"box": 3.0}]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [train(0, 2.0, B=2.0)],
        [evaluated(3, box=None)],
        [train(0, None, B=None), train(1, math.nan, B=math.inf), train(2, 1.0, C=1.0)],
        [train(i, 0.0, B=0.0) for i in range(5)],
        ['{"event": "train", "iteration": 0}', '{"event": "eval", "iteration": 1}'],
        ['{"event": "train", "iteration": 0, "losses": 3, "loss": "x"}'],
    ],
    ids=["empty", "one point", "null metric", "nan and null", "zeros", "bare", "odd types"],
)
def test_curves_of_odd_files(tmp_path, lines):
    plot_curves(write(tmp_path / "metrics.jsonl", *lines), tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape == (480, 1500, 3)


def test_only_the_named_metrics_are_drawn(tmp_path):
    path = write(tmp_path / "m.jsonl", *(evaluated(i, a=i, b=5.0 - i) for i in range(5)))
    pictures = []
    for names in (None, ["a"], ["b"], ["absent"]):
        plot_curves(path, tmp_path / "curves.png", names, title="run")
        pictures.append(pixels(tmp_path / "curves.png"))
    for i, one in enumerate(pictures):
        assert all(not np.array_equal(one, other) for other in pictures[i + 1 :])


def test_legends_lie_below_and_ticks_are_plain_numbers(tmp_path, monkeypatch):
    drawn = []

    class Kept(Figure):
        def __init__(self, *args, **keywords):
            super().__init__(*args, **keywords)
            drawn.append(self)

    monkeypatch.setattr("matplotlib.figure.Figure", Kept)
    path = write(tmp_path / "m.jsonl", *(train(i, 0.9 - i / 10, a=0.5, b=0.2) for i in range(8)),
                 evaluated(7, c=3.0, d=9.0))
    plot_curves(path, tmp_path / "curves.png")
    loss, _, metrics = drawn[0].axes
    for axes, names in ((loss, ["a", "b", "total"]), (metrics, ["c", "d"])):
        assert [text.get_text() for text in axes.get_legend().get_texts()] == names
        assert axes.get_legend().get_window_extent().y1 <= axes.get_window_extent().y0
    ticks = {label.get_text() for which in ("major", "minor")
             for label in loss.yaxis.get_ticklabels(which=which)} - {""}
    assert "0.2" in ticks
    assert all(re.fullmatch(r"[0-9.]+", tick) for tick in ticks)


def test_curves_that_cannot_be_written(tmp_path):
    path = write(tmp_path / "m.jsonl", train(0))
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(SaveError, match=r"taken\.png"):
        plot_curves(path, tmp_path / "taken.png")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["m.jsonl", "taken.png"]


def test_numbers_turns_everything_else_into_gaps():
    found = _numbers([1, None, "x", 2.5, math.inf, math.nan])
    np.testing.assert_array_equal(found, [1, math.nan, math.nan, 2.5, math.nan, math.nan])


def test_running_mean_by_hand():
    y = np.array([1.0, 3.0, math.nan, 5.0, 7.0, 9.0])
    # Window 2: indices i-2 .. i+2, gaps not counted, gaps kept.
    expected = [2, 3, math.nan, 6, 7, 7]
    np.testing.assert_allclose(_running_mean(y, 2), expected)


def test_long_runs_are_thinned_to_group_means():
    n = 2 * MAX_CURVE_POINTS + 1  # groups of three
    y = np.arange(n, dtype=float)
    y[1] = y[3] = y[4] = y[5] = math.nan
    x_few, y_few = _thinned(np.arange(n, dtype=float), y)
    assert len(x_few) == len(y_few) <= MAX_CURVE_POINTS
    np.testing.assert_allclose(x_few[:3], [0, 3, 6])
    np.testing.assert_allclose(y_few[:3], [1.0, math.nan, 7.0])


# Instances


def two_objects():
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 5:20, 5:25] = True
    masks[1, 25:35, 30:50] = True
    return np.array([(5, 5, 25, 20), (30, 25, 50, 35)]), masks


def test_small_images_are_enlarged_by_a_whole_factor():
    boxes, masks = two_objects()
    drawn = draw_instances(GRAY, boxes, masks)
    assert drawn.shape == (CLEAR_SIDE_PX, 480, 3)
    assert drawn.dtype == np.uint8
    large = np.zeros((CLEAR_SIDE_PX, 500, 3), np.uint8)
    assert draw_instances(large, boxes[:0], np.zeros((0, *large.shape[:2]))).shape == large.shape


def test_masks_are_tinted_and_the_rest_is_kept():
    boxes, masks = two_objects()
    before = GRAY.copy()
    drawn = draw_instances(GRAY, boxes, masks, colours=[(255, 0, 0), (0, 0, 255)])
    np.testing.assert_array_equal(GRAY, before)
    k = CLEAR_SIDE_PX // 40
    red, blue, outside = drawn[12 * k, 15 * k], drawn[30 * k, 40 * k], drawn[38 * k, 10 * k]
    np.testing.assert_array_equal(red, [185, 70, 70])  # 0.55 * 128 + 0.45 * 255, rounded down
    np.testing.assert_array_equal(blue, [70, 70, 185])
    np.testing.assert_array_equal(outside, [128, 128, 128])
    # The box's right side lies at x = 25, seen just where the mask ends.
    np.testing.assert_array_equal(drawn[12 * k, 25 * k], [255, 0, 0])


def test_no_objects_give_the_image():
    drawn = draw_instances(GRAY, np.zeros((0, 4)), np.zeros((0, 40, 60)))
    assert (drawn == 128).all()


def test_captions_stay_inside_and_apart():
    boxes = np.array([(-5, -5, 3, 3), (0, 0, 3, 3), (55, 38, 60, 40), (0, 0, math.nan, 1)])
    masks = np.zeros((4, 40, 60), np.uint8)
    plain = draw_instances(GRAY, boxes, masks)
    texts = ["café 0.91", "night owl 0.80", "x" * 200, ""]
    drawn = draw_instances(GRAY, boxes, masks, texts)
    assert drawn.shape == plain.shape
    changed = (drawn != plain).any(2)
    # Two plates at the top left, for both boxes begin there: the second below its box.
    below = 3 * (CLEAR_SIDE_PX // 40)
    assert changed[:CAPTION_PX, :60].mean() > 0.9
    assert changed[below : below + CAPTION_PX, :60].mean() > 0.9
    assert not changed[below + CAPTION_PX :, :60][:100].any()


def test_captions_stay_at_their_objects():
    rng = np.random.default_rng(0)
    corners = rng.integers(20, 300, (60, 2))
    boxes = np.concatenate([corners, corners + rng.integers(5, 60, (60, 2))], 1).astype(float)
    for box in boxes:
        for x, y, width in _places(box, 70, 320, 320):
            assert 0 <= x <= 320 - width
            assert 0 <= y <= 320 - CAPTION_PX
            assert max(x - box[2], box[0] - x - width) <= 0 or width > 320 - box[0]
            assert max(y - box[3], box[1] - y - CAPTION_PX) <= 0
    # a third box beside two others finds a free place of its own
    crowded = np.array([[50, 50, 90, 90], [50, 50, 90, 90], [50, 50, 90, 90.0]])
    taken = []
    for box in crowded:
        places = _places(box, 40, 320, 320)
        taken.append(next(place for place in places if not any(_shared(place, t) for t in taken)))
    assert len(set(taken)) == 3


def test_the_surest_are_drawn_and_the_rest_counted():
    n = 57
    scores = np.linspace(0.1, 0.9, n)
    boxes = np.tile([2.0, 2, 30, 30], (n, 1))
    masks = np.zeros((n, 40, 60), np.uint8)
    masks[0, 35:, 50:] = 1   # of the least sure: must not be drawn
    masks[-1, :5, 50:] = 1   # of the surest
    tile = instances_tile(GRAY, boxes, masks, ["a"] * n, scores)
    k = CLEAR_SIDE_PX // 40
    assert tile.shape == (40 * k + CAPTION_PX, 60 * k, 3)  # a line below
    assert (tile[37 * k, 55 * k] == 128).all()
    assert (tile[2 * k, 57 * k] != 128).any()
    assert surest(scores).tolist() == list(range(n - 1, n - 1 - MOST_DRAWN, -1))
    few = instances_tile(GRAY, boxes[:3], masks[:3], ["a"] * 3, scores[:3])
    assert few.shape == (40 * k, 60 * k, 3)


@pytest.mark.parametrize("part", ["boxes", "masks", "captions", "colours"])
def test_unequal_counts_are_refused(part):
    boxes, masks = two_objects()
    given = {"boxes": boxes, "masks": masks, "captions": ["a", "b"], "colours": [(1, 2, 3)] * 2}
    given[part] = given[part][:1]
    with pytest.raises(ValueError, match="wanted equal counts"):
        draw_instances(GRAY, given["boxes"], given["masks"], given["captions"], given["colours"])


def test_colours_are_distinct():
    colours = np.array(instance_colours(12), float)
    steps = np.linalg.norm(colours[:, None] - colours[None], axis=2)
    assert steps[~np.eye(12, dtype=bool)].min() > 40
    assert instance_colours(0) == []


# Grids


def solid(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def test_grid_of_tiles_fills_rows(tmp_path):
    tiles = [solid(20, 30, 10 * i) for i in range(1, 6)]
    save_grid(tiles, tmp_path / "grid.png")  # about square: 3 columns
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape == (2 * 20 + 3 * GAP_PX, 3 * 30 + 4 * GAP_PX, 3)
    second_row = 20 + 2 * GAP_PX
    np.testing.assert_array_equal(grid[GAP_PX : GAP_PX + 20, GAP_PX : GAP_PX + 30], tiles[0])
    assert (grid[second_row + 5, GAP_PX + 5] == 40).all()
    assert (grid[second_row + 5, -10] == 255).all()


def test_grid_of_rows_with_titles_and_odd_sizes(tmp_path):
    rows = [[solid(20, 90, 1), solid(10, 80, 2)], [solid(30, 50, 3)]]
    save_grid(rows, tmp_path / "grid.png", titles=["left", "right"])
    grid = pixels(tmp_path / "grid.png")
    assert grid.shape == (CAPTION_PX + 20 + 30 + 3 * GAP_PX, 90 + 80 + 3 * GAP_PX, 3)
    title = grid[: GAP_PX + CAPTION_PX]
    assert title[:, :90].min() < 100
    assert title[:, 90 + 2 * GAP_PX :].min() < 100
    assert (grid[GAP_PX + CAPTION_PX, GAP_PX] == 1).all()


def test_grid_without_tiles(tmp_path):
    save_grid([], tmp_path / "grid.png", titles=["a"])
    assert (pixels(tmp_path / "grid.png") == 255).all()


def test_colours_survive_the_file(tmp_path):
    tile = solid(8, 8, 0)
    tile[..., 0] = 200
    save_grid([tile], tmp_path / "grid.png")
    assert pixels(tmp_path / "grid.png")[GAP_PX, GAP_PX].tolist() == [200, 0, 0]


def test_pairs_lie_beside_each_other(tmp_path):
    pairs = [(solid(20, 100, 10 * i), solid(20, 100, 10 * i + 1)) for i in range(4)]
    save_grid(side_by_side(pairs, 3), tmp_path / "pairs.png", ("truth", "prediction") * 3)
    grid = pixels(tmp_path / "pairs.png")
    assert grid.shape[1] == 6 * 100 + 7 * GAP_PX
    y, x = GAP_PX + CAPTION_PX + 5, GAP_PX + 5
    first_row = [int(grid[y, x + i * (100 + GAP_PX), 0]) for i in range(6)]
    assert first_row == [0, 1, 10, 11, 20, 21]
    assert int(grid[y + 20 + GAP_PX, x, 0]) == 30
    assert side_by_side([], 3) == []


def test_import_brings_no_drawing_library():
    heavy = "{'matplotlib', 'PIL', 'torch'}"
    code = ("import sys, runtime.curves, runtime.pictures; "
            f"print({heavy} & set(sys.modules) or 'none')")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "none"


@pytest.mark.parametrize("count, text", [
    (0, "0"), (9999, "9999"), (10_000, "10k"), (999_400, "999k"), (999_950, "1.0M"),
    (4_500_000, "4.5M"), (9_960_000, "10M"), (2e9, "2.0G"), (3e13, "30000G")])
def test_counts_are_short(count, text):
    assert _short(count) == text


def test_units_of_scores():
    assert [unit_of(name) for name in ("mask/all", "top1", "coco/segm_mAP", "mean_iou")] == [
        "%", "%", "fraction of 1", "fraction of 1"]


def test_losses_of_one_term_make_one_curve():
    losses = {"s0.a": 1.0, "s1.a": 2.0, "s0.b": None}
    summed = _summed(losses, lambda name: name.partition(".")[2])
    assert summed["a"] == 3.0
    assert math.isnan(summed["b"])


@pytest.mark.parametrize("shape", [(1, 600), (3000, 2), (2, 6000)])
def test_a_strip_does_not_fill_the_memory(shape):
    image = np.zeros((*shape, 3), np.uint8)
    boxes = np.array([[0, 0, shape[1], shape[0]]])
    for drawn in (draw_instances(image, boxes, np.ones((1, *shape)), ["a"]),
                  draw_lines(image, ["a"])):
        assert max(drawn.shape) <= max(4096, *shape)


@pytest.mark.parametrize("name", ["a\nb", "a\tb\r\0c", r"$\frac{1}$", "_hidden", "a" * 300])
def test_any_name_can_be_drawn(tmp_path, name):
    image = np.zeros((40, 60, 3), np.uint8)
    draw_instances(image, np.array([[5, 5, 30, 30]]), np.ones((1, 40, 60)), [name])
    draw_lines(image, [name])
    draw_legend([(name, (1, 2, 3))], 100)
    with_note(draw_grid([image], [name]), name)
    plot_confusion(np.eye(2), [name, "b"], tmp_path / "a.png")
    plot_precision_recall({"box": np.ones((11, 2))}, [name, "b"], tmp_path / "b.png")


def test_an_evaluation_beside_the_training_is_no_point_of_its_curve(tmp_path):
    own = {"event": "eval", "iteration": 1, "epoch": 0, "metrics": {"a": 1.0}}
    beside = own | {"epoch": None, "metrics": {"a": 0.0}}
    path = write(tmp_path / "m.jsonl", json.dumps(own), json.dumps(beside))
    assert read_metrics(path)[1] == [own]
    path = write(tmp_path / "n.jsonl", json.dumps(beside))  # nothing else is known
    assert read_metrics(path)[1] == [beside]
