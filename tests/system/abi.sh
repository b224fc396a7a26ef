#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# libkamen.so beside the ABI that was promised, client/lib/libkamen.abi: what is added passes, what
# breaks a program that was built before fails. usage: abi.sh BUILD [--write]
# --write makes a new baseline: with a release that adds, or with a new SOVERSION.
set -eu
library=$(readlink -f "$1/lib/libkamen.so")
baseline=client/lib/libkamen.abi
rules=client/lib/libkamen.abignore
command -v abidiff >/dev/null || { echo "skipped: no abidiff"; exit 77; }
if grep -q '^KAMEN_SANITIZE:STRING=.' "$1/CMakeCache.txt"; then
    echo "skipped: a build with sanitizers"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Where and by what machine it was built is nobody's business.
write() {
    abidw --no-corpus-path --no-comp-dir-path --no-show-locs --no-architecture --no-elf-needed \
        --headers-dir client/include --drop-private-types --exported-interfaces-only \
        --type-id-style hash "$library" | sed "s,path='.*/client/lib/,path='client/lib/,"
}

# compatible BASELINE: what abidiff has to say goes to $work/said
compatible() {
    abidiff --suppressions "$rules" --no-added-syms "$1" "$work/now.abi" >"$work/said" 2>&1
}

if [ "${2-}" = --write ]; then
    write >"$baseline"
    exit 0
fi
write >"$work/now.abi"
compatible "$baseline" || {
    cat "$work/said"
    echo "libkamen.so is not what $baseline promises: see tests/system/abi.sh"
    exit 1
}
# It can fail: a function that is gone, a member that means something else.
sed "s/kamen_wait/kamen_gone/" "$baseline" >"$work/gone.abi"
sed "s/name='novelty'/name='other'/; s/name='score'/name='novelty'/" "$baseline" >"$work/moved.abi"
for broken in gone moved; do
    if compatible "$work/$broken.abi"; then
        echo "abidiff finds nothing in $broken.abi"
        exit 1
    fi
done
