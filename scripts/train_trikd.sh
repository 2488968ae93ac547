#!/usr/bin/env bash
# Trains TriVN on Cityscapes by tri-training of three architectures (docs/few_labels.md):
#   NPROC=4 bash scripts/train_trikd.sh SPLIT SIZE [arguments of tools/train.py]
#   SPLIT  share of the labels: 1_30, 1_16, 1_8, 1_4, 1_2
#   SIZE   of the student: 11m, 21m
#   ROOT=data/cityscapes    where the data lie
#   LIST=labeled.txt        a list of U2PL, image and label a line, in place of a share that is drawn
#   SEED=0                  of the share that is drawn
#   SELECT=last             the checkpoint that counts: the last epoch, or `holdout`: the best one on a tenth of train
#   PRETRAINED=pretrained   folder with weights of ImageNet under the names of timm, .safetensors or .pth; a network whose
#                           file is not there starts from scratch
# tools/launch.sh says which further variables it reads.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { echo "train_trikd: $*" >&2; }
refuse() { say "error: $*"; exit 2; }

[ $# -ge 2 ] || refuse "got $# arguments, expected SPLIT (1_30 1_16 1_8 1_4 1_2) and SIZE (11m 21m)"
split=$1 size=$2
shift 2
case "$size" in
  11m) student=tiny_vit_11m_224 ;;
  21m) student=tiny_vit_21m_512 ;;
  *) refuse "SIZE: got $size, expected 11m or 21m" ;;
esac
config=$root/configs/cityscapes/${split}_trivn_$size.yaml
[ -f "$config" ] || refuse "SPLIT: got $split, expected 1_30, 1_16, 1_8, 1_4 or 1_2"

opts=()
[ -z "${ROOT:-}" ] || opts+=("data.root=$ROOT")
if [ -n "${LIST:-}" ]; then
  [ -f "$LIST" ] || refuse "LIST=$LIST: no such file; leave it out, and a share is drawn by SEED"
  opts+=(data.labelled.fraction=null "data.labelled.list=$LIST")
elif [ -n "${SEED:-}" ]; then
  opts+=("data.labelled.seed=$SEED")
fi
case "${SELECT:-last}" in
  last) say "the last epoch counts" ;;
  holdout) opts+=(data.holdout=0.1 eval.selection=val); say "a tenth of train is held out and selects" ;;
  *) refuse "SELECT=$SELECT: expected last or holdout" ;;
esac
say "PUBLISHED NUMBERS ARE BEST ON VAL: of all epochs the one that scores best on the split that is reported"

folder=${PRETRAINED:-pretrained}
start() {  # key of the configuration, name of the weights
  local ending
  for ending in safetensors pth; do
    if [ -f "$folder/$2.$ending" ]; then opts+=("$1=$folder/$2.$ending"); return; fi
  done
  say "no $folder/$2.safetensors: $2 starts FROM SCRATCH; published numbers start from ImageNet," \
    "and pseudo-labels from scratch want train.method.ramp_epochs"
  opts+=("$1=null")
}
start model.pretrained "$student"
start train.method.cnn_view.pretrained resnet101d
start train.method.vit_view.pretrained deit_base_distilled_patch16_384

exec bash "$root/tools/train_ddp.sh" "$config" --opts "${opts[@]}" "$@"
