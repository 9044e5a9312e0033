"""The originals' other programs, which no script replaces: what to do instead."""

_ADE = "put the data into data/ADEChallengeData2016, or name yours by DATASET.root_dataset DIR"

_PREDICTS = "python train_queryinst.py CONFIG --predict {} --resume FILE draws what is found"
_NO_CAMERA = f"no script reads a camera; {_PREDICTS.format('FILE.mp4')}"

PROGRAMS: dict[str, dict[str, str]] = {
    "train_yolact": {
        "run_coco_eval.py": "an evaluation gives COCO's own numbers: python train_yolact.py "
                            "--eval-only --resume FILE",
        "data/scripts/COCO.sh": "put COCO into data/coco, images/ and annotations/",
        "data/scripts/COCO_test.sh": "put COCO into data/coco, images/ and annotations/",
    },
    "train_seg": {
        "download_ADE20K.sh": _ADE,
        "demo_test.sh": "python train_seg.py --predict PHOTO --cfg FILE TEST.result FOLDER draws "
                        "what is found; put the weights into the config's DIR",
    },
    "train_resnest": {
        "prepare_imagenet.py": "unpack ImageNet into train/<class>/ and val/<class>/ of a folder "
                               "and name it by DATA.ROOT DIR",
    },
    "train_queryinst": {
        "tools/misc/print_config.py": "--dry-run checks a config, and every run writes it in full "
                                      "to config.yaml",
        "tools/misc/download_dataset.py": "put COCO into data/coco, train2017/, val2017/ and "
                                          "annotations/",
        "tools/analysis_tools/browse_dataset.py": "python train_queryinst.py CONFIG --check-data "
                                                  "draws samples, and every training does",
        "tools/analysis_tools/analyze_logs.py": "curves.png in the work directory has the curves, "
                                                "--tensorboard too",
        "tools/analysis_tools/get_flops.py": "nothing here counts operations",
        "tools/analysis_tools/benchmark.py": "an evaluation's log has the seconds of each image",
        "tools/model_converters/publish_model.py": "best_*.pth has the weights alone, and "
                                                   "MMDetection's own tool reads it",
        "demo/image_demo.py": _PREDICTS.format("PHOTO"),
        "demo/video_demo.py": _PREDICTS.format("FILE.mp4"),
        "demo/webcam_demo.py": _NO_CAMERA,
    },
}
