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

if [ -z "$SLURM_JOB_ID" ] || [ $# = 0 ]; then
    echo "slurm_train: use it as sbatch slurm_train.sh SCRIPT [options of SCRIPT]" >&2
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
