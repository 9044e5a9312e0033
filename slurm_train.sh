#!/usr/bin/env bash
# Trains under SLURM, and goes on in the next job when the time is up.
#
#     sbatch slurm_train.sh train_yolact.py --config yolact_base --batch_size 32
#     sbatch --nodes=4 --ntasks=32 --time=24:00:00 slurm_train.sh train_resnest.py --outdir out DATA.ROOT imagenet
#
# Submit it from the project's folder, or give the script's path. Flags of sbatch go over the lines
# below; edit those for your cluster: partition, account, GPUs, time. One task is one process, and
# each has one GPU. Signalled before its time limit, a run saves its state and exits with 75; the
# job then goes back into the queue under the same number, and resumes there. So too after a node
# that fails, from the last checkpoint (--save-every N). A job that ends otherwise, or is cancelled,
# stays ended.
#
# MMDetection's form starts the processes at once, from a login node or inside an allocation:
#
#     GPUS=16 ./slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of train_queryinst.py]
#
# with GPUS, 8 in all, GPUS_PER_NODE, 8, CPUS_PER_TASK, 5, and SRUN_ARGS in the environment.
#
# Environment: PYTHON, the interpreter (activate yours below, or set it); MASTER_PORT, where the
# processes meet, else a number made from the job's.

#SBATCH --job-name=train
#SBATCH --ntasks=2
##SBATCH --gpus-per-task=1
##SBATCH --cpus-per-task=8
##SBATCH --partition=gpu
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

# source .venv/bin/activate

if [ $# -ge 4 ] && [ "${1##*.}" != py ]; then  # a partition is no script
    gpus="${GPUS:-8}" per_node="${GPUS_PER_NODE:-8}"
    for number in "GPUS=$gpus" "GPUS_PER_NODE=$per_node" "CPUS_PER_TASK=${CPUS_PER_TASK:-5}"; do
        case "${number#*=}" in
            ''|0*|*[!0-9]*) echo "slurm_train: $number: want a whole number, at least 1" >&2; exit 2 ;;
        esac
    done
    if ! command -v srun > /dev/null; then
        echo "slurm_train: there is no srun here: without SLURM use dist_train.sh CONFIG GPUS" >&2
        exit 2
    fi
    [ "$per_node" -le "$gpus" ] || per_node="$gpus"
    here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
    partition="$1" job="$2" config="$3" work_dir="$4"
    shift 4
    export MASTER_PORT="${MASTER_PORT:-$((20000 + $$ % 20000))}"
    # SRUN_ARGS are several words.
    # shellcheck disable=SC2086
    exec srun --partition="$partition" --job-name="$job" --gres="gpu:$per_node" --ntasks="$gpus" \
        --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=0 \
        $SRUN_ARGS "${PYTHON:-python}" -u "$here/train_queryinst.py" "$config" "$@" \
        ${work_dir:+--work-dir "$work_dir"} --launcher slurm
fi
if [ -z "$SLURM_JOB_ID" ] || [ $# = 0 ]; then
    echo "slurm_train: use it as sbatch slurm_train.sh SCRIPT [options of SCRIPT], or as MMDetection's:" \
        "[GPUS=N] slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]" >&2
    exit 2
fi
script="$1"
shift
export MASTER_PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"

# The same line starts every one of the jobs: the first finds nothing to resume, and says so.
case " $* " in *" --resume"*) ;; *) set -- --resume latest "$@" ;; esac

# Not --kill-on-bad-exit: it would end a rank that still saves because another one is done.
srun --kill-on-bad-exit=0 "${PYTHON:-python}" "$script" "$@"
status=$?

if [ $status = 75 ] && [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    echo "slurm_train: stopped with the state saved; job $SLURM_JOB_ID goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $status
