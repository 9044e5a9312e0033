"""QueryInst's samples: COCO images at their own shape, batched by orientation; pictures."""

from data.queryinst.aspect_loader import AspectRatioLoader
from data.queryinst.instances import QueryInstDataset, network_input
from data.queryinst.opening import open_query_config, open_query_data
from data.queryinst.pictures import save_query_samples
from data.queryinst.transform import rescale_size

__all__ = [
    "AspectRatioLoader",
    "QueryInstDataset",
    "network_input",
    "open_query_config",
    "open_query_data",
    "rescale_size",
    "save_query_samples",
]
