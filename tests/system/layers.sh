#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Dependencies point down only, the engine neither speaks nor exits, and no test asks what cannot
# fail. Prints what breaks a rule.
set -eu
bad=0

# forbid RULE PATTERN GREP-ARGUMENT...: no line may match
forbid() {
    rule=$1 pattern=$2
    shift 2
    if grep -rnE "$pattern" --include='*.[ch]' "$@"; then
        echo "^ $rule" >&2
        bad=1
    fi
}

rooms='(base|onednn|model|mask|image|cascade|learn|classify|probe)/'

forbid 'nothing includes upwards' '#include "\.\./' client daemon engine proto tests
forbid 'the engine does not know the daemon, the client or the schema' \
    '#include ["<](ops|site|ingest|serve|learner|kamen|wire\.h|shm_|kamen\.pb-c)' engine
forbid 'proto does not know who uses it' \
    "#include \"(engine\\.h|$rooms|ops/|site/|ingest/|serve/|learner/)" proto
forbid 'the daemon includes engine.h and nothing else of the engine' \
    "#include \"$rooms" daemon
forbid 'only ingest is a client of serve' '#include [<"]kamen/' daemon/learner daemon/ops daemon/serve daemon/site
forbid 'libkamen stands on proto alone' "#include \"(engine\\.h|$rooms|ops/|site/)" client/lib
forbid 'dnnl.h is included in engine/onednn only' '#include .*dnnl' \
    client daemon proto engine/base engine/cascade engine/classify engine/image engine/learn engine/mask engine/model
forbid 'the engine and libkamen neither print nor exit' \
    '(^|[^a-z_>.])(printf|fprintf|puts|perror|vprintf|syslog|exit|_exit|abort|log_write|log_error)\(' \
    engine client/lib
forbid 'one event loop, no signal handlers, no sleep to wait' \
    '(^|[^a-z_])(sleep|usleep|sigaction)\(' client/lib daemon engine
forbid 'what is not a number fails: assert_close of fixture/close.h' 'assert_float_(not_)?equal\(' tests
forbid 'a text says how large it may become' '(^|[^a-z_])(strcpy|strcat|sprintf|vsprintf)\(' \
    daemon engine proto tests
exit $bad
