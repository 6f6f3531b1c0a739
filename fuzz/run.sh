#!/usr/bin/env bash
# Builds the fuzz targets and runs each for a while, as many side by side as there are processors:
#
#   fuzz/run.sh SECONDS [TARGET...]
#
# The kept corpus in fuzz/corpus is read and stays as it is; what is found goes to target/fuzz. Exit code 1: a target
# failed, and the command that replays the input is printed.
set -euo pipefail

seconds=$1
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
host=$(rustc -vV | sed -n 's/^host: //p')

targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
    for path in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$path" .rs)"); done
fi

# What `cargo fuzz build --sanitizer none` sets: counters for libFuzzer in every function. Naming the target keeps them out
# of build scripts and macros.
flags=-Cpasses=sancov-module
for flag in sanitizer-coverage-level=4 sanitizer-coverage-inline-8bit-counters sanitizer-coverage-pc-table \
    sanitizer-coverage-trace-compares simplifycfg-branch-fold-threshold=0 sanitizer-coverage-stack-depth; do
    flags+=" -Cllvm-args=-$flag"
done
flags+=' --cfg fuzzing'
RUSTFLAGS=$flags cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$out"

# Runs one target; its words go to a file, and what became of it into one line.
run() {
    local name=$1 log=$out/$1.log found=$out/corpus/$1 crashes=$out/crashes/$1/ status=0
    mkdir -p "$found" "$crashes" "fuzz/corpus/$name"
    "$out/$host/release/$name" "$found" "fuzz/corpus/$name" -max_total_time="$seconds" -max_len=8192 -timeout=10 \
        -rss_limit_mb=1024 -print_final_stats=1 -dict="fuzz/dictionaries/$name" -artifact_prefix="$crashes" \
        >"$log" 2>&1 || status=$?
    awk -v name="$name" '
        /cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "corp:") corpus = $(i + 1) } }
        /^stat::number_of_executed_units:/ { runs = $2 }
        /^stat::new_units_added:/ { new = $2 }
        END { printf "%-12s %9d runs  coverage %5d  corpus %s, %d of it new\n", name, runs, cov, corpus, new }' "$log"
    [[ $status -eq 0 ]] && return
    grep -E '^thread .* panicked at|^==.*ERROR:' -A 1 "$log" | cut -c -300 | head -n 8
    sed -n "s|.*Test unit written to \(.*\)|$name FAILED: replay with $out/$host/release/$name \1|p" "$log"
    echo "$name FAILED with $status: $log"
    return 1
}

status=0
for name in "${targets[@]}"; do
    while [[ $(jobs -rp | wc -l) -ge $(nproc) ]]; do wait -n || status=1; done
    run "$name" &
done
while [[ -n $(jobs -p) ]]; do wait -n || status=1; done
exit "$status"
