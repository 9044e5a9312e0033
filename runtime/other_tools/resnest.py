"""ResNeSt's verify.py and train.py [resnest.md: Command line]."""

from runtime.other_tools.tool import SAME, Part, Tool, becomes, nothing, ours, pick, refused


def _adapt(parts: list[Part]) -> list[Part]:
    """verify.py resizes bicubically, and without a file it takes the published weights."""
    named = any(pick(parts, flag) for flag in ("--resume", "--verify", "--pretrained"))
    model = pick(parts, "--model")
    weights = [] if named or not model else [ours("--pretrained", model)]
    return [ours("--eval-only"), *weights, *parts, ours("DATA.INTERPOLATION", "bicubic")]


VERIFY = Tool(
    "train_resnest", ("verify.py",),
    {
        "--model": becomes("MODEL.NAME {}"),
        "--crop-size": becomes("DATA.CROP_SIZE {}"),
        "--base-size": nothing("the original does not use it either", 1),
        "--data-dir": becomes("DATA.ROOT {}"),
        "--batch-size": becomes("TRAINING.TEST_BATCH_SIZE {}"),
        "--verify": becomes("--resume {}"),
        "--no-cuda": becomes("--device cpu", 0),
        "--resume": SAME, "--workers": SAME, "--seed": SAME,
        "--dataset": refused("the data are the folders of DATA.ROOT", 1),
    },
    (frozenset({"--verify"}), frozenset({"--model", "--crop-size"})),
    _adapt,
)
# Of PyTorch-Encoding, to which the original's documents send for the training of ImageNet.
ENCODING = Tool(
    "train_resnest", ("train_dist.py",),
    {
        "--dataset": nothing("the data are the folders of DATA.ROOT", 1),
        "--model": becomes("MODEL.NAME {}"), "--final-drop": becomes("MODEL.FINAL_DROP {}"),
        "--last-gamma": becomes("TRAINING.LAST_GAMMA True", 0),
        "--base-size": nothing("the original does not use it either", 1),
        "--crop-size": becomes("DATA.CROP_SIZE {}"),
        "--label-smoothing": becomes("DATA.LABEL_SMOOTHING {}"),
        "--mixup": becomes("DATA.MIXUP {}"),
        "--rand-aug": becomes("DATA.RAND_AUG True", 0),
        "--lr": becomes("OPTIMIZER.LR {}"), "--lr-scheduler": becomes("OPTIMIZER.LR_SCHEDULER {}"),
        "--warmup-epochs": becomes("OPTIMIZER.WARMUP_EPOCHS {}"),
        "--momentum": becomes("OPTIMIZER.MOMENTUM {}"),
        "--wd": becomes("OPTIMIZER.WEIGHT_DECAY {}"),
        "--no-bn-wd": becomes("OPTIMIZER.DISABLE_BN_WD True", 0),
        "--epochs": becomes("TRAINING.EPOCHS {}"),
        "--batch-size": becomes("TRAINING.BATCH_SIZE {}"),
        "--checkname": becomes("--outdir output/{}"),
        "--workers": SAME, "--seed": SAME, "--resume": SAME, "--world-size": SAME, "--rank": SAME,
        "--dist-url": SAME, "--dist-backend": SAME,
    },
)
TRAIN = Tool("train_resnest", ("train.py",), {})
TOOLS = (VERIFY, ENCODING, TRAIN)
