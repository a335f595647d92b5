#!/usr/bin/env bash
# Makes .venv from a lock file: install.sh LOCK. Uses uv where it is found or can be installed.
set -euo pipefail
lock=${1:-requirements.lock}
venv=${VENV:-.venv}
native=(models/ops/native/*.cc models/ops/native/*.h)
stamp="$venv/.installed-$(cat "$lock" pyproject.toml "${native[@]}" | sha256sum | cut -c1-16)"
[ -e "$stamp" ] && exit 0

# A `python3.x` on PATH may be a shim that does not run, so each candidate is asked for its version.
python=""
for candidate in ${PYTHON:-} python3.11 python3.12 python3.10 python3 python; do
  if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
      2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "error: expected Python 3.10, 3.11 or 3.12, found none on PATH." \
       "Fix: install one, or name it: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi

if [ ! -x "$venv/bin/python" ]; then
  "$python" -m venv "$venv" || {
    echo "error: $python could not make $venv. Fix: install its venv module" \
         "(on Debian: python3-venv)." >&2
    exit 1
  }
fi
uv=$(command -v uv || true)
if [ -z "$uv" ] && "$venv/bin/python" -m pip install --quiet uv 2>/dev/null; then
  uv="$venv/bin/uv"
fi
echo "installing $lock into $venv ($("$venv/bin/python" --version))"
if [ -n "$uv" ]; then
  # Containers often forbid Python to write bytecode (PYTHONDONTWRITEBYTECODE). Then every process
  # would compile TensorFlow anew, half of its start. pip compiles what it installs, uv does if asked.
  "$uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode --require-hashes \
    --requirement "$lock"
  "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
else
  "$venv/bin/python" -m pip install --quiet --require-hashes --requirement "$lock"
  "$venv/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
fi
# DIN's attention unit, which training on a CPU uses if it is there. What is missing is said.
"$venv/bin/python" -m models.doctor --build_native || true
rm -f "$venv"/.installed-*
touch "$stamp"
