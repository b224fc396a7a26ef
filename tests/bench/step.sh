#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A learning step of the pretrained ViT-Tiny beside PyTorch's in one run, turn by turn: the machine's
# moods hit both. The first five losses are compared in f32, on the same pixels from the same start.
# Exit 1: they differ by more than 1e-3, or a step is less than 2.2 (bf16) or 1.3 (f32) times as fast.
# usage: step.sh BUILD [TURNS]; needs python3-torch and libopenblas0-pthread
set -eu

build=$1 turns=${2:-3}
here=$(dirname "$0")
python=/usr/bin/python3
model=${KAMEN_SHARED:-$here/../../../shared}/models/vit_tiny_patch16_224/model.safetensors
"$python" -c 'import torch' 2>/dev/null || {
    echo "skipped: python3-torch is not installed"
    exit 77
}
[ -e "$model" ] || {
    echo "skipped: no $model"
    exit 77
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# ours PRECISION [OPTION]...
ours() {
    precision=$1
    shift
    "$build/tests/learn_step" --model "$model" --recipe "precision=$precision" "$@"
}

equal=yes
ours f32 --steps 5 --save "$work/start"
"$python" "$here/step_torch.py" "$model" "$work/start" --steps 5 --compare || equal=no

precisions=f32
grep -q avx512_bf16 /proc/cpuinfo && precisions="f32 bf16"
for turn in $(seq "$turns"); do
    echo "turn $turn"
    for precision in $precisions; do
        ours "$precision" | tee -a "$work/$precision"
    done
    "$python" "$here/step_torch.py" "$model" "$work/start" | tee -a "$work/peer"
done

# median FILE FILTER: of the seconds of a step
median() {
    grep "$2" "$work/$1" | sed 's/.*\bstep_s \([0-9.]*\).*/\1/' | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

peer=$({ median peer 'threads 1'; median peer 'threads 2'; } | sort -g | head -n 1)
fast=yes
for precision in $precisions; do
    wanted=1.3
    [ "$precision" = f32 ] || wanted=2.2
    awk -v a="$(median "$precision" step_s)" -v b="$peer" -v p="$precision" -v w="$wanted" 'BEGIN {
        printf "%s: step %.3f s, PyTorch f32 (its better thread count) %.3f s: %.2f times as fast, wanted %s\n",
            p, a, b, b / a, w
        exit b / a < w }' || fast=no
done
echo "losses equal: $equal, fast enough: $fast"
[ "$equal $fast" = "yes yes" ]
