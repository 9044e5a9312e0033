from models.yolact.recipes import load_dataset_config, load_yolact_config

__all__ = ["load_dataset_config", "load_yolact_config"]
