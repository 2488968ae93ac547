#!/usr/bin/env bash
# Runs one of the Python tools on one process or many: bash tools/launch.sh train.py [arguments]
# train_ddp.sh and val_ddp.sh call it.
#   NPROC=4          processes on this machine; default: one per CUDA device, else one
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   several machines
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
if [ "$NPROC" = 1 ] && [ "$NNODES" = 1 ]; then
  exec "$PYTHON" "$tool" "$@"
fi

if [ "$NNODES" = 1 ]; then
  rendezvous=(--standalone)
else
  rendezvous=(--nnodes "$NNODES" --node-rank "${NODE_RANK:?NODE_RANK is not set}"
              --master-addr "${MASTER_ADDR:?MASTER_ADDR is not set}" --master-port "${MASTER_PORT:-29500}")
fi
# The processes share the cores of this machine; without this torchrun sets one thread each, and says so.
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo "$NPROC")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > NPROC ? cores / NPROC : 1))}
exec "$PYTHON" -m mdg.engine.launch "${rendezvous[@]}" --nproc-per-node "$NPROC" "$tool" "$@"
