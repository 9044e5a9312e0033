"""--predict: inputs and names, the loop over images and frames, and what instances become."""

import io
import json
import os
import signal
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO

from data.predicting import BGR, RGB, Photos
from data.predicting.instances import InstanceResults, category_ids, compact
from runtime.cli import check_predicting
from runtime.errors import InputError, SaveError
from runtime.launch.signals import Stopped
from runtime.predicting import find_inputs, plan_predictions, predict_all
from runtime.predicting.outputs import picture_names
from runtime.predicting.videos import VideoFile, VideoFrames
from runtime.run.run import start_run
from settings.datasets import COCO_CLASSES
from settings.yolact_recipes import load_dataset_config


class Stop:
    """Stands for StopSignals: a signal comes once `after` batches are begun."""

    message, requested = "", "SIGINT"

    def __init__(self, after):
        self.left = after

    @property
    def number(self):
        self.left -= 1
        return signal.SIGINT.value if self.left < 0 else 0


class Means:
    """`Results` of a family whose network says how bright an image is."""

    def __init__(self):
        self.rows, self.beside = [], []

    def add(self, item, found):
        self.rows.append((item.number, item.image_id, item.path, found))

    def draw(self, pixels, found, is_frame):
        return 255 - pixels

    def save_beside(self, plan, item, found):
        self.beside.append(item.name)

    def collected(self):
        return self.rows

    def merge(self, other):
        self.rows += other

    def save(self, plan):
        plan.folder.mkdir(parents=True, exist_ok=True)
        (plan.folder / "means.json").write_text(json.dumps(self.rows))
        return ["means.json"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Folder photos/ in the current one: 7 images of sides 20 to 26, every second one wider."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.RandomState(0)
    (tmp_path / "photos").mkdir()
    for i in range(7):
        pixels = rng.randint(0, 256, (20 + i, 20 + 4 * (i % 2), 3)).astype(np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    return tmp_path / "photos"


def flags_of(predict, to=None, benchmark=False, **others):
    given = dict.fromkeys(("eval_only", "export", "check_data", "dry_run"), None)
    return SimpleNamespace(predict=predict, predict_to=to, benchmark=benchmark, **given | others)


def predicted(named, size=3, stop=None, batches=None, **flags):
    """(results, lines of the log and the warnings) of a prediction by `Means`."""
    run = start_run("test", "cpu", stop=stop)
    lines, results = [], Means()
    run.log = run.warn = lines.append
    try:
        plan = plan_predictions(run, flags_of(named, **flags), "run")
        source = Photos(plan, BGR, lambda image: {"image": image, "kind": image.shape[1]})

        def forward(samples):
            if batches is not None:
                batches.append([sample["number"] for sample in samples])
            return np.stack([sample["image"].mean((0, 1)) for sample in samples])

        predict_all(run, plan, source, size, 0, forward,
                    lambda said, samples: [float(row.mean()) for row in said], results)
    finally:
        run.close()
    return results, lines


# --- inputs


def test_what_a_path_means(photos):
    (photos / "deeper").mkdir()
    (photos / ".hidden").mkdir()
    for name in ("deeper/b.JPG", ".hidden/c.png", "deeper/.d.png", "notes.txt", "clip.mp4"):
        (photos / name).write_bytes(b"")
    (photos / "predictions").mkdir()
    (photos / "predictions" / "0.png").write_bytes(b"")
    found = find_inputs("photos", photos / "predictions").images
    assert found == (*(f"photos/{i}.png" for i in range(7)), "photos/deeper/b.JPG")
    assert find_inputs("photos/[0-2].png", "out").images == tuple(
        f"photos/{i}.png" for i in range(3))
    assert find_inputs("photos/clip.mp4", "out").video == "photos/clip.mp4"
    single = find_inputs("photos/notes.txt", "out")  # what it holds decides, not its name
    assert single.images == ("photos/notes.txt",)
    listed = find_inputs("-", "out", ["photos/1.png\n", "\n", " photos/0.png \n", "photos/1.png\n"])
    assert listed.images == ("photos/1.png", "photos/0.png")


@pytest.mark.parametrize("named, text", [
    ("nowhere", "--predict nowhere: no such image, video or folder"),
    ("empty", "--predict empty: no image in this folder or below it"),
    ("photos/*.gif", "--predict photos/*.gif: no image matches this pattern"),
    ("-", "--predict -: no path on stdin"),
])
def test_nothing_to_look_at(photos, named, text):
    (photos.parent / "empty").mkdir()
    with pytest.raises(InputError, match="^" + text.replace("*", r"\*")):
        find_inputs(named, "out", [])


def test_pictures_of_other_kinds_are_said(photos):
    for name in ("a.gif", "b.GIF", "c.avif", "notes.txt"):
        (photos / name).touch()
    found = find_inputs("photos", "out")
    assert len(found.images) == 7
    assert "photos: 3 pictures are left out, as their kind is not read (1 with .avif, 2 with " in (
        found.left)
    assert find_inputs("photos/*.png", "out").left == ""


def test_a_path_on_stdin_need_not_be_utf8(monkeypatch):
    stdin = SimpleNamespace(buffer=io.BytesIO(b"photos/\xff.png\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert find_inputs("-", "out").images == (os.fsdecode(b"photos/\xff.png"),)


def test_no_two_pictures_share_a_name():
    paths = ["a/x.jpg", "a/x.png", "b/x.png", "b/y.jpg", "b/Y.jpg", "b/z.jpg"]
    names = picture_names(paths)
    assert names == ["x.jpg.png", "a_x.png.png", "b_x.png.png", "b_y.jpg_4.png", "b_Y.jpg_5.png",
                     "z.png"]
    assert len({name.casefold() for name in names}) == len(paths)
    assert picture_names([]) == []


def test_a_video_that_opencv_cannot_write_is_told_once(photos, monkeypatch):
    monkeypatch.setattr("runtime.predicting.videos.CODEC", "none")
    frames = VideoFile(photos / "clip.mp4", 10.0)
    with pytest.raises(SaveError, match="OpenCV makes no none video of 32x32 there"):
        frames.write(np.zeros((32, 32, 3), np.uint8))
    frames.close()  # nothing more to say
    assert not (photos / "clip.mp4").exists()


def test_an_output_never_replaces_an_input(photos):
    with pytest.raises(InputError, match=r"would replace the image photos/0.png"):
        predicted("photos", to="photos")
    frames = VideoFile(photos / "clip.mp4", 10.0)
    frames.write(np.zeros((32, 32, 3), np.uint8))
    frames.close()
    with pytest.raises(InputError, match=r"would replace the image photos/clip.mp4"):
        predicted("photos/clip.mp4", to="photos")


@pytest.mark.parametrize("flags, text", [
    (flags_of("x", eval_only=True), "--predict and --eval-only are two different jobs"),
    (flags_of("x", export="y"), "--predict and --export are two different jobs"),
    (flags_of("x", dry_run=True), "--predict and --dry-run are two different jobs"),
    (flags_of(None, to="x"), "--predict-to only goes with --predict"),
    (flags_of(None, benchmark=True), "--benchmark only goes with --predict"),
    (flags_of(None, top_k=3), "--top-k only goes with --predict"),
])
def test_flags_that_do_not_go_together(flags, text):
    with pytest.raises(InputError, match=text):
        check_predicting(vars(flags))
    check_predicting(vars(flags_of(None)))
    check_predicting(vars(flags_of("x", to="y", benchmark=True)))
    check_predicting({})


def test_image_ids_are_the_numbers_of_the_files_where_all_have_one(photos, make_run):
    run = make_run()
    assert plan_predictions(run, flags_of("photos"), "run").image_ids() == list(range(7))
    os.rename("photos/3.png", "photos/three.png")
    assert plan_predictions(run, flags_of("photos"), "run").image_ids() == [1, 2, 3, 4, 5, 6, 7]


# --- the loop


def test_a_folder_in_batches_of_one_kind(photos):
    batches = []
    results, lines = predicted("photos", batches=batches)
    # neighbours of one width go together, three images are read at a time
    assert batches == [[0], [1], [2], [3], [4], [5], [6]]
    assert [row[0] for row in results.rows] == list(range(7))
    for number, _, path, found in results.rows:
        pixels = np.array(Image.open(path))
        assert path == f"photos/{number}.png"
        assert found == pytest.approx(pixels.mean())
        written = np.array(Image.open(f"run/predictions/{number}.png"))
        assert np.array_equal(written, 255 - pixels)
    assert sorted(results.beside) == sorted(f"{i}.png" for i in range(7))
    assert lines[0] == "Pictures, means.json are in run/predictions."
    assert lines[1].startswith("7 images in ")
    assert "images/s" in lines[1]
    os.system("rm photos/1.png photos/3.png photos/5.png")
    alike = []
    assert [row[3] for row in predicted("photos", batches=alike)[0].rows] == [
        row[3] for row in results.rows[::2]]
    assert alike == [[0, 1, 2], [3]]


def test_images_that_cannot_be_read(photos):
    for name in ("1.png", "4.png"):
        (photos / name).write_bytes(b"no picture")
    results, lines = predicted("photos")
    assert [row[0] for row in results.rows] == [0, 2, 3, 5, 6]
    assert lines[0].startswith("2 of 7 images could not be read and are left out: photos/1.png: ")
    assert sorted(os.listdir("run/predictions")) == sorted(
        [*(f"{i}.png" for i in (0, 2, 3, 5, 6)), "means.json"])
    with pytest.raises(InputError, match=r"photos/1\.png"):
        predicted("photos/1.png", to="other")
    assert not os.path.exists("other")


def test_a_stop_leaves_whole_files(photos):
    with pytest.raises(Stopped) as stopped:
        predicted("photos", stop=Stop(1))
    assert stopped.value.status == 130
    rows = json.loads((photos.parent / "run/predictions/means.json").read_text())
    assert [row[0] for row in rows] == [0, 1, 2]
    assert sorted(os.listdir("run/predictions")) == ["0.png", "1.png", "2.png", "means.json"]


def test_a_benchmark_writes_nothing(photos):
    batches = []
    results, lines = predicted("photos", benchmark=True, batches=batches)
    assert batches == [[0], *([i] for i in range(7))]  # the first one warms up
    assert not results.rows
    assert not os.path.exists("run")
    assert lines[0].startswith("Benchmark over 7 images")
    assert [line.split()[:2] for line in lines[1:]] == [
        ["model", "alone"], ["with", "postprocessing"], ["and", "reading"]]
    times = [float(line.split()[-6]) for line in lines[1:]]
    assert 0 <= times[0] <= times[1] <= times[2]


def test_a_video_keeps_size_rate_and_order(photos):
    frames = VideoFile(photos / "clip.mp4", 12.5)
    for i in range(9):
        frames.write(np.full((48, 66, 3), 20 + 20 * i, np.uint8))
    frames.close()
    results, lines = predicted("photos/clip.mp4", size=2)
    assert [row[1] for row in results.rows] == list(range(9))
    assert [row[3] for row in results.rows] == pytest.approx([20 + 20 * i for i in range(9)], abs=4)
    assert sorted(os.listdir("run/predictions")) == ["clip.mp4", "means.json"]
    written = VideoFrames("run/predictions/clip.mp4")
    assert written.rate == 12.5
    shown = [frame.mean() for frame in written]
    assert shown == pytest.approx([235 - 20 * i for i in range(9)], abs=4)
    written = VideoFrames("run/predictions/clip.mp4")
    assert next(iter(written)).shape == (48, 66, 3)
    assert "9 frames in" in lines[-1]


def test_a_stopped_video_plays(photos):
    frames = VideoFile(photos / "clip.mp4", 10.0)
    for _ in range(9):
        frames.write(np.zeros((32, 32, 3), np.uint8))
    frames.close()
    with pytest.raises(Stopped):
        predicted("photos/clip.mp4", size=2, stop=Stop(2))
    assert len(list(VideoFrames("run/predictions/clip.mp4"))) == 4
    (photos / "0.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"photos/0.mp4: OpenCV reads no frame"):
        predicted("photos/0.mp4")


def test_reading_ahead_in_processes_changes_nothing(photos, make_run):
    run = make_run()
    plan = plan_predictions(run, flags_of("photos"), "run")
    for reader in (BGR, RGB):
        source = Photos(plan, reader, lambda image, read=reader: {"image": read.as_shown(image)})
        ahead, here = (list(source.batches(2, workers)) for workers in (2, 0))
        assert [[sample["number"] for sample in batch] for batch in ahead] == [
            [0, 1], [2, 3], [4, 5], [6]]
        for a, b in zip(ahead, here, strict=True):
            for one, other in zip(a, b, strict=True):
                assert np.array_equal(one["image"], other["image"])
                assert np.array_equal(one["image"], source.pixels(one["number"]))


# --- instances


def classes(label_map=None):
    return SimpleNamespace(class_names=("cat", "dog"), label_map=label_map)


def found_on(height=40, width=60):
    masks = torch.zeros(3, height, width, dtype=torch.bool)
    masks[0, 5:20, 10:30] = True
    masks[1, 25:35, 40:55] = True
    rows = {"boxes": torch.tensor([[10, 5, 30, 20], [40, 25, 55, 35], [7, 7, 7, 9]]),
            "scores": torch.tensor([0.9, 0.2, 0.15]), "labels": torch.tensor([1, 0, 0]),
            "masks": masks}
    halves = [{name: value[part] for name, value in rows.items()}
              for part in (slice(0, 1), slice(1, 3))]
    return masks.numpy(), compact((height, width), iter(halves))


def test_results_are_cocos_own(photos, make_run):
    masks, found = found_on()
    run = make_run()
    plan = plan_predictions(run, flags_of("photos/[01].png"), "run")
    parts = [InstanceResults(classes({17: 1, 18: 2}), 0.3) for _ in range(2)]
    item = SimpleNamespace(number=1, image_id=1, path="photos/1.png", name="1.png")
    parts[1].add(item, found)
    parts[0].add(SimpleNamespace(**vars(item) | {"number": 0, "image_id": 0}), found)
    parts[0].merge(parts[1].collected())
    assert parts[0].save(plan) == ["predictions.json", "images.json"]
    results = json.loads((plan.folder / "predictions.json").read_text())
    assert [one["image_id"] for one in results] == [0, 0, 1, 1]  # the box without area is left out
    first = results[0]
    assert (first["bbox"], first["category_id"], first["category_name"]) == (
        [10, 5, 20, 15], 18, "dog")
    assert first["score"] == pytest.approx(0.9)
    truth = COCO(str(plan.folder / "images.json"))
    assert truth.imgs[1] == {"id": 1, "file_name": "photos/1.png", "height": 40, "width": 60}
    read = truth.loadRes(str(plan.folder / "predictions.json"))
    assert np.array_equal(truth.annToMask(read.anns[1]), masks[0])
    assert rle_codec.area(first["segmentation"]) == masks[0].sum()


def test_what_is_drawn():
    _, found = found_on()
    results = InstanceResults(classes(), 0.3)
    pixels = np.full((40, 60, 3), 90, np.uint8)
    picture = results.draw(pixels, found, is_frame=False)
    assert picture.shape == (320, 480, 3)
    assert (picture[8 * 10, 8 * 20] != 90).any()  # inside the first
    assert (picture[8 * 30 : 8 * 33, 8 * 45 : 8 * 50] == 90).all()  # too unsure
    frame = results.draw(pixels, found, is_frame=True)
    assert frame.shape == pixels.shape
    assert (frame[12, 20] != 90).any()
    everything = InstanceResults(classes(), 0.1).draw(pixels, found, is_frame=False)
    assert (everything[8 * 30, 8 * 47] != 90).any()


def test_category_ids():
    assert category_ids("abc", None) == [1, 2, 3]
    assert category_ids("abc", {7: 1, 9: 2, 8: 2}) == [7, 8, -3]
    ids = category_ids(COCO_CLASSES, None)
    assert (len(ids), ids[0], ids[-1]) == (80, 1, 90)
    known = load_dataset_config("coco2017_dataset").label_map
    assert ids == category_ids(COCO_CLASSES, known)


def test_captions_grow_with_the_picture():
    from runtime.pictures import FONT_PX, draw_instances, draw_lines, fitting_font

    assert fitting_font(320, 480) == FONT_PX
    assert fitting_font(3000, 4000) > 60
    heights = []
    for side in (320, 2000):
        blank = np.zeros((side, side, 3), np.uint8)
        box = np.array([[side // 4, side // 2, side // 2, side - 5]])
        picture = draw_instances(blank, box, np.zeros((1, side, side)), ["name"],
                                 [(255, 0, 0)])
        rows = np.flatnonzero((picture[: side // 2 - 2, side // 4 + 1] != 0).any(1))
        heights.append(len(rows) / side)
        lines = draw_lines(blank, ["one", "two"])
        assert (lines[: side // 30, :40] != 0).any()
    assert heights[1] > 0.02
    assert cv2.countNonZero(draw_lines(np.zeros((9, 9, 3), np.uint8), [])[..., 0]) == 0
