#!/usr/bin/env bash
# Evaluates with several processes, as MMDetection's script of that name.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
usage="dist_test.sh CONFIG CHECKPOINT GPUS [options of train_queryinst.py, or of MMDetection's tools/test.py]"

case "${1:-}" in
    -h|--help) echo "$usage"; exec "$here/dist_train.sh" --help ;;
esac
case "${3:-}" in
    ''|0|*[!0-9]*)
        echo "dist_test: GPUS: ${3:-nothing} is no number of processes; want $usage" >&2
        exit 2 ;;
esac
config="$1" checkpoint="$2" gpus="$3"
shift 3
# Config and checkpoint, two words without a flag: the script takes them for an evaluation.
exec "$here/dist_train.sh" "$config" "$gpus" "$checkpoint" "$@"
