"""The grammar of YOLACT's nets in a config: marks for keys that spell layers.

A net is a list of items (channels, kernel, options); a kernel below 0 enlarges the map, and
("cat", nets, {}) puts the outputs of several nets side by side [yolact.md: Config keys].
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import did_you_mean

Options = Mapping[str, tuple[type, int]]  # of a layer: (type, least value)
_CONV_OPTIONS: Options = {"padding": (int, 0), "stride": (int, 1), "dilation": (int, 1),
                          "groups": (int, 1), "bias": (bool, 0)}
_TRANSPOSED_OPTIONS: Options = {**_CONV_OPTIONS, "output_padding": (int, 0)}
_HEAD_OPTIONS: Options = {**_CONV_OPTIONS, "kernel_size": (int, 1)}
_ENLARGEMENT_OPTIONS: Options = {"align_corners": (bool, 0)}


@dataclass(frozen=True)
class Layers:
    """Mark of a net: items (channels, kernel, options), or ("cat", nets, {})."""

    def faults(self, value: Any, got: str) -> list[str]:
        return list(_net_faults(value))


@dataclass(frozen=True)
class HeadOptions:
    """Mark of the options of the heads' own layers."""

    def faults(self, value: Any, got: str) -> list[str]:
        return list(_options_faults("", value, _HEAD_OPTIONS))


def is_list_of(length: int, value: Any) -> bool:
    """Whether `value` is a list or tuple of so many items."""
    return isinstance(value, (tuple, list)) and len(value) == length


def side_after(layers: Any, side: int) -> int:
    """Cells of a side behind a net of this grammar, for a square map; 0 where it is too small."""
    for channels, kernel, options in layers:
        if side < 1:
            return 0
        if channels == "cat":
            side = side_after(kernel[0], side)
        elif channels is None:
            side *= -kernel
        else:
            stride, padding = options.get("stride", 1), options.get("padding", 0)
            reach = options.get("dilation", 1) * (abs(kernel) - 1) + 1
            if kernel > 0:
                side = (side + 2 * padding - reach) // stride + 1
            else:
                side = ((side - 1) * stride - 2 * padding + reach
                        + options.get("output_padding", 0))
    return max(side, 0)


def _net_faults(layers: Any) -> Iterator[str]:
    """Faults of a net, each to stand behind its key."""
    if not isinstance(layers, (tuple, list)):
        yield f"wants a list of layers, got {layers}"
        return
    for layer in layers:
        if not is_list_of(3, layer) or not isinstance(layer[2], dict):
            yield f"wants items (channels, kernel, {{...}}), got {layer}"
        elif layer[0] == "cat":
            nets = layer[1] if isinstance(layer[1], (tuple, list)) else ()
            if not nets or layer[2]:
                yield f"wants a list of nets and no options behind cat, got {layer}"
            for net in nets:
                yield from _net_faults(net)
        else:
            yield from _layer_faults(*layer)


def _layer_faults(channels: Any, kernel: Any, options: dict[Any, Any]) -> Iterator[str]:
    layer = (channels, kernel, options)
    if type(kernel) is not int or kernel == 0:
        yield f"wants a kernel size, got {layer}"
    elif channels is None and kernel < 0:
        yield from _options_faults(f"{layer}: ", options, _ENLARGEMENT_OPTIONS)
    elif type(channels) is not int or channels < 1:
        yield f"wants a number of channels, got {layer}"
    else:
        known = _CONV_OPTIONS if kernel > 0 else _TRANSPOSED_OPTIONS
        yield from _options_faults(f"{layer}: ", options, known)


def _options_faults(where: str, options: dict[Any, Any], known: Options) -> Iterator[str]:
    for key, value in options.items():
        if key not in known:
            yield (f"{where}has no option {key}.{did_you_mean(str(key), known)} "
                   f"Known: {', '.join(known)}")
            continue
        kind, least = known[key]
        if type(value) is not kind or value < least:
            wanted = "true or false" if kind is bool else f"an integer from {least}"
            yield f"{where}{key} wants {wanted}, got {value}"
