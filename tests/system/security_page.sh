#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every threat of kamen-security(7) has a proof, and every proof is a test that ctest knows, but for
# what this build cannot have. usage: security_page.sh BUILD
set -eu
page=man/kamen-security.7.scd
bad=0

known=$(ctest --test-dir "$1" -N | sed -n 's/^ *Test *#[0-9]*: //p')
[ -n "$known" ] || { echo "ctest lists no test"; exit 1; }
named=$(sed -n 's/^Proof: //p' "$page" | tr -d '*,' | tr ' ' '\n' | sort -u)
[ -n "$named" ] || { echo "$page names no test"; exit 1; }
for name in $named; do
    if ! echo "$known" | grep -qx "$name"; then
        # Some are left out with sanitizers: their lines in a CMakeLists.txt or their file are there.
        grep -rqw "${name#proc_}" tests/*/CMakeLists.txt && continue
        echo "$page names $name, which is no test"
        bad=1
    fi
done
# A threat is a paragraph that begins with a sentence in bold.
threats=$(sed -n '/^# THREATS AT THE DATA/,/^# WHAT IS NOT/p' "$page" | grep -c '^\*[A-Z].*\.\*')
proofs=$(sed -n '/^# THREATS AT THE DATA/,/^# WHAT IS NOT/p' "$page" | grep -c '^Proof: ')
if [ "$threats" -ne "$proofs" ]; then
    echo "$page has $threats threats and $proofs proofs"
    bad=1
fi
exit $bad
