#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# No mutable globals: state lives in structs that somebody owns. usage: symbols.sh BUILD
# Named exceptions, each with its reason at its definition.
set -eu
build=$1
command -v nm >/dev/null || { echo "skipped: no nm"; exit 77; }
# Sanitizers and coverage put their own variables into every object.
if grep -q '^KAMEN_SANITIZE:STRING=.' "$build/CMakeCache.txt"; then
    echo "skipped: a build with sanitizers"
    exit 77
fi
bad=0
for library in "$build"/engine/*/libkamen_*.a "$build"/daemon/*/libkamen_*.a "$build"/proto/libkamen_proto.a; do
    [ -e "$library" ] || continue
    # b, d, C: data that may be written; .data.rel.ro is d too for tables of pointers, so ask objdump.
    found=$(objdump -t "$library" | awk '
        $0 ~ / (\.data|\.bss|\*COM\*|\.tbss|\.tdata)(\.[^ \t]*)?[ \t]/ && $0 !~ /\.data\.rel\.ro/ &&
        $0 ~ / O / { print $NF }' | grep -vxE 'limiter' || true)
    [ -z "$found" ] || { echo "$library: mutable:" "$found"; bad=1; }
done
exit $bad
