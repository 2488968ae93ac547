#!/usr/bin/env bash
# Trains over one or several nodes of a Slurm cluster, and goes on in the next allocation where this one ends:
#   sbatch --nodes=2 --gpus-per-node=4 scripts/slurm_train.sh configs/mfnet/mdg_b2.yaml [--opts ...]
# Everything behind the script's name is for tools/train_ddp.sh. Flags of sbatch override those below.
#
# The run lies in exp/slurm-JOBID, or in RUN_DIR. Five minutes before the time is over Slurm sends SIGTERM; the run saves
# and ends with 75, and the job is put back into the queue. So is a job whose node was lost (--requeue). A mistake (2) or
# an unforeseen error (1) ends the job. docs/cluster.md says more.
#SBATCH --job-name=mdg
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=exp/slurm-%j.log
set -uo pipefail

stopped=75 lost=3
root=${SLURM_SUBMIT_DIR:?start it with sbatch, in the top folder of the repository}
run=${RUN_DIR:-exp/slurm-${SLURM_JOB_ID:?}}
cd "$root" || exit 2

if [ -e "$run/checkpoints/last.pt" ]; then
  arguments=(--resume "$run")
else
  # What an allocation left that ended before anything was saved.
  [ ! -e "$run" ] || mv "$run" "$run.unsaved-${SLURM_RESTART_COUNT:-0}"
  arguments=("$@" --run-dir "$run")
fi

export NNODES=${SLURM_NNODES:-1}
MASTER_ADDR=$(scontrol show hostnames "${SLURM_JOB_NODELIST:?}" | head -n 1)
# Jobs that share a node must not meet.
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then
  export NPROC=${NPROC:-$SLURM_GPUS_ON_NODE}
fi

# A signal interrupts `wait`, not the job steps: Slurm has sent it to them, too.
trap 'true' TERM
srun --kill-on-bad-exit=0 bash -c 'NODE_RANK=$SLURM_NODEID exec bash tools/train_ddp.sh "$@"' train "${arguments[@]}" &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do
  wait "$step"
  code=$?
done

if [ "$code" = "$stopped" ] || [ "$code" = "$lost" ]; then
  if [ -e "$run/checkpoints/last.pt" ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_REQUEUES:-50}" ]; then
    echo "slurm_train: exit code $code; the job is queued again and will go on in $run"
    scontrol requeue "$SLURM_JOB_ID"
  fi
fi
exit "$code"
