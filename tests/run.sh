#!/usr/bin/env bash
# Lint, types and tests in the environment of requirements/lock.txt, which is made if need be.
# Further arguments go to pytest.
#   LLMDET_REAL_DATA, LLMDET_GOLDEN  folders of data that is not part of the repository; tests
#                                    that need them are skipped where they are not set
set -euo pipefail
cd "$(dirname "$0")/.."

source demo/environment.sh
export OMP_NUM_THREADS=1

echo "== lint"
"$python" -m ruff check .
"$python" -m ruff format --check .
echo "== types"
"$python" -m mypy llmdet
echo "== tests"
"$python" -m pytest -n 2 --import-mode=importlib --timeout=300 --durations=15 "$@"
