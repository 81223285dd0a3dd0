#!/usr/bin/env bash
# From nothing to detections in minutes, on whatever device there is and without a
# download beyond the Python packages: environment, toy images, training, evaluation, pictures.
#   bash demo/quickstart.sh [--short] [--work-dir DIR]
#   --short     train for some seconds only: shows that everything runs, promises no accuracy
#   --work-dir  where checkpoints, metrics and pictures go (default: work_dirs/quickstart)
set -euo pipefail
cd "$(dirname "$0")/.."

iterations=()
work_dir=work_dirs/quickstart
while (($#)); do
    case "$1" in
        --short) iterations=(--cfg-options train_cfg.max_iters=60 train_cfg.val_interval=60) ;;
        --work-dir) work_dir="${2:?--work-dir takes a folder}" && shift ;;
        *) sed -n '2,/^set/{s/^# //p}' "$0" >&2 && exit 2 ;;
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

config=configs/quickstart/detector.py
checkpoint="$work_dir/latest.pth"

step "Toy set: coloured shapes, some combinations of which appear in no training image"
"$python" -m llmdet.datasets.toy data/toy
"$python" -m llmdet.testing.toy_models data/toy

step "Training $config"
"$python" -W ignore tools/train.py "$config" --work-dir "$work_dir" "${iterations[@]}"
cp "$(<"$work_dir/last_checkpoint")" "$checkpoint"

step "Evaluation on images that were held out"
annotations=data/toy/annotations
for split in val_seen val_unseen; do
    rm -f "$work_dir/$split.jsonl"
    echo "predicting $split; the log is $work_dir/$split.log"
    "$python" -W ignore tools/test.py "$config" "$checkpoint" --work-dir "$work_dir" \
        --out "$work_dir/$split.jsonl" --cfg-options \
        test_dataloader.dataset.ann_file="annotations/${split}_coco.json" \
        test_evaluator.0.ann_file="$annotations/${split}_coco.json" \
        test_evaluator.1.ann_file="$annotations/${split}_lvis.json" \
        >"$work_dir/$split.log" 2>&1 || { tail -n 20 "$work_dir/$split.log" >&2 && exit 1; }
    for metric in coco lvis-fixed-ap; do
        options=()
        [[ "$metric" == coco ]] && options=(--options "class_split=$annotations/class_split.json")
        "$python" tools/evaluate.py --metric "$metric" \
            --gt "$annotations/${split}_${metric%%-*}.json" --pred "$work_dir/$split.jsonl" \
            --json "$work_dir/${split}_$metric.json" "${options[@]}" >/dev/null
    done
done

step "Pictures: three held-out images and a photograph"
pictures="$work_dir/pictures"
show() { # image, further arguments
    "$python" -W ignore image_demo.py "$1" "$config" --weights "$checkpoint" \
        --out-dir "$pictures" "${@:2}"
}
mkdir -p "$work_dir/images"
find data/toy/images/val_unseen -name '*.jpg' | sort | sed -n 1,3p |
    xargs -I {} cp {} "$work_dir/images/"
show "$work_dir/images" --pred-score-thr 0.3
"$python" -c 'import skimage, sys; sys.stdout.write(skimage.__path__[0])' >"$work_dir/skimage"
show "$(<"$work_dir/skimage")/data/astronaut.png" -c --text 'orange square . white circle .' \
    --pred-score-thr 0.2

step "Result"
"$python" demo/quickstart_table.py "$work_dir"
