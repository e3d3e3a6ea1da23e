#!/bin/sh
# The main job on the sample data: inspect, fit, diagnose, evaluate, export.
#   sh sample_data/demo.sh OUTDIR        (from the repository root, with pmrl on PATH)
set -eu
OUT=${1:?usage: sh sample_data/demo.sh OUTDIR}
MODEL=$OUT/digits
ALIGNED=$OUT/aligned
LABELS=sample_data/labels.parquet

# Show a command as it could be typed, then run it.
run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

mkdir -p "$OUT"
run pmrl inspect sample_data/features/*
run pmrl fit sample_data/features/* -o "$MODEL"
run pmrl diagnose sample_data/features/* --model "$MODEL"
run pmrl evaluate sample_data/features/* --labels "$LABELS" --model "$MODEL"
run pmrl export sample_data/features/* --model "$MODEL" -o "$ALIGNED"
run ls "$MODEL" "$ALIGNED" "$ALIGNED"/fused
