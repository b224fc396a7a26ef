#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main job end to end: two sites stream unlabelled images, a mask is learnt for each, judged,
# promoted and served. usage: demo.sh BUILD [--model FILE] [--data DIR] [--quick]
set -eu

build=$1
shift
bin=$build/bin
shared=${KAMEN_SHARED:-$(dirname "$0")/../../../shared}
model=${KAMEN_MODEL:-} data="" quick=""
while [ $# -gt 0 ]; do
    case $1 in
    --model) model=${2:?--model wants a file} && shift 2 ;;
    --data) data=${2:?--data wants a folder of folders} && shift 2 ;;
    --quick) quick=yes && shift ;;
    *)
        echo "usage: ./run demo [--model FILE] [--data DIR] [--quick]" >&2
        exit 2
        ;;
    esac
done

work=$(mktemp -d "${TMPDIR:-/tmp}/kamen-demo.XXXXXX")
daemon="" untrained=""

clean_up() {
    if [ -n "$daemon" ] && kill "$daemon" 2>/dev/null; then
        tries=0
        while kill -0 "$daemon" 2>/dev/null && [ $tries -lt 100 ]; do
            sleep .1
            tries=$((tries + 1))
        done
        kill -9 "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

fail() {
    echo "demo: $*" >&2
    sed 's/^/kamend: /' "$work/log" >&2 || true
    exit 1
}

ctl() {
    timeout 900 "$bin/kamenctl" --runtime "$work/run" "$@"
}

# wait_until SECONDS COMMAND...: for what happens in other processes and tells nobody
wait_until() {
    end=$(($(date +%s) + $1))
    shift
    until "$@"; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        kill -0 "$daemon" 2>/dev/null || fail "kamend has ended"
        sleep .1
    done
}

is_up() {
    ctl status --json >"$work/status" 2>/dev/null
}

# has_taken SITE N: of N images sent every one was answered for
has_taken() {
    [ "$(ctl site show "$1" --json | jq '.images + .duplicates + .rejected + .gaps')" -ge "$2" ]
}

choose_model() {
    vit_tiny=$shared/models/vit_tiny_patch16_224/model.safetensors
    for file in "$model" "$vit_tiny" /usr/share/kamen/model.safetensors; do
        if [ -n "$file" ] && [ -r "$file" ]; then
            model=$(realpath "$file") px_a=112 px_b=96
            [ -z "$quick" ] || px_a=64 px_b=64
            return
        fi
    done
    [ -z "$model" ] || fail "$model: cannot be read"
    untrained=yes
    model=$work/model.safetensors px_a=64 px_b=64
    "$build/tests/random_model" vit_demo 1 "$model"
    cat <<'TEXT'
No model was found. A small random, untrained network stands in for one: what
follows shows the mechanics, and its figures mean nothing.
TEXT
}

start_daemon() {
    mkdir "$work/run" "$work/state"
    cat >"$work/kamend.conf" <<TEXT
[model]
path = $model
[daemon]
state = $work/state
runtime = $work/run
[site]
resize = squash
TEXT
    "$bin/kamend" --config "$work/kamend.conf" --foreground >"$work/log" 2>&1 &
    daemon=$!
    wait_until 60 is_up || fail "kamend does not answer"
    jq -r '"kamend \(.version): \(.model), \(.isa), \(.precision)"' "$work/status"
}

# render SEED COUNT SINK...: parts with known defects
render() {
    seed=$1 count=$2
    shift 2
    "$bin/kamen-sim" --seed "$seed" --count "$count" --size 160 --defects .1 "$@"
}

stream_images() {
    mkdir "$work/spool-a"
    ctl site create a --set input_px="$px_a" --set "spool=$work/spool-a" >/dev/null
    ctl site create b --set input_px="$px_b" --set "zmq_pull=ipc://$work/run/b.pull" >/dev/null
    [ -n "$data" ] || [ -n "$quick" ] || [ ! -d "$shared/data/neu" ] || data=$shared/data/neu
    # The table's images beside the camera's: one core each.
    render 102 "$n_eval" --out "$work/eval-b" >/dev/null & rendering=$!
    if [ -n "$data" ]; then
        name_a="$(basename "$data"), spool" eval_a=$data part_a=held
        "$bin/kamen-sim" --spool "$work/spool-a" --folder "$data" --part learn --json >"$work/sent-a"
    else
        name_a="rendered, spool" eval_a=$work/eval-a part_a=all
        render 1 "$n_images" --spool "$work/spool-a" --json >"$work/sent-a"
        render 101 "$n_eval" --out "$eval_a" >/dev/null
    fi
    render 2 "$n_images" --zmq "ipc://$work/run/b.pull" --json >"$work/sent-b"
    wait $rendering || fail "the table's images were not rendered"
    for site in a b; do
        sent=$(jq .sent "$work/sent-$site")
        wait_until 120 has_taken $site "$sent" || fail "site $site has not taken $sent images"
        ctl site show $site --json >"$work/site-$site"
        jq -r '"site \(.site): \(.images) images, \(.duplicates) duplicates, \(.rejected) rejected,"
            + " \(.gaps) lost"' "$work/site-$site"
    done
}

# round SITE SEED STEPS: one mask, learnt and judged; leaves its row in mask-SITE
round() {
    began=$(date +%s)
    ctl learn "$1" ${3:+--steps "$3"} --seed "$2" --wait >"$work/learnt" & learning=$!
    # The progress as it comes, without the summary that the table repeats.
    tail -n +1 -f --pid=$learning "$work/learnt" | grep --line-buffered '^step [0-9]' || true
    wait $learning || fail "site $1 has not learnt"
    took=$(($(date +%s) - began))
    ctl mask list "$1" --json >"$work/masks"
    jq -s 'map(select(.version > 0)) | max_by(.version)' "$work/masks" >"$work/mask-$1"
}

# learn SITE N STEPS: where the gate holds a mask, another seed, if N more rounds fit into the
# demo's time. STEPS "": the recipe's own.
learn() {
    seed=1
    echo "site $1: learning a mask from unlabelled images"
    while :; do
        round "$1" $seed "$3"
        if [ "$(jq -r .gate.passed "$work/mask-$1")" = true ]; then
            # Policy auto has promoted it.
            [ "$(ctl site show "$1" --json | jq .champion)" = "$(jq .version "$work/mask-$1")" ] ||
                fail "site $1 does not serve the mask that has passed"
            jq -r '"site \(.site): mask \(.version) has passed the gate and is served"' \
                "$work/mask-$1"
            return
        fi
        jq -r '"site \(.site): mask \(.version) is held: \(.gate.reasons | join("; "))"' \
            "$work/mask-$1"
        [ $(($(date +%s) - start + $2 * took + n_table)) -lt 340 ] || return 0
        if [ -n "$quick$untrained" ] || [ $seed -eq 3 ]; then return; fi
        seed=$((seed + 1))
        echo "site $1: once more, with seed $seed"
    done
}

# figures SITE DIR PART LABEL EVAL-OPTION...: one row of the table
figures() {
    site=$1 dir=$2 part=$3 label=$4
    shift 4
    ctl eval "$site" "$dir" --part "$part" "$@" --json >"$work/eval"
    jq -r '[.px, .knn, .shot1, .shot5, .ms_per_image] | @tsv' "$work/eval" >"$work/row"
    awk -F '\t' -v label="$label" '{ printf "  %-9s %3d px   %.3f   %.3f   %.3f   %6.2f\n",
        label, $1, $2, $3, $4, $5 }' "$work/row"
}

