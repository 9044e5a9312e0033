#!/usr/bin/env bash
# Where MMDetection has it: ./tools/dist_train.sh CONFIG GPUS [options].
exec "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/dist_train.sh" "$@"
