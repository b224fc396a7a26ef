#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A learning step beside PyTorch's in one run, turn by turn: the machine's moods hit both.
# usage: step.sh BUILD [TURNS]; needs python3-torch and libopenblas0-pthread
set -eu

build=$1 turns=${2:-3}
here=$(dirname "$0")
python=/usr/bin/python3
"$python" -c 'import torch' 2>/dev/null || {
    echo "skipped: python3-torch is not installed"
    exit 77
}
ours=$(mktemp) peer=$(mktemp)
trap 'rm -f "$ours" "$peer"' EXIT
for turn in $(seq "$turns"); do
    echo "turn $turn"
    "$build/tests/learn_step" | tee -a "$ours"
    "$python" "$here/step_torch.py" | tee -a "$peer"
done

# median NAME FILE FILTER: of what stands behind the word NAME
median() {
    grep "$3" "$2" | sed "s/.*\b$1 \([0-9.]*\).*/\1/" | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

mine=$(median step_s "$ours" step_s)
theirs=$({ median step_s "$peer" 'threads 1'; median step_s "$peer" 'threads 2'; } | sort -g | head -n 1)
awk -v a="$mine" -v b="$theirs" 'BEGIN {
    printf "median step %.3f s, PyTorch (its better thread count) %.3f s: %.2f of its time\n", a, b, a / b
    exit a > b }'
