#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The unit file passes systemd-analyze, and the sandbox is not weakened unnoticed.
# usage: unit_file.sh BUILD
set -eu
build=$1
command -v systemd-analyze >/dev/null || { echo "skipped: no systemd-analyze"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# What is not installed yet stands in as something that is.
sed 's#^ExecStart=.*/kamend#ExecStart=/bin/true#' "$build/systemd/kamend.service" >"$dir/kamend.service"
grep -q '^ExecStart=/bin/true' "$dir/kamend.service"
complaints=$(systemd-analyze verify --man=no "$dir/kamend.service" 2>&1) || { echo "$complaints"; exit 1; }
case $complaints in
*kamend.service*) echo "$complaints"; exit 1 ;;
esac
grep -q '^OOMPolicy=continue$' "$dir/kamend.service"
if grep -q '^MemoryDenyWriteExecute' "$dir/kamend.service"; then
    echo "oneDNN writes code at run time: MemoryDenyWriteExecute breaks it"
    exit 1
fi
if grep -q '^RestrictSUIDSGID=yes' "$dir/kamend.service"; then
    echo "RestrictSUIDSGID makes openat2() fail, and with it every spool folder"
    exit 1
fi
systemd-analyze security --offline=true --threshold=25 --no-pager "$dir/kamend.service" >"$dir/out" ||
    { cat "$dir/out"; exit 1; }
tail -1 "$dir/out"
