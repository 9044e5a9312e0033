"""What this project's scripts call the options that other tools have: one table, `answer_for`.

The words are those of Ultralytics, detectron2, timm, MMDetection, torchvision's references and the
evaluation tools of the originals. tests/unit/test_other_tools.py checks that every flag and config
key in an answer exists.

An answer is what stands behind "in this script it is", or, with a colon in front, a statement. A
row without an answer for a script says nothing there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.spelling import same_name

SCRIPTS = ("train_yolact", "train_seg", "train_resnest", "train_queryinst")


@dataclass(frozen=True)
class Row:
    """Words that mean the same, and the answer of each script, in the order of SCRIPTS."""

    words: tuple[str, ...]
    answers: tuple[str | None, ...]


def _row(words: str, *answers: str | None) -> Row:
    """words: separated by blanks, without dashes in front. One answer serves for all scripts."""
    return Row(tuple(words.split()), answers * len(SCRIPTS) if len(answers) == 1 else answers)


_TRAINING = (
    _row(
        "epochs epoch num-epochs num-epoch n-epochs max-epochs max-epoch total-epochs nepochs",
        "--epochs N, or --cfg-options max_iter=N, in iterations",
        "--epochs N, or TRAIN.num_epoch N",
        "--epochs N, or TRAINING.EPOCHS N",
        "--epochs N, or --cfg-options train_cfg.max_epochs=N",
    ),
    _row(
        "iters max-iter iterations num-iters num-iterations total-iters steps max-steps num-steps "
        "train-steps",
        "--max-iters N",
    ),
    _row(
        "epoch-iters steps-per-epoch iters-per-epoch epoch-size",
        ": an epoch of this script is one pass over the data; --max-iters N ends a run early",
        "TRAIN.epoch_iters N",
        ": an epoch of this script is one pass over the data; --max-iters N ends a run early",
        ": an epoch of this script is one pass over the data; --max-iters N ends a run early",
    ),
    _row(
        "batch b bs batch-size batchsize train-batch-size imgs-per-batch ims-per-batch "
        "images-per-batch imgs-per-gpu images-per-gpu samples-per-gpu batch-size-per-gpu "
        "per-device-train-batch-size",
        "--batch_size N, over all GPUs",
        "--batch-size N, on each GPU",
        "--batch-size N, of each process",
        "--batch-size N, of each process",
    ),
    _row(
        "val-batch-size vb validation-batch-size test-batch-size eval-batch-size "
        "per-device-eval-batch-size",
        ": this script evaluates 8 images at a time, whatever the training batch is",
        ": this script evaluates one image at a time, because sizes differ",
        "TRAINING.TEST_BATCH_SIZE N",
        "--cfg-options val_dataloader.batch_size=N",
    ),
    _row(
        "lr lr0 base-lr blr init-lr initial-lr learning-rate lrate",
        "--lr X",
        "TRAIN.lr_encoder X TRAIN.lr_decoder X",
        "OPTIMIZER.LR X",
        "--cfg-options optim_wrapper.optimizer.lr=X",
    ),
    _row(
        "wd weight-decay decay l2",
        "--decay X",
        "TRAIN.weight_decay X",
        "OPTIMIZER.WEIGHT_DECAY X",
        "--cfg-options optim_wrapper.optimizer.weight_decay=X",
    ),
    _row(
        "momentum sgd-momentum beta1",
        "--momentum X",
        "TRAIN.beta1 X",
        "OPTIMIZER.MOMENTUM X",
        "--cfg-options optim_wrapper.optimizer.betas=[X,Y]",
    ),
    _row(
        "opt optim optimizer",
        ": this script trains with SGD, as the original does",
        ": this script trains with SGD, as the original does",
        ": this script trains with SGD, as the original does",
        ": this script trains with AdamW, as the original does",
    ),
    _row(
        "sched scheduler lr-scheduler lr-schedule lr-policy cos-lr schedule",
        "--cfg-options lr_steps=[N,N], iterations of the drops",
        "TRAIN.lr_pow X, of the polynomial decay",
        "OPTIMIZER.LR_SCHEDULER NAME",
        "--cfg-options param_scheduler.1.milestones=[N,N], epochs of the drops",
    ),
    _row(
        "milestones lr-milestones lr-steps lr-step-size step-size lr-drop decay-epochs "
        "decay-milestones lr-step",
        "--cfg-options lr_steps=[N,N], iterations of the drops",
        "TRAIN.lr_pow X, of the polynomial decay",
        "OPTIMIZER.LR_SCHEDULER multistep OPTIMIZER.MILESTONES [N,N]",
        "--cfg-options param_scheduler.1.milestones=[N,N], epochs of the drops",
    ),
    _row(
        "gamma lr-gamma decay-rate lr-decay lr-drop-rate lr-decay-rate",
        "--gamma X",
        "TRAIN.lr_pow X, of the polynomial decay",
        "OPTIMIZER.GAMMA X",
        "--cfg-options param_scheduler.1.gamma=X",
    ),
    _row(
        "warmup warmup-epochs warmup-iters warmup-steps warmup-t lr-warmup lr-warmup-epochs "
        "num-warmup-steps",
        "--cfg-options lr_warmup_until=N, in iterations",
        ": this script has no warm-up, as the original",
        "OPTIMIZER.WARMUP_EPOCHS N",
        "--cfg-options param_scheduler.0.end=N, in iterations",
    ),
    _row(
        "amp fp16 half bf16 float16 bfloat16 mixed-precision use-amp native-amp apex precision "
        "opt-level apex-opt-level autocast amp-dtype",
        "--amp fp16, or --amp bf16",
    ),
    _row("ema model-ema use-ema ema-decay model-ema-decay", "--ema DECAY"),
    _row(
        "clip clip-grad clip-grad-norm clip-norm clip-max-norm clip-value grad-clip "
        "gradient-clip gradient-clip-val max-grad-norm max-norm",
        "--clip-grad X",
    ),
    _row(
        "accum accum-iter accum-steps accumulation-steps accumulate-grad-batches grad-accum "
        "grad-accum-steps gradient-accumulation-steps iter-size update-freq nbs",
        "--accumulate N",
    ),
    _row("torchcompile torch-compile use-compile jit torchscript", "--compile"),
    _row("channel-last memory-format nhwc", "--channels-last"),
    _row("allow-tf32 matmul-precision float32-matmul-precision", "--tf32"),
    _row(
        "freeze freeze-bn fix-bn freeze-backbone frozen-stages trainable-backbone-layers "
        "freeze-layers",
        "--cfg-options freeze_bn=True",
        "TRAIN.fix_bn True",
        ": this script freezes nothing",
        "--cfg-options model.backbone.frozen_stages=N",
    ),
    _row(
        "sync-bn syncbn sync-batchnorm use-sync-bn dist-bn",
        ": this script does not share batch statistics between processes",
        "TRAIN.sync_bn True",
        ": this script does not share batch statistics between processes",
        ": the norms of this script stay in evaluation mode; there is nothing to share",
    ),
    _row(
        "label-smoothing smoothing label-smooth",
        None, None, "DATA.LABEL_SMOOTHING X", None,
    ),
    _row("mixup mixup-alpha mix-up", None, None, "DATA.MIXUP X", None),
    _row("cutmix cutmix-alpha cut-mix", None, None, "DATA.CUTMIX X", None),
    _row(
        "reprob random-erase random-erasing erasing re-prob",
        None, None, "DATA.RANDOM_ERASING X", None,
    ),
    _row(
        "aa auto-augment autoaugment rand-aug randaugment rand-augment ra-magnitude",
        None, None, "DATA.RAND_AUG True", None,
    ),
    _row(
        "drop dropout drop-rate final-drop",
        None, None, "MODEL.FINAL_DROP X", None,
    ),
    _row(
        "hflip flip fliplr hflip-prob random-flip",
        "--no-mirror, or --cfg-options augment_random_mirror=False",
        "--no-mirror, or DATASET.random_flip False",
        "--no-mirror, or DATA.MIRROR False",
        "--no-mirror, or --cfg-options train_dataloader.dataset.pipeline.3.prob=X",
    ),
)

_DATA = (
    _row(
        "imgsz img-size img image-size imsize input-size size crop-size base-size resize "
        "img-scale train-crop-size train-size val-crop-size val-resize-size resolution",
        "--image-size N, or --cfg-options max_size=N",
        "--image-size N, or DATASET.imgSizes N and DATASET.imgMaxSize N",
        "--image-size N, or DATA.CROP_SIZE N",
        "--image-size N, or --cfg-options train_dataloader.dataset.pipeline.2.scale=[W,H] "
        "val_dataloader.dataset.pipeline.1.scale=[W,H]",
    ),
    _row(
        "data data-path data-dir data-root dataroot data-folder dataset dataset-path dataset-dir "
        "dataset-root root root-dir data-cfg data-config train-data train-dir train-path "
        "image-dir images-dir img-dir",
        "--cfg-options dataset.train_images=DIR dataset.train_info=FILE.json, valid_* likewise",
        "DATASET.root_dataset DIR DATASET.list_train FILE DATASET.list_val FILE",
        "DATA.ROOT DIR",
        "--cfg-options train_dataloader.dataset.data_root=DIR "
        "train_dataloader.dataset.ann_file=FILE.json "
        "train_dataloader.dataset.data_prefix.img=FOLDER, val_dataloader.* likewise",
    ),
    _row(
        "ann-file annotations annotation-file ann-path annotation train-json train-ann json "
        "train-info train-annotations",
        "--cfg-options dataset.train_info=FILE.json dataset.valid_info=FILE.json",
        "DATASET.list_train FILE DATASET.list_val FILE",
        ": the classes of this script are the folders of DATA.ROOT; there is no annotation file",
        "--cfg-options train_dataloader.dataset.ann_file=FILE.json "
        "val_dataloader.dataset.ann_file=FILE.json",
    ),
    _row(
        "num-classes nc num-class n-classes nclasses num-cls class-num classes class-names",
        ": the classes of this script come from the file dataset.train_info",
        "DATASET.num_class N",
        ": the classes of this script are the folders of DATA.ROOT",
        ": the classes of this script come from the file train_dataloader.dataset.ann_file",
    ),
    _row(
        "workers num-workers j nw data-workers dataloader-workers dataloader-num-workers "
        "num-data-workers num-threads nthreads threads",
        "--num_workers N",
        "--workers N",
        "--workers N",
        "--workers N",
    ),
    _row(
        "check check-dataset validate-data verify-data verify-dataset data-check",
        "--check-data",
    ),
)

_RUNNING = (
    _row("seed random-seed manual-seed rng-seed torch-seed", "--seed N"),
    _row(
        "deterministic diff-seed cudnn-deterministic reproducible cudnn-benchmark",
        ": runs of one --seed N draw the same numbers without a flag for it",
    ),
    _row(
        "config c cfg config-file cfg-file cfg-path conf-file config-path config-name yaml "
        "cfg-yaml recipe hyp",
        "--config NAME",
        "--cfg FILE",
        "--config-file FILE",
        "the first word without a flag: python train_queryinst.py CONFIG",
    ),
    _row(
        "opts options set override overrides cfg-option cfg-override cfg-opts",
        "--cfg-options KEY=VALUE",
    ),
    _row(
        "model arch a net network architecture model-name model-type backbone encoder",
        "--config NAME",
        "MODEL.arch_encoder NAME MODEL.arch_decoder NAME",
        "MODEL.NAME NAME",
        "the config's name, or --cfg-options model.backbone.depth=N",
    ),
    _row(
        "weights weight pretrain pretrained pretrained-model pretrained-weights pretrained-path "
        "weights-path model-path init-checkpoint initial-checkpoint checkpoint-path finetune "
        "fine-tune load-weights load load-from load-model initial-weights ckpt ckpt-path "
        "checkpoint init-weights backbone-weights weights-backbone",
        "--pretrained FILE to start from its weights, --resume FILE to carry on",
    ),
    _row(
        "auto-resume autoresume continue continue-training cont resume-training resume-latest "
        "restart reload restore last",
        "--resume latest",
    ),
    _row(
        "resume-from resume-path resume-checkpoint resume-file resume-from-checkpoint "
        "load-checkpoint restore-from",
        "--resume FILE",
    ),
    _row(
        "start-epoch start-iter start-iteration initial-epoch start-step begin-epoch",
        "--start_iter N",
        "TRAIN.start_epoch N",
        "TRAINING.START_EPOCHS N",
        "--resume latest, or --resume FILE; the file says where it stopped",
    ),
    _row(
        "output-dir output out-dir outdir output-path output-folder work-dir workdir save-dir "
        "save-path save-folder savedir result-dir results-dir checkpoint-dir ckpt-dir model-dir "
        "project exp-dir experiment-dir snapshot-dir log-folder logdir log-dir log-path "
        "default-root-dir",
        "--save_folder DIR for weights, --log_folder DIR for log and metrics",
        "DIR FOLDER",
        "--outdir DIR",
        "--work-dir DIR",
    ),
    _row(
        "name exp exp-name expname experiment experiment-name run-name run-id checkname tag "
        "model-id",
        "--cfg-options name=NAME, also the run folder's name in --log_folder",
        "DIR FOLDER, the run's folder",
        "--outdir DIR, the run's folder",
        "--work-dir DIR, the run's folder",
    ),
    _row(
        "patience early-stop early-stopping early-stopping-patience stop-patience",
        "--patience N, counted in validations",
    ),
    _row("max-time time-limit max-train-hours train-hours hours time", "--max-hours H"),
    _row(
        "save-period save-interval save-freq save-frequency save-epoch save-epochs save-steps "
        "save-step save-iter save-every-epoch checkpoint-interval checkpoint-period "
        "checkpoint-freq checkpoint-every ckpt-interval snapshot-interval",
        "--save_interval N, in iterations",
        "--save-every N, in updates; each epoch is saved anyway",
        "--save-every N, in updates; each epoch is saved anyway",
        "--cfg-options default_hooks.checkpoint.interval=N, or --save-every N, in updates",
    ),
    _row(
        "val-interval val-period val-freq val-every eval-interval eval-period eval-freq "
        "eval-every eval-steps eval-epoch evaluation-interval validation-interval "
        "validation-epoch test-interval check-val-every-n-epoch",
        "--validation_epoch N",
        "VAL.interval N",
        "TRAINING.EVAL_EVERY N",
        "--cfg-options train_cfg.val_interval=N",
    ),
    _row(
        "no-validate no-val noval no-eval no-validation skip-val",
        "--validation_epoch 0",
        "VAL.interval 0",
        ": this script validates after the last epoch at least; TRAINING.EVAL_EVERY N makes it "
        "rare",
        ": this script validates after the last epoch at least; --cfg-options "
        "train_cfg.val_interval=N makes it rare",
    ),
    _row(
        "print-freq print-interval print-every log-interval log-freq log-step log-steps "
        "log-period logging-steps log-every-n-steps disp-iter disp-interval display-interval "
        "verbose-interval",
        "--log-every N",
    ),
    _row(
        "gpu gpus gpu-id gpu-ids gpuid num-gpus ngpus n-gpus n-gpu gpu-num devices nproc "
        "nproc-per-node world-size",
        "--device cuda:N for one GPU; for several set CUDA_VISIBLE_DEVICES=0,1",
        "--gpus 0-3",
        ": this script starts one process for each GPU of CUDA_VISIBLE_DEVICES=0,1; "
        "--device cuda:N takes one",
        "--device cuda:N for one GPU; for several: ./dist_train.sh CONFIG GPUS",
    ),
    _row("cpu no-cuda nocuda disable-cuda no-gpu use-cpu cpu-only", "--device cpu"),
    _row("cuda use-cuda use-gpu accelerator", "--device cuda"),
    _row(
        "distributed dist ddp multi-gpu multiprocessing-distributed dist-url dist-backend "
        "num-machines machine-rank num-nodes nnodes node-rank local-rank rank local-world-size "
        "launcher master-addr master-port init-method",
        ": torchrun says it: torchrun --nnodes 2 --nproc_per_node N train_yolact.py ...",
        ": torchrun says it: torchrun --nnodes 2 --nproc_per_node N train_seg.py ...",
        ": torchrun says it: torchrun --nnodes 2 --nproc_per_node N train_resnest.py ...",
        ": torchrun says it: torchrun --nnodes 2 --nproc_per_node N train_queryinst.py ...",
    ),
    _row("use-wandb log-wandb", "--wandb"),
    _row(
        "wandb-project wandb-name",
        ": --wandb logs to the project and name of WANDB_PROJECT and WANDB_NAME",
    ),
    _row("tb use-tb use-tensorboard tensorboard-dir tb-dir logger report-to", "--tensorboard"),
    _row(
        "mlflow comet",
        ": there is no such service here; metrics.jsonl in the run folder, --tensorboard and "
        "--wandb have the curves",
    ),
    _row("dryrun fast-dev-run sanity-check smoke-test test-run", "--dry-run"),
    _row("onnx export-onnx to-onnx export-path", "--export FILE.onnx"),
    _row("verbose quiet traceback", "--debug, which shows the traceback of input errors"),
)

_EVALUATING = (
    _row(
        "evaluate evaluation eval do-eval eval-mode val-only validate validation-only only-eval "
        "test test-only only-test inference-only no-train benchmark",
        "--eval-only, with --resume FILE for another checkpoint than the best",
    ),
    _row(
        "max-images num-images max-samples",
        "--validation_size N",
        ": this script evaluates all images of DATASET.list_val",
        ": this script evaluates all images of DATA.ROOT/val",
        ": this script evaluates all images of val_dataloader.dataset.ann_file",
    ),
    _row(
        "conf conf-thres conf-threshold confidence score-thr score-thresh score-threshold "
        "threshold",
        "--score_threshold X",
        None,
        "--score-threshold X, for --predict",
        "--score-threshold X, for --predict; the score wants all detections, so it drops none",
    ),
    _row(
        "top-k topk",
        "--top-k N, for --predict",
        ": a label map has one class for each pixel",
        "--top-k N, for --predict",
        "--top-k N, for --predict",
    ),
    _row(
        "iou iou-thres iou-threshold nms-thres nms-thresh nms-threshold",
        "--cfg-options nms_thresh=X",
        None,
        None,
        ": QueryInst has no NMS",
    ),
    _row(
        "max-det max-dets max-detections max-per-img",
        "--cfg-options max_num_detections=N",
        None,
        None,
        "--cfg-options model.test_cfg.rcnn.max_per_img=N",
    ),
    _row(
        "predict image images imgs img-path image-path input source infer inference demo detect",
        "--predict PATH, with --predict-to DIR for pictures and data",
        "--predict PATH, with TEST.result DIR or --predict-to DIR for pictures and data",
        "--predict PATH, with --predict-to DIR for pictures and data",
        "--predict PATH, with --predict-to DIR for pictures and data",
    ),
    _row(
        "video webcam video-multiframe display-fps emulate-playback camera",
        "--predict FILE.mp4",
    ),
    _row(
        "display show wait-time display-masks display-bboxes display-text display-scores "
        "display-lincomb mask-proto-debug visualize vis show-dir save-vis plots",
        ": no script opens windows; a validation draws some predictions into the run folder",
    ),
    _row(
        "out out-file save-json format-only ap-data-file output-web-dets web-det-path",
        "--eval-only --output_coco_json, with --bbox_det_file FILE --mask_det_file FILE",
        ": an evaluation of this script writes its scores to metrics.jsonl in DIR",
        ": an evaluation of this script writes its scores to metrics.jsonl in --outdir DIR",
        ": an evaluation of this script writes its scores to metrics.jsonl in --work-dir DIR, and "
        "no detections",
    ),
    _row(
        "tta multi-scale test-time-augmentation",
        ": this script evaluates each image once",
        "DATASET.imgSizes [N,N], over which an evaluation averages",
        ": this script evaluates each image once",
        ": this script evaluates each image once",
    ),
    _row("no-bar no-progress disable-tqdm", ": the bar is shown on a terminal only"),
)

TABLE = _TRAINING + _DATA + _RUNNING + _EVALUATING


def answer_for(script: str, flag: str) -> str | None:
    """The rest of a message on a flag that `script` does not have, or None for an unknown word.

    script: the name without its ending, train_seg
    flag:   as it was typed; dashes in front, `-` or `_`, and case do not count
    """
    if script not in SCRIPTS:
        return None
    answer = _answer(flag, SCRIPTS.index(script))
    if answer is None or answer.startswith(":"):
        return answer
    # KEY VALUE pairs are told by their capitals
    place = " (behind the flags)" if answer[:2].isupper() else ""
    return f"; in this script it is {answer}{place}"


def key_for(word: str, keys: Iterable[str]) -> str | None:
    """That one of the dotted config keys which the table's answers give for a key `word`."""
    known = set(keys) if len(word) > 1 else set()  # -a and its like are flags only
    for i in range(len(SCRIPTS)):
        for part in (_answer(word, i) or "").replace("=", " ").replace(",", " ").split():
            if part in known:
                return part
    return None


def _answer(word: str, i: int) -> str | None:
    return next((row.answers[i] for row in TABLE
                 if row.answers[i] and any(same_name(word, known) for known in row.words)), None)
