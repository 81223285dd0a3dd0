#!/usr/bin/env bash
# From nothing to detections and captions in minutes, on whatever device there is and without a
# download beyond the Python packages: environment, toy images, training, evaluation, pictures.
#   bash demo/quickstart.sh [--short] [--work-dir DIR]
#   --short     train for some seconds only: shows that everything runs, promises no accuracy
#   --work-dir  where checkpoints, metrics and pictures go (default: work_dirs/quickstart)
set -euo pipefail
usage="$(sed -n '2,/^set/{s/^# //p}' "$0")"
cd "$(dirname "$0")/.."

training=()
work_dir=work_dirs/quickstart
while (($#)); do
    case "$1" in
        --short) training+=(train_cfg.max_iters=60) ;;
        --work-dir) work_dir="${2:?--work-dir takes a folder}" && shift ;;
        *)
            echo "$usage" >&2
            exit 2
            ;;
    esac
    shift
done

# Threads that wait for each other asleep: spinning ones slow a busy machine down tenfold.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

start=$SECONDS
step() { printf '\n== %s (%d s)\n' "$1" "$((SECONDS - start))"; }

step "Environment"
source demo/environment.sh
"$python" -W ignore -m llmdet.utils.env

config=configs/quickstart/llmdet.py
checkpoint="$work_dir/latest.pth"

step "Toy set: coloured shapes, some combinations of which appear in no training image"
"$python" -m llmdet.datasets.toy data/toy

# One process keeps a GPU busy; on CPU two small ones are faster than one with two threads.
count='import os, torch; print(1 if torch.cuda.is_available() else min(2, os.cpu_count()))'
processes="$("$python" -c "$count")"
step "Training $config in $processes process(es)"
VIRTUAL_ENV="$(dirname "$(dirname "$python")")" PATH="$(dirname "$python"):$PATH" PYTHONWARNINGS=ignore \
    bash dist_train.sh "$config" "$processes" --work-dir "$work_dir" \
    --cfg-options train_dataloader.batch_size=$((8 / processes)) "${training[@]}"
cp "$(cd "$work_dir" && realpath "$(<last_checkpoint)")" "$checkpoint"

step "Evaluation on images that were held out"
python="$python" bash demo/measure.sh "$config" "$checkpoint" "$work_dir"

step "Pictures: held-out images, and shapes on photographs that no training image shows"
pictures="$work_dir/pictures"
mkdir -p "$work_dir/images"
find data/toy/images/val_unseen -name '*.jpg' | sort | sed -n 1,4p |
    xargs -I {} cp {} "$work_dir/images/"
cp data/toy/images/photographs/*.jpg "$work_dir/images/"
"$python" -W ignore image_demo.py "$work_dir/images" "$config" --weights "$checkpoint" \
    --out-dir "$pictures" --pred-score-thr 0.3 --caption
"$python" demo/quickstart_sheet.py "$work_dir"

step "Result"
"$python" demo/quickstart_table.py "$work_dir"
