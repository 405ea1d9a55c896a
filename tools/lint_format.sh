#!/usr/bin/env bash
# clang-format over src, python, tests and bench: `check` fails on a difference, `fix` rewrites the files.
# Version 14 exactly, because versions disagree with one another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v clang-format-14 >/dev/null; then
  echo "lint_format: clang-format-14 is not installed (Debian package clang-format-14)" >&2
  exit 1
fi

# over_sources OPTIONS...: clang-format with them over every file.
over_sources() {
  find src python tests bench \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 -r -n 16 clang-format-14 --style=file "$@"
}

case "${1:-}" in
  fix) over_sources -i ;;
  check)
    if ! report=$(over_sources --dry-run --Werror 2>&1); then
      # Three lines for each place: the first place in each file is enough.
      { grep ': error:' <<<"$report" || echo "$report"; } | sort -t: -k1,1 -u |
        sed -E 's/^([^:]+:[0-9]+):.*-Wclang-format-violations.*/\1: not formatted/'
      exit 1
    fi
    echo "format: clean"
    ;;
  *)
    echo "usage: tools/lint_format.sh check|fix" >&2
    exit 2
    ;;
esac
