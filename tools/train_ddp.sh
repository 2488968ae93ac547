#!/usr/bin/env bash
# Trains on one process or many: NPROC=4 bash tools/train_ddp.sh CONFIG [arguments of tools/train.py]
# launch.sh says which variables it reads.
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" train.py "$@"
