#!/usr/bin/env bash
# Lint, types and tests in the environment of requirements/lock.txt, which is made if need be.
# Further arguments go to pytest.
#   LLMDET_REAL_DATA, LLMDET_GOLDEN  folders of data that is not part of the repository; tests
#                                    that need them are skipped where they are not set
set -euo pipefail
cd "$(dirname "$0")/.."

source demo/environment.sh
export OMP_NUM_THREADS=1

# The web demo is tested in a browser, and pictures with fonts of all scripts: Debian's, where we
# may install them. Elsewhere those tests are skipped.
if [[ $EUID == 0 ]] && command -v apt-get >/dev/null && ! command -v chromedriver >/dev/null; then
    echo "== browser"
    packages=(chromium chromium-driver)
    packages+=(fonts-droid-fallback fonts-nanum fonts-noto-color-emoji)
    { timeout 120 apt-get update && DEBIAN_FRONTEND=noninteractive timeout 300 \
        apt-get install --yes --no-install-recommends "${packages[@]}"; } >/dev/null 2>&1 ||
        echo "${packages[*]} cannot be installed: their tests are skipped"
fi

echo "== lint"
"$python" -m ruff check .
"$python" -m ruff format --check .
echo "== types"
"$python" -m mypy llmdet
echo "== tests"
"$python" -m pytest -n 2 --import-mode=importlib --timeout=300 --durations=15 "$@"
