#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A forward pass beside ONNX Runtime's, same weights, pixels and threads, turn by turn in one run.
# usage: ort.sh BUILD [--batch N] [--turns N] [--seconds N] [--json] [MODEL]...
# MODEL is a safetensors file, or vit_t, vit_s or vit_b: untrained. Else the pretrained ViT-Tiny of
# $KAMEN_SHARED, vit_s and vit_b. Fails where embeddings differ by more than 1e-3, or where f32 is not
# 1.3, bf16 not 2.2 times as fast as its f32. Installs nothing: wants node, python3-torch, and
# onnxruntime-node where node finds it or in $KAMEN_ORT (a folder with node_modules in it).
set -eu

WANTED_F32=1.3 WANTED_BF16=2.2 WANTED_DIFF=1e-3 THREADS=2
here=$(cd "$(dirname "$0")" && pwd)
python=/usr/bin/python3
[ $# -ge 1 ] || { echo "usage: ort.sh BUILD [--batch N] [--turns N] [--seconds N] [--json] [MODEL]..." >&2; exit 2; }
build=$1 batch=1 turns=5 seconds=2 json=
shift
while [ $# -gt 0 ]; do
    case $1 in
    --batch) batch=$2; shift 2 ;;
    --turns) turns=$2; shift 2 ;;
    --seconds) seconds=$2; shift 2 ;;
    --json) json=1; shift ;;
    --*) echo "ort.sh: $1: no such option" >&2; exit 2 ;;
    *) break ;;
    esac
done

skip() {
    echo "skipped: $*" >&2
    exit 77
}
command -v node >/dev/null || skip "node is not installed"
version=$(node "$here/ort.mjs" version 2>/dev/null) ||
    skip "onnxruntime-node is not there; npm install it somewhere and name the folder in KAMEN_ORT"
"$python" -c 'import torch' 2>/dev/null || skip "python3-torch is not installed"
if [ $# -eq 0 ]; then
    model=${KAMEN_SHARED:-$here/../../../shared}/models/vit_tiny_patch16_224/model.safetensors
    [ -r "$model" ] || model=vit_t
    set -- "$model" vit_s vit_b
fi

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
say() {
    [ -n "$json" ] || echo "$*"
}

# value NAME: of the word behind NAME on standard input
value() {
    sed -n "s/.*\b$1 \([^ ]*\).*/\1/p"
}

# median FILE
median() {
    sort -g "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# ours PRECISION
ours() {
    OMP_NUM_THREADS=$THREADS "$build/tests/forward" "$file" "$dir/pixels" "$dir/$1.out" \
        --precision "$1" --batch "$batch" --seconds "$seconds" | value ms_p50
}

peer() {
    node "$here/ort.mjs" run "$dir/model.onnx" "$dir/pixels" "$dir/ort.out" \
        "$batch" "$px" "$seconds" "$THREADS" | value ms_p50
}

# one NAME
one() {
    name=$1 file=$1
    case $name in
    vit_?) file=$dir/model.safetensors && "$build/tests/random_model" "$name" 1 "$file" ;;
    esac
    "$python" "$here/ort_export.py" "$file" "$dir/model.onnx" "$dir/pixels" --batch "$batch" \
        >"$dir/px" 2>"$dir/log" || {
        cat "$dir/log" >&2
        return 1
    }
    px=$(tail -n 1 "$dir/px")
    bf16=1
    "$build/tests/forward" "$file" "$dir/pixels" "$dir/bf16.out" --precision bf16 --batch "$batch" \
        --seconds 0 >/dev/null 2>&1 || bf16=
    for f in ort f32 bf16 by_f32 by_bf16; do : >"$dir/$f"; done
    for turn in $(seq "$turns"); do
        t_ort=$(peer) t_f32=$(ours f32) t_bf16=0
        [ -z "$bf16" ] || t_bf16=$(ours bf16)
        say "turn $turn: ONNX Runtime $t_ort ms, f32 $t_f32 ms, bf16 $t_bf16 ms"
        echo "$t_ort" >>"$dir/ort"
        echo "$t_f32" >>"$dir/f32"
        echo "$t_bf16" >>"$dir/bf16"
        awk "BEGIN { print $t_ort / $t_f32 }" >>"$dir/by_f32"
        awk "BEGIN { print ($t_bf16 > 0 ? $t_ort / $t_bf16 : 0) }" >>"$dir/by_bf16"
    done
    diff=$(node "$here/ort.mjs" compare "$dir/f32.out" "$dir/ort.out" | value diff)
    cosine=1
    [ -z "$bf16" ] || cosine=$(node "$here/ort.mjs" compare "$dir/bf16.out" "$dir/ort.out" | value cosine)
    awk -v name="$name" -v version="$version" -v json="$json" -v batch="$batch" -v threads="$THREADS" \
        -v ort="$(median "$dir/ort")" -v f32="$(median "$dir/f32")" -v bf16="$(median "$dir/bf16")" \
        -v by_f32="$(median "$dir/by_f32")" -v by_bf16="$(median "$dir/by_bf16")" \
        -v diff="$diff" -v cosine="$cosine" \
        -v w32="$WANTED_F32" -v w16="$WANTED_BF16" -v wdiff="$WANTED_DIFF" 'BEGIN {
        met = diff + 0 <= wdiff + 0 && by_f32 >= w32 && (bf16 == 0 || by_bf16 >= w16)
        if (json) {
            printf "{\"model\": \"%s\", \"batch\": %d, \"threads\": %d, \"ort_version\": \"%s\", ", name, batch, threads, version
            printf "\"ort_ms_p50\": %s, \"f32_ms_p50\": %s, \"ratio_f32\": %s, ", ort, f32, by_f32
            if (bf16 > 0)
                printf "\"bf16_ms_p50\": %s, \"ratio_bf16\": %s, \"cosine_bf16\": %s, ", bf16, by_bf16, cosine
            printf "\"max_difference\": %s, \"met\": %s}\n", diff, met ? "true" : "false"
        } else {
            printf "%s, batch %d, %d threads: ONNX Runtime %s %s ms; ", name, batch, threads, version, ort
            printf "f32 %s ms, %.2f times as fast (wanted %s), at most %s apart (%s)", f32, by_f32, w32, diff, wdiff
            if (bf16 > 0)
                printf "; bf16 %s ms, %.2f times (%s), cosine %s", bf16, by_bf16, w16, cosine
            printf ": %s\n", met ? "met" : "MISSED"
        }
        exit !met
    }'
}

status=0
for each in "$@"; do
    one "$each" || status=1
done
exit $status
