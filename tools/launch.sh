#!/usr/bin/env bash
# Start a program in one or more processes; called by dist_train.sh and dist_test.sh:
#   launch.sh PROGRAM COUNT ARGUMENT... PROCESSES [further arguments]
# where COUNT is the number of arguments in front of PROCESSES.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
program="$1"
count="$2"
shift 2
if (($# <= count)) || ! [[ "${!count}" != -* && "${@:count+1:1}" =~ ^[1-9][0-9]*$ ]]; then
    sed -n '/^# /{s/^# //p}' "$root/dist_$(basename "$program" .py).sh" >&2
    exit 2
fi
arguments=("${@:1:count}" "${@:count+2}")
processes="${@:count+1:1}"

# An activated environment comes first, then the one of the quickstart, then any python.
python=python
[[ -z "${VIRTUAL_ENV:-}" && -x "$root/.venv/bin/python" ]] && python="$root/.venv/bin/python"
[[ -z "${VIRTUAL_ENV:-}" && -n "${LLMDET_VENV:-}" ]] && python="$LLMDET_VENV/bin/python"

# Threads that wait for each other asleep: spinning ones slow a busy machine down tenfold.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

nodes="${NNODES:-1}"
if [[ "$nodes" == 1 && "$processes" == 1 ]]; then
    exec "$python" "$root/$program" "${arguments[@]}"
fi
# On one machine torchrun takes a free port itself; several must be told one.
meeting=(--standalone --local_addr=127.0.0.1)
if [[ "$nodes" != 1 || -n "${PORT:-}" ]]; then
    meeting=(
        --nnodes="$nodes"
        --node_rank="${NODE_RANK:-0}"
        --master_addr="${MASTER_ADDR:-127.0.0.1}"
        --master_port="${PORT:-29500}"
    )
fi
exec "$python" "$root/tools/launch.py" "${meeting[@]}" --nproc_per_node="$processes" \
    --max_restarts="${MAX_RESTARTS:-0}" "$root/$program" "${arguments[@]}" --launcher pytorch
