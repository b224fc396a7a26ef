#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the programs offer is what the manual describes. usage: man_complete.sh BUILD
# Configuration keys are compared by config_page.
set -eu
bin=$1/bin
bad=0

# page PAGE WHAT: every word of stdin stands in bold in the page
page() {
    while read -r word; do
        if ! sed 's/\\//g' "man/$1.scd" | grep -qF -e "*$word*"; then
            echo "man/$1.scd says nothing of $2 $word"
            return 1
        fi
    done
}

long_options() {
    grep -oE -e '--[a-z][a-z0-9-]*' | sort -u
}

# A line of a command: two spaces, its words in lower case, then arguments or its explanation.
commands() {
    sed -n 's/^  \([a-z][a-z -]*[a-z]\)\([ ].*\)\{0,1\}$/\1/p' | sed 's/  .*//'
}

functions=$(grep -oE 'kamen_[a-z_]+' client/lib/libkamen.map | sort -u)
[ -n "$functions" ] || { echo "client/lib/libkamen.map names no function"; bad=1; }
for function in $functions; do
    [ -e "man/$function.3.scd" ] || { echo "$function has no page"; bad=1; continue; }
    echo "$function" | page libkamen.3 'the function' || bad=1
    # Its synopsis begins as the declaration does, its page is about all that it takes.
    grep -qF "$function(" "man/$function.3.scd" || { echo "$function(3) does not declare it"; bad=1; }
done
for source in man/kamen_*.3.scd; do
    echo "$functions" | grep -qx "$(basename "$source" .3.scd)" ||
        { echo "$source is about no function"; bad=1; }
done
# What kamenctl prints as metrics are names in the daemon's sources.
grep -rhoE '"kamen_[a-z0-9_]+"' daemon --include='*.c' | tr -d '"' | sort -u |
    page kamend.8 'the metric' || bad=1
for program in kamend.8 kamen-sim.1 kamen-pretrain.1 kamen-bench.1 kamenctl.1; do
    name=${program%.*}
    "$bin/$name" --help | long_options | page "$program" 'the option' || bad=1
done
for program in kamenctl.1 kamen-bench.1; do
    name=${program%.*}
    list=$("$bin/$name" --help | commands)
    [ -n "$list" ] || { echo "$name --help lists no command"; bad=1; }
    echo "$list" | page "$program" 'the command' || bad=1
    # Words of a command are arguments of their own.
    echo "$list" | while read -r command; do
        # shellcheck disable=SC2086 # one word or two
        "$bin/$name" $command --help </dev/null
    done | long_options | page "$program" 'the option' || bad=1
done
exit $bad
