#!/usr/bin/env bash
# Where MMDetection has it.
exec "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/slurm_train.sh" "$@"
