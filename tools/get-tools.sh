#!/usr/bin/env bash
# Installs Python packages that bring tools (cmake) into a folder of the build tree, without root.
#
#     tools/get-tools.sh FOLDER [cmake==3.31.6 ...]
#
# Their programs are then in FOLDER/bin, and beside them python-with-pip, which runs tools/fetch.py.
# The folder is a virtual environment where Python can make one; some systems ship Python without
# ensurepip, and there pip's --target serves.
set -euo pipefail

folder=$1
shift
python=${PYTHON:-python3}
pip=(-m pip install --quiet --disable-pip-version-check --no-input --only-binary=:all:)

if ! command -v "$python" >/dev/null; then
  echo "get-tools: $python was not found: install Python 3.8 or later, or set PYTHON" >&2
  exit 1
fi
mkdir -p "$folder/bin"
folder=$(cd "$folder" && pwd)

with_pip() { # PYTHON
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$1" >"$folder/bin/python-with-pip"
  chmod +x "$folder/bin/python-with-pip"
}

install_into_venv() {
  "$folder/bin/python3" -m pip --version >/dev/null 2>&1 || "$python" -m venv "$folder"
  with_pip "$folder/bin/python3"
  [ $# -eq 0 ] || "$folder/bin/python3" "${pip[@]}" "$@"
}

install_into_target() {
  with_pip "$(command -v "$python")"
  [ $# -eq 0 ] || "$python" "${pip[@]}" --upgrade --target "$folder/packages" "$@"
}

# What pip puts into bin is a script that looks for its package, and with --target finds none. The
# programs themselves are inside.
link_cmake() {
  cd "$folder/bin"
  local program
  for program in ../lib/python3*/site-packages/cmake/data/bin/* ../packages/cmake/data/bin/*; do
    [ ! -x "$program" ] || ln -sf "$program" .
  done
}

if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "tools: a virtual environment in $folder ${*:+with $*}"
  install_into_venv "$@"
elif "$python" -m pip --version >/dev/null 2>&1; then
  echo "tools: $python has no ensurepip; its pip installs into $folder ${*:+$*}"
  install_into_target "$@"
else
  cat >&2 <<EOF
get-tools: $python can neither make a virtual environment (it has no ensurepip) nor run pip.
Needed here: ${*:-pip, to download test programs}. Install either of
  Debian's python3-venv or python3-pip, or what your system calls them
  cmake 3.20 or later (then pip is needed by \`make run\` and \`make test\` only)
EOF
  exit 1
fi
link_cmake
