"""Schema of how a QueryInst run goes: its loops, its randomness, its processes, its pictures.

A class's own defaults are MMEngine's, for a section that leaves a key out; those of
queryinst_r50_fpn_1x_coco are in `settings.queryinst.config`.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from settings.foreign import ForeignKeys
from settings.ranges import Count, Section, Seed

_LOOP = ForeignKeys(same={"fp16": False})


@dataclass(frozen=True)
class TrainLoopConfig(Section):
    """Section train_cfg: in epochs, or with IterBasedTrainLoop in iterations.

    val_interval: epochs or iterations between validations; the end of the training has one always
    val_begin:    the first epoch, from 1, or iteration that may have one
    """

    FOREIGN: ClassVar = ForeignKeys(
        refused={"dynamic_intervals": "validations have one interval, val_interval"})

    type: Literal["EpochBasedTrainLoop", "IterBasedTrainLoop"] = "EpochBasedTrainLoop"
    max_epochs: Count | None = None
    max_iters: Count | None = None
    val_interval: Count | None = None  # None: 1 epoch, 1000 iterations
    val_begin: Count = 1

    def misfits(self) -> list[str]:
        wanted, other = ("max_epochs", "max_iters") if self.in_epochs else ("max_iters",
                                                                            "max_epochs")
        faults = []
        if vars(self)[wanted] is None:
            faults.append(f"{wanted} is missing, {self.type} needs it")
        if vars(self)[other] is not None:
            faults.append(f"{other} is no key of {self.type}: set it to None, or put _delete_: "
                          "true beside the type")
        return faults

    @property
    def in_epochs(self) -> bool:
        """Whether its numbers are epochs."""
        return self.type == "EpochBasedTrainLoop"

    @property
    def validate_every(self) -> int:
        """Epochs or iterations between validations."""
        return self.val_interval or (1 if self.in_epochs else 1000)

    def iterations(self, per_epoch: int) -> int:
        """Updates of the whole training."""
        return (self.max_epochs or 0) * per_epoch if self.in_epochs else self.max_iters or 0


@dataclass(frozen=True)
class ValLoopConfig(Section):
    """Section val_cfg."""

    FOREIGN: ClassVar = _LOOP

    type: Literal["ValLoop"] = "ValLoop"


@dataclass(frozen=True)
class TestLoopConfig(Section):
    """Section test_cfg."""

    FOREIGN: ClassVar = _LOOP

    type: Literal["TestLoop"] = "TestLoop"


@dataclass(frozen=True)
class RandomnessConfig(Section):
    """seed: of everything drawn in a run; None: the script's --seed.

    deterministic: an operation whose result may differ from run to run is an error
    """

    FOREIGN: ClassVar = ForeignKeys(ignored={
        "diff_rank_seed": "what is drawn depends on the image's place in the epoch, so that "
                          "processes differ in any case"})

    seed: Seed | None = None
    deterministic: bool = False


@dataclass(frozen=True)
class VisBackendConfig(Section):
    """Where scalars go beside the log. LocalVisBackend's vis_data/scalars.json is always there."""

    FOREIGN: ClassVar = ForeignKeys(ignored={
        "save_dir": "they go to the work directory", "init_kwargs": "there is nothing to set up"})

    type: str

    def misfits(self) -> list[str]:
        if self.type in ("LocalVisBackend", "TensorboardVisBackend"):
            return []
        return [f"type {self.type} is not supported here: scalars go to metrics.jsonl, to "
                "MMDetection's scalars.json and, with TensorboardVisBackend, to TensorBoard"]


@dataclass(frozen=True)
class VisualizerConfig(Section):
    """TensorboardVisBackend among `vis_backends` is --tensorboard."""

    FOREIGN: ClassVar = ForeignKeys(ignored=dict.fromkeys(
        ("name", "save_dir", "image", "bbox_color", "text_color", "mask_color", "line_width",
         "alpha", "fig_save_cfg", "fig_show_cfg"), "the run's pictures have one look"))

    type: Literal["DetLocalVisualizer", "Visualizer"] = "DetLocalVisualizer"
    vis_backends: tuple[VisBackendConfig, ...] | None = None

    @property
    def tensorboard(self) -> bool:
        """Whether scalars go to TensorBoard, too."""
        return any(each.type == "TensorboardVisBackend" for each in self.vis_backends or ())


@dataclass(frozen=True)
class ModelWrapperConfig(Section):
    """How processes share the network.

    find_unused_parameters: look for parameters without a gradient in each update; here all have one
    """

    FOREIGN: ClassVar = ForeignKeys(
        same={"static_graph": False, "detect_anomalous_params": False},
        ignored={"broadcast_buffers": "training takes each batch's own statistics, validation and "
                                      "checkpoints rank 0's",
                 "bucket_cap_mb": "the size of the messages is torch's choice",
                 "gradient_as_bucket_view": "it saves memory and is always on"})

    type: Literal["MMDistributedDataParallel"] = "MMDistributedDataParallel"
    find_unused_parameters: bool = False


TRAIN_CFG = TrainLoopConfig(max_epochs=12, val_interval=1)
VAL_CFG, TEST_CFG, RANDOMNESS = ValLoopConfig(), TestLoopConfig(), RandomnessConfig()

_VARIABLE = "other keys have taken its value: set it where it stands in them"

FOREIGN = ForeignKeys(  # of a whole config
    ignored={
        "env_cfg": "processes and libraries are set up in one way",
        "dist_params": "the backend is NCCL on GPUs and Gloo on CPUs",
        "launcher": "--launcher says who started the processes",
        "log_level": "the log has one level", "default_scope": "there is one registry of names",
        "vis_backends": "those that count stand in visualizer",
        "dataset_type": _VARIABLE, "data_root": _VARIABLE, "backend_args": _VARIABLE,
        "file_client_args": _VARIABLE, "train_pipeline": _VARIABLE, "test_pipeline": _VARIABLE,
        "val_pipeline": _VARIABLE, "image_size": _VARIABLE, "img_scale": _VARIABLE,
        "max_epochs": _VARIABLE, "base_lr": _VARIABLE, "classes": _VARIABLE,
        "num_classes": _VARIABLE, "num_proposals": _VARIABLE, "num_stages": _VARIABLE,
        "metainfo": _VARIABLE,
        "tta_model": "--tta is no flag here", "tta_pipeline": "--tta is no flag here",
        "runner_type": "this script is the runner"},
    refused={"custom_imports": "a config's code is never run"})
