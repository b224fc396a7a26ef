#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every manual page is clean by mandoc. usage: man_lint.sh BUILD
set -eu
command -v mandoc >/dev/null || { echo "skipped: no mandoc"; exit 77; }
command -v scdoc >/dev/null || { echo "skipped: no scdoc"; exit 77; }
# scdoc writes a paragraph macro after every heading; mandoc skips it, and nothing is lost.
found=$(mandoc -Tlint -W warning "$1"/man/*.[1-8] | grep -v 'skipping paragraph macro' || true)
[ -z "$found" ] || { echo "$found"; exit 1; }
