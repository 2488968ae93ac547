#!/usr/bin/env bash
# Evaluates on one process or many: NPROC=4 bash tools/val_ddp.sh [arguments of tools/val_mm.py]
# launch.sh says which variables it reads.
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" val_mm.py "$@"
