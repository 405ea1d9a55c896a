#!/usr/bin/env bash
# compare.py with what it needs: ./run.sh --help. The Python environment is made once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
list=$root/tools/requirements-peers.txt
venv=$root/build/peers/venv
stamp=$venv/requirements.sha256

if [[ ! -f $stamp || $(<"$stamp") != "$(sha256sum <"$list")" ]]; then
  mkdir -p "$root/build/peers"
  log=$root/build/peers/venv.txt
  echo "peers: making the Python environment (log: $log)" >&2
  if ! { python3 -m venv --clear "$venv" && "$venv/bin/python" -m pip install -r "$list"; } \
    >"$log" 2>&1; then
    echo "peers: making the Python environment failed; the whole log is $log" >&2
    exit 1
  fi
  sha256sum <"$list" >"$stamp"
fi
exec "$venv/bin/python" "$here/compare.py" "$@"
