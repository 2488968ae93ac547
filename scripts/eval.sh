#!/usr/bin/env bash
# Scores a checkpoint, or the best one of a run: NPROC=4 bash scripts/eval.sh CHECKPOINT [SPLIT] [arguments of val_mm.py]
#   CHECKPOINT  a best.pt, a last.pt, or the folder of a run
#   SPLIT       test (what is reported; of Cityscapes that is its val), val (what selects, or what was held out), train
# tools/launch.sh says which variables it reads.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
refuse() { echo "eval: error: $*" >&2; exit 2; }

[ $# -ge 1 ] || refuse "got no argument, expected CHECKPOINT [SPLIT]"
checkpoint=$1
shift
[ ! -d "$checkpoint" ] || checkpoint=$checkpoint/checkpoints/best.pt
[ -f "$checkpoint" ] || refuse "$checkpoint: no such file; expected a checkpoint, or the folder of a run that has one"
split=test
case "${1:-}" in
  '' | -*) ;;
  test | val | train) split=$1; shift ;;
  *) refuse "SPLIT: got $1, expected test, val or train" ;;
esac
echo "eval: the table says what selected this checkpoint; PUBLISHED NUMBERS OF CITYSCAPES ARE BEST ON VAL," \
  "the split that they report" >&2
exec bash "$root/tools/val_ddp.sh" --checkpoint "$checkpoint" --split "$split" "$@"
