#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# .clang-format is the judge, and every source says its licence in the first line.
set -eu
command -v clang-format >/dev/null || { echo "skipped: no clang-format"; exit 77; }
version=$(clang-format --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
[ "$version" = 14 ] || { echo "skipped: clang-format $version, not 14"; exit 77; }
files=$(find client daemon engine proto tests -name '*.[ch]')
# shellcheck disable=SC2086 # a list of words
clang-format --dry-run -Werror $files
bad=0
for file in $files; do
    case $(head -n 1 "$file") in
    "/* SPDX-License-Identifier: Apache-2.0 */") ;;
    *)
        echo "$file: the first line does not name the licence"
        bad=1
        ;;
    esac
    lines=$(wc -l <"$file")
    [ "$lines" -lt 800 ] || { echo "$file: $lines lines, a file has less than 800"; bad=1; }
done
exit $bad
