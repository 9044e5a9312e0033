#!/usr/bin/env bash
# Trains with several processes: dist_train.sh CONFIG GPUS [options]; --help tells the rest.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

has_torch() {
    "$1" -c 'import sys, importlib.util as u; sys.exit(u.find_spec("torch") is None)' 2>/dev/null
}

python="${PYTHON:-}"
if [ -z "$python" ]; then
    for python in python python3 "$here/.venv/bin/python" ""; do
        if [ -n "$python" ] && has_torch "$python"; then break; fi
    done
fi
if [ -z "$python" ]; then
    echo "dist_train: no Python with torch found: activate its environment or set PYTHON" >&2
    exit 2
fi
# exec: a signal to this process then reaches the launcher itself.
exec "$python" -c 'import sys
sys.path[0] = sys.argv.pop(1)
from runtime.launch.launcher import main
main()' "$here" "$@"
