#!/usr/bin/env bash
# clang-format over src, tests and bench: `check` fails on a difference, `fix` rewrites the files.
# Version 14 exactly, because versions disagree with one another.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
  check) options=(--dry-run --Werror) ;;
  fix) options=(-i) ;;
  *) echo "usage: tools/lint_format.sh check|fix" >&2; exit 2 ;;
esac
if ! command -v clang-format-14 >/dev/null; then
  echo "lint_format: clang-format-14 is not installed (Debian package clang-format-14)" >&2
  exit 1
fi
find src tests bench -name '*.h' -print0 -o -name '*.cpp' -print0 |
  xargs -0 -r -n 16 -P "$(nproc)" clang-format-14 --style=file "${options[@]}"
[[ $1 == fix ]] || echo "format: clean"
