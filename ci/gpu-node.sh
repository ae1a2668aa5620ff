#!/usr/bin/env bash
# Everything that is wanted of a machine with a GPU, which may have no network, no Rust and no compiler:
#
#   ci/gpu-node.sh pack cuda|hip   where they are: builds the suites and the program into
#                                  target/gpu-node-<vendor>.tar.gz
#   ./gpu-node.sh run cuda|hip     where the GPU is, in the unpacked folder (or, in the repository,
#                                  ci/gpu-node.sh run): doctor, suites, golden files and sweep, measurements
#
# Suites, golden files and most measurements are of the first GPU. `doctor` looks at all; where there are two or more, the
# suite of ranks over NCCL or RCCL runs on them, and the gradient reduction is measured over all at once. The library is
# found at run time (LD_LIBRARY_PATH); one GPU needs none.
#
# `run` goes on after a failure, keeps what every step printed under out/, packs it as
# halfstep-<vendor>-<date>.tar.gz, and exits with 1 if a step failed. A minute before the end that Slurm has set for the job
# no step runs any more: what there is by then is packed. Newer NVIDIA GPUs than the images are
# for compile the PTX in them, which takes the first start some seconds.
#
# Jobs of Slurm may share the repository, or the unpacked folder: all that they write has their number in its name
# (target/gpu-node-<job>/, target/gpu-node-<vendor>-<job>.tar.gz, out-<job>/, halfstep-<vendor>-<date>-<job>.tar.gz).
#
# GPU_NODE_TIMEOUT   seconds that one step may take (1800)
# GPU_NODE_SUITES    only these suites, where they are built and where they run
# GPU_NODE_LEN       elements of the arrays of measurements (100000000)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

usage() { sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' >&2; exit 2; }
[ $# -eq 2 ] || usage
command="$1" vendor="$2" job="${SLURM_JOB_ID:+-$SLURM_JOB_ID}"
case "$vendor" in
    cuda) collectives=nccl ;;
    hip) collectives=rccl ;;
    *) usage ;;
esac

# The program of a target, as cargo says of what it has built.
executable() { sed -n "s/.*\"name\":\"$1\",.*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1; }

pack() {
    cd "$here/.."
    local root="target/gpu-node$job" features="cli,$vendor,$collectives" stage suite built binary suites
    stage="$root/$vendor"
    rm -rf "$stage"
    mkdir -p "$stage/bin" "$stage/suites"
    HALFSTEP_COMMIT="$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)"
    export HALFSTEP_COMMIT # what records say
    source ci/device-suites.sh
    read -r -a suites <<< "${GPU_NODE_SUITES:-${device_suites[*]} reduce_nccl}"
    # Of one profile, with the same features: kernels, and what all depend on, are compiled once.
    built="$(cargo build --release --features "$features" --message-format=json-render-diagnostics)"
    cp "$(executable halfstep <<< "$built")" "$stage/bin/"
    built="$(cargo test --release --no-run --features "$features" "${suites[@]/#/--test=}" --message-format=json-render-diagnostics)"
    for suite in "${suites[@]}"; do
        # `golden` reads files of the repository: `verify` does the same with those that are built in.
        [ "$suite" != golden ] || continue
        binary="$(executable "$suite" <<< "$built")"
        [ -n "$binary" ] || { echo "gpu-node: the suite $suite was not built" >&2; exit 1; }
        cp "$binary" "$stage/suites/$suite"
    done
    cp ci/gpu-node.sh "$stage/"
    printf 'commit   %s\nrust     %s\n' "$HALFSTEP_COMMIT" "$(rustc --version)" > "$stage/built.txt"
    tar -C "$root" -czf "target/gpu-node-$vendor$job.tar.gz" "$vendor"
    echo "target/gpu-node-$vendor$job.tar.gz"
}

failed=0 out="out$job"
# Seconds that a step may take.
limit() {
    local limit="${GPU_NODE_TIMEOUT:-1800}" left
    if [[ "${SLURM_JOB_END_TIME:-}" =~ ^[0-9]+$ ]]; then
        left=$((SLURM_JOB_END_TIME - $(date +%s) - 60))
        if [ "$left" -lt "$limit" ]; then limit="$left"; fi
    fi
    echo "$limit"
}
# step NAME COMMAND…: its output is shown and kept; a failure is counted.
step() {
    local name="$1" status=0 limit
    shift
    printf '\n== %s\n' "$name"
    limit="$(limit)"
    if [ "$limit" -le 0 ]; then
        echo "FAILED: $name (the job's time is up)" | tee -a "$out/failures.txt"
        failed=1
        return
    fi
    timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$out/$name.txt" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "FAILED: $name (status $status)" | tee -a "$out/failures.txt"
        failed=1
    fi
}

run() {
    local stage="$here"
    [ -x "$stage/bin/halfstep" ] || stage="$here/../target/gpu-node$job/$vendor"
    [ -x "$stage/bin/halfstep" ] || stage="$here/../target/gpu-node/$vendor" # packed before the job
    [ -x "$stage/bin/halfstep" ] || { echo "gpu-node: nothing is built; first: ci/gpu-node.sh pack $vendor" >&2; exit 1; }
    cd "$stage"
    rm -rf "$out"
    mkdir "$out"
    cp built.txt "$out/"
    step doctor bin/halfstep doctor
    export HALFSTEP_REQUIRE="$vendor"
    local suite gpus
    gpus="$(grep -Ec "^ +(ok|PROBLEM) +$vendor:[0-9]" "$out/doctor.txt" || true)"
    for suite in ${GPU_NODE_SUITES:-$(ls suites)}; do
        [ "$suite" != golden ] || continue # it is not packed
        if [ "$suite" = reduce_nccl ] && [ "$gpus" -lt 2 ]; then
            printf '\n== suite-%s\nskipped: %s GPU(s), 2 needed\n' "$suite" "$gpus" | tee "$out/suite-$suite.txt"
        elif [ "$suite" = reduce_nccl ] && [ "$gpus" -eq 2 ]; then
            # Some of its tests want three, and say so.
            step "suite-$suite" env -u HALFSTEP_REQUIRE "suites/$suite" --nocapture
        else
            step "suite-$suite" "suites/$suite" --nocapture
        fi
    done
    step verify bin/halfstep verify --device "$vendor:0"
    local len="${GPU_NODE_LEN:-100000000}"
    step bench bin/halfstep bench --device "$vendor:0" --len "$len" --rounds 9 --record "$out/record" --svg "$out/svg" --json="$out/bench.json"
    if [ "$gpus" -ge 2 ]; then
        step bench-all bin/halfstep bench reduce --device "$vendor" --filter "${collectives^^}" --rounds 9 --record "$out/record" --json="$out/bench-all.json"
    fi
    step bench-cpu bin/halfstep bench --device cpu --rounds 5 --record "$out/record" --svg "$out/svg"
    local packed
    packed="halfstep-$vendor-$(date -u +%Y-%m-%d)$job.tar.gz"
    tar -czf "$packed" "$out"
    printf '\n%s\n' "$PWD/$packed"
    exit "$failed"
}

case "$command" in
    pack) pack ;;
    run) run ;;
    *) usage ;;
esac