# auroc SITE DIR: how well novelty separates parts with a defect from good ones
auroc() {
    ctl infer "$1" "$2"/*/*.png --json | jq -r '[.file, .novelty] | @tsv' >"$work/novelty"
    awk -F '\t' -v dir="$2/" '
        NR == FNR { if (FNR > 1) defect[$1] = ($3 != "good"); next }
        { sub(dir, "", $1); print $2 "\t" defect[$1] }
    ' "$2/_truth.tsv" "$work/novelty" | sort -g | awk -F '\t' '
        # Mean ranks, so that ties count half.
        { v[NR] = $1; d[NR] = $2 }
        END {
            for (i = 1; i <= NR; i = j) {
                for (j = i; j <= NR && v[j] == v[i]; j++) bad_here += d[j]
                bad += bad_here; ranks += bad_here * (i + j - 1) / 2; bad_here = 0
            }
            good = NR - bad
            if (bad && good) printf "%.3f", (ranks - bad * (bad + 1) / 2) / (bad * good)
            else printf "not known"
        }'
}

# serving SITE: clients over shared memory, through the mask that is served
serving() {
    timeout 120 "$bin/kamen-bench" serve --runtime "$work/run" --site "$1" --clients 2 \
        --seconds "$n_seconds" --json >"$work/serving" || fail "the serving benchmark failed"
    jq -r '"  \(.completed) requests, p50 \(.p50_ms * 100 | round / 100) ms,"
        + " p99 \(.p99_ms * 100 | round / 100) ms; lost requests: \(.lost)"' "$work/serving"
    [ "$(jq .lost "$work/serving")" = 0 ] || fail "requests were lost"
}

table() {
    site=$1 name=$2 dir=$3 part=$4 version=$(jq .version "$work/mask-$1")
    echo
    echo "site $site ($name): $(jq .images "$work/site-$site") images, figures on images never learnt from"
    echo "               size     knn   shot1   shot5   ms/image"
    figures "$site" "$dir" "$part" frozen --mask base
    figures "$site" "$dir" "$part" frozen --mask base --px native
    figures "$site" "$dir" "$part" adapted --mask "$version"
    jq -r '"  mask \(.version): \(.state), \(.bytes) bytes, density \(.density)"' "$work/mask-$site"
    if [ -r "$dir/_truth.tsv" ]; then
        echo "  defect AUROC of the novelty score: $(auroc "$site" "$dir")"
    fi
    serving "$site"
}

if [ -n "$quick" ]; then
    n_images=96 n_eval=96 steps_a=40 steps_b=40 n_seconds=2 n_table=10
else
    n_images=600 n_eval=400 steps_a=60 steps_b=60 n_seconds=5 n_table=60
fi
start=$(date +%s)
choose_model
start_daemon
stream_images
learn a 2 "$steps_a"
learn b 1 "$steps_b"
table a "$name_a" "$eval_a" "$part_a"
table b "rendered, ZeroMQ" "$work/eval-b" all
