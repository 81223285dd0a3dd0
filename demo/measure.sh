#!/usr/bin/env bash
# Measure a model of the toy set on its held-out images: COCO AP and fixed AP.
#   bash demo/measure.sh CONFIG CHECKPOINT WORK_DIR
# writes SPLIT.jsonl, SPLIT_coco.json and SPLIT_lvis-fixed-ap.json to WORK_DIR, for the images
# whose combinations of colour and shape were seen in training and for those where some were not.
# Relative paths start at the repository. The environment may name another `python`, or LLMDET_VENV.
set -euo pipefail
if (($# != 3)); then
    sed -n '/^#  /s/^# *//p' "$0" >&2
    exit 2
fi
config="$1" checkpoint="$2" work_dir="$3"
cd "$(dirname "$0")/.."
python="${python:-${LLMDET_VENV:-.venv}/bin/python}"
mkdir -p "$work_dir"
# What was started ends with this script, however it ends.
trap 'trap - TERM; kill 0' INT TERM

annotations=data/toy/annotations
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # the two splits share the machine
measure() { # split
    local split="$1" metric options
    rm -f "$work_dir/$split.jsonl"
    "$python" -W ignore tools/test.py "$config" "$checkpoint" --work-dir "$work_dir/$split" \
        --out "$work_dir/$split.jsonl" --cfg-options \
        test_dataloader.dataset.ann_file="annotations/${split}_coco.json" \
        test_evaluator.0.ann_file="$annotations/${split}_coco.json" \
        test_evaluator.1.ann_file="$annotations/${split}_lvis.json" || return
    for metric in coco lvis-fixed-ap; do
        options=()
        [[ "$metric" == coco ]] && options=(--options "class_split=$annotations/class_split.json")
        "$python" tools/evaluate.py --metric "$metric" \
            --gt "$annotations/${split}_${metric%%-*}.json" --pred "$work_dir/$split.jsonl" \
            --json "$work_dir/${split}_$metric.json" "${options[@]}" || return
    done
}

declare -A running
for split in val_seen val_unseen; do
    echo "predicting $split; the log is $work_dir/$split.log"
    measure "$split" >"$work_dir/$split.log" 2>&1 &
    running[$split]=$!
done
failed=()
for split in "${!running[@]}"; do
    wait "${running[$split]}" || failed+=("$split")
done
for split in "${failed[@]}"; do
    echo "measuring $split failed; the end of $work_dir/$split.log:" >&2
    tail -n 20 "$work_dir/$split.log" >&2 || true
done
exit $((${#failed[@]} > 0))
