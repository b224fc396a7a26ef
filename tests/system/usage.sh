#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What kamend says to a wrong start: one line on stderr that names what and where, and the exit
# status of the contract. usage: usage.sh BUILD
set -eu
kamend=$1/bin/kamend
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
unset KAMEN_MODEL JOURNAL_STREAM || true
bad=0

# expect STATUS TEXT ARGUMENT...
expect() {
    status=$1 text=$2
    shift 2
    got=0
    timeout 60 "$kamend" "$@" >"$dir/out" 2>"$dir/err" || got=$?
    if [ "$got" -ne "$status" ] || ! cat "$dir/out" "$dir/err" | grep -qF -e "$text"; then
        echo "kamend $*: exit $got, not $status with '$text':"
        cat "$dir/err"
        bad=1
    fi
    if [ "$status" -eq 78 ] && [ "$(wc -l <"$dir/err")" -ne 1 ]; then
        echo "kamend $*: not one line:"
        cat "$dir/err"
        bad=1
    fi
}

printf '[serve]\nthreads = 1\nmax_batch = 100\n' >"$dir/range.conf"
printf '[model]\npath = %s/none\n' "$dir" >"$dir/none.conf"
printf 'not a model' >"$dir/broken.safetensors"
printf '[daemon]\nstate = %s/s\nruntime = %s/r\n[learner]\nenabled = off\n' "$dir" "$dir" >"$dir/good.conf"

expect 0 'Usage: kamend' --help
expect 0 'kamend 0.' --version
expect 2 'nonsense' --nonsense
expect 2 "unexpected argument 'x'" x
expect 2 "no role 'x'" --role x
expect 78 "$dir/absent.conf" --config "$dir/absent.conf"
expect 78 "$dir/range.conf:3: max_batch: '100' is not allowed, only 1 to 64" --config "$dir/range.conf"
expect 78 "$dir/none" --config "$dir/none.conf" --state "$dir/s" --runtime "$dir/r"
expect 78 "$dir/broken.safetensors" --config "$dir/good.conf" --model "$dir/broken.safetensors"
exit $bad
