#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The options of a study, given to ./run check-slow, reach its program; every program is a stand-in.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
mkdir -p "$work/bin" "$work/build/release/tests"
cp run "$work/run"
cd "$work"

# stand_in FILE LINE...
stand_in() {
    file=$1
    shift
    printf '#!/bin/sh\n' >"$file"
    printf '%s\n' "$@" >>"$file"
    chmod +x "$file"
}

stand_in bin/dpkg-query 'printf installed'
stand_in bin/cmake 'exit 0'
stand_in bin/git 'echo commit'
# shellcheck disable=SC2016 # for the stand-in to expand
stand_in bin/ctest 'echo "ctest for $KAMEN_OPTIONS"'
# shellcheck disable=SC2016
stand_in bin/python3 'shift 3; echo "recipe_study got $*"'
for program in adapt few hpm_study masksub_study; do
    # shellcheck disable=SC2016
    stand_in "build/release/tests/$program" 'echo "${0##*/} got $*"'
done

# expect TEXT STAGE [OPTION]...
expect() {
    text=$1
    shift
    said=$(PATH="$work/bin:$PATH" sh run check-slow "$@")
    case $said in
    *"$text"*) ;;
    *)
        echo "check-slow $*: not '$text' but: $said"
        bad=1
        ;;
    esac
}

expect "adapt got --data a b" adapt --data "a b"
expect "few got --arms micm" few --arms micm
expect "hpm_study got --px 64" hpm --px 64
expect "masksub_study got --seed 1" masksub --seed 1
expect "recipe_study got --list" recipe --list
expect "ctest for --kills 5" kills --kills 5
expect "1 passed, 0 failed, 0 skipped" few --arms micm
exit $bad
