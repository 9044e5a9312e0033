"""YOLACT's eval.py and train.py [yolact.md: Command line]."""

from dataclasses import replace
from pathlib import PurePath

from runtime.other_tools.tool import (
    SAME,
    SWITCH,
    Part,
    Tool,
    becomes,
    nothing,
    ours,
    pick,
    refused,
    without,
)

ALL_IMAGES = 1_000_000  # of eval.py, where train.py scores 5,000 at most
TOP_K = 5  # of eval.py's pictures, where ours show all
_NO_WINDOWS = ("no script opens windows; an evaluation draws predictions.png into the run folder, "
               "and --predict FOLDER what is found on photos")
_NO_CAMERA = "no script reads a camera"
_TIMES = "times are taken of single images, with --predict"
_NAMES = "what is drawn keeps its source's name, in a folder of its own"
_ORDER = "the order of the images changes no score"
_DRAWN = "pictures show masks, boxes, names and scores"
_PHOTOS = "data/coco/images"  # of the configs' data sets
_SHOWN = ("--image", "--images", "--video", "--benchmark")


def _adapt(parts: list[Part]) -> list[Part]:
    """eval.py evaluates all images, or --max_images; or it draws what it finds on some."""
    drawn = [f"--display-{what}" for what in ("masks", "bboxes", "text", "scores")]
    as_drawn = [part.name for part in parts if part.name in drawn
                and " ".join(part.values).lower() in ("true", "yes", "1", "t")]
    count = pick(parts, "--max-images") or "-1"
    rest = without(parts, "--max-images", *as_drawn)
    shown = [part for part in rest if part.name in _SHOWN]
    if not shown:
        images = int(count) if count.isdecimal() and int(count) > 0 else ALL_IMAGES
        return [ours("--eval-only"), *rest, ours("--validation_size", str(images))]
    top_k = ours("--top_k", pick(rest, "--top-k") or str(TOP_K))
    return [*without(rest, *_SHOWN, "--top-k"), top_k, *_predicting(shown[-1])]


def _predicting(part: Part) -> list[Part]:
    """--image, --images, --video or --benchmark as --predict."""
    source, _, target = " ".join(part.values).partition(":")
    if part.name == "--benchmark":
        return [replace(part, refused=_TIMES), ours("--predict", _PHOTOS, "--benchmark")]
    if part.name == "--video" and source.isdecimal():
        return [replace(part, refused=_NO_CAMERA), ours("--predict", "FILE.mp4")]
    if part.name == "--images" or not target:
        return [ours("--predict", source, *(("--predict-to", target) if target else ()))]
    folder = str(PurePath(target).with_suffix(""))
    return [replace(part, refused=_NAMES), ours("--predict", source, "--predict-to", folder)]


EVAL = Tool(
    "train_yolact", ("eval.py",),
    {
        "--trained-model": becomes("--resume {}"),
        "--config": SAME, "--dataset": SAME, "--cuda": SAME, "--fast-nms": SAME,
        "--cross-class-nms": SAME, "--score-threshold": SAME, "--bbox-det-file": SAME,
        "--mask-det-file": SAME, "--seed": SAME, "--output-coco-json": SWITCH,
        "--max-images": SAME,
        "--top-k": nothing("it counts in pictures of single images alone", 1),
        "--shuffle": nothing(_ORDER), "--no-sort": nothing(_ORDER), "--no-hash": nothing(_ORDER),
        "--no-bar": nothing("the bar is shown on a terminal only"),
        "--ap-data-file": nothing("the scores are in metrics.jsonl", 1),
        "--resume": refused("there is no file of AP data to compute from; an evaluation is made"),
        "--output-web-json": refused("there is no web viewer; --output_coco_json writes what is "
                                     "found as COCO's JSON"),
        "--web-det-path": nothing("there is no web viewer", 1),
        "--display": refused(_NO_WINDOWS),
        "--display-masks": refused(_DRAWN, 1), "--display-bboxes": refused(_DRAWN, 1),
        "--display-text": refused(_DRAWN, 1), "--display-scores": refused(_DRAWN, 1),
        "--display-lincomb": refused(_NO_WINDOWS, 1), "--mask-proto-debug": refused(_NO_WINDOWS),
        "--no-crop": refused("masks are cropped by their boxes"),
        "--detect": refused("masks are evaluated with the boxes"),
        "--benchmark": SWITCH, "--image": SAME, "--images": SAME, "--video": SAME,
        "--video-multiframe": nothing("frames are read ahead", 1),
        "--display-fps": nothing("the speed is told at the end"),
        "--emulate-playback": nothing("frames are drawn as fast as they come"),
    },
    (frozenset({"--trained-model"}),),
    _adapt,
)
TRAIN = Tool("train_yolact", ("train.py",), {})
TOOLS = (EVAL, TRAIN)
