#!/usr/bin/env bash
# Runs one of the Python tools on one process or many: bash tools/launch.sh train.py [arguments]
# train_ddp.sh and val_ddp.sh call it. Exit codes: 0 done, 2 a mistake of the user, 3 the machine (a process was lost, a
# full disk), 75 stopped by a signal and resumable, 1 an unforeseen error; mdg/launch.py says more.
#   NPROC=4          processes on this machine; default: one per CUDA device, else one
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   several machines
#   MAX_RESTARTS=2   after a failure start all processes anew, at most so often; a training resumes; default: 0
#   GRACE=600        seconds to finish a step and to save after a signal, before the processes are killed
#   PYTHON           interpreter; default: .venv/bin/python where it exists
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$root/.venv/bin/python
  [ -x "$PYTHON" ] || PYTHON=python
fi

tool=$root/tools/${1:?name a tool, such as train.py}
name=$(basename "$tool" .py)
shift

if [ -z "${NPROC:-}" ]; then
  NPROC=$(nvidia-smi --list-gpus 2>/dev/null | grep -c . || true)
  [ "$NPROC" -ge 1 ] || NPROC=1
fi
case "$NPROC" in
  '' | *[!0-9]* | 0) echo "$name: error: NPROC=$NPROC: expected a number of processes, 1 or more" >&2; exit 2 ;;
esac

NNODES=${NNODES:-1}
if [ "$NPROC" = 1 ] && [ "$NNODES" = 1 ] && [ "${MAX_RESTARTS:-0}" = 0 ]; then
  exec "$PYTHON" "$tool" "$@"
fi

machines=()
if [ "$NNODES" != 1 ]; then
  machines=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?NODE_RANK is not set}"
            --master-addr "${MASTER_ADDR:?MASTER_ADDR is not set}" --master-port "${MASTER_PORT:-29500}")
fi
# The processes share the cores of this machine.
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo "$NPROC")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > NPROC ? cores / NPROC : 1))}
exec "$PYTHON" -m mdg.launch ${machines[@]+"${machines[@]}"} --nproc-per-node "$NPROC" \
  --max-restarts "${MAX_RESTARTS:-0}" --grace "${GRACE:-600}" "$tool" "$@"
