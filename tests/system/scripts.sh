#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every shell script is clean by shellcheck.
set -eu
command -v shellcheck >/dev/null || { echo "skipped: no shellcheck"; exit 77; }
shellcheck run .ci/run tests/system/*.sh tests/bench/*.sh
