# Source this: makes or reuses the environment of requirements/lock.txt and sets `python`.
#   LLMDET_VENV    where it is (default: .venv in the repository)
#   LLMDET_PYTHON  the Python that makes it (default: python3; 3.10 to 3.13)
# A stamp in the environment keeps the hash of what it was made from, so that an unchanged lock
# file costs nothing and a changed one is installed again.

llmdet_environment() {
    local root="$1" base="${LLMDET_PYTHON:-python3}"
    local venv="${LLMDET_VENV:-$root/.venv}"
    local stamp="$venv/.llmdet-lock" wanted
    python="$venv/bin/python"
    wanted="$(cat "$root/requirements/lock.txt" "$root/setup.py" | sha256sum | cut -d' ' -f1) $root"
    if [[ -x "$python" && -f "$stamp" && "$(<"$stamp")" == "$wanted" ]]; then
        return 0
    fi
    if ! "$base" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
        echo "LLMDet needs Python 3.10 to 3.13, '$base' is $("$base" --version 2>&1): set" \
            "LLMDET_PYTHON to one of these." >&2
        return 1
    fi
    echo "Installing the environment of requirements/lock.txt into $venv ..."
    [[ -x "$python" ]] || "$base" -m venv "$venv"
    # Complete as it stands, so that nothing may be resolved or added: --no-deps.
    "$python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps \
        --requirement "$root/requirements/lock.txt"
    "$python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps --editable "$root"
    echo "$wanted" >"$stamp"
}

llmdet_environment "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
