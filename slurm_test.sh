#!/usr/bin/env bash
# Evaluates under SLURM, as MMDetection's script of that name:
#
#     GPUS=8 ./slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options]
#
# Options are train_queryinst.py's, or those of MMDetection's tools/test.py. Environment: as
# slurm_train.sh.
if [ $# -lt 4 ]; then
    echo "slurm_test: use it as [GPUS=N] slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options]" >&2
    exit 2
fi
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
partition="$1" job="$2" config="$3"
shift 3
# No work directory; config and checkpoint are taken for an evaluation.
exec "$here/slurm_train.sh" "$partition" "$job" "$config" "" "$@"
