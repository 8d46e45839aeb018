#!/bin/sh
# Measures homomorph on a GPU machine without a package registry, in order of worth and within eight minutes in all.
# Needs python3 3.12 with torch, nvcc, CMake, this working tree, and out/gpu.tar.xz, which pack.sh makes elsewhere.
#
#     OUT=out/gpu sh benchmarks/gpu/run.sh
#     SLOWER=10 sh benchmarks/gpu/run.sh --device cpu --quick     # a trial without a GPU, with ten times as long limits
#
# $OUT gets summary.txt (step, exit code, seconds) and results.tar.gz; both are written anew after each step.
set -u
cd "$(dirname "$0")/../.." || exit
device=cuda quick=
while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift 2 ;;
        --quick) quick=yes; shift ;;
        *) echo 'usage: run.sh [--device cpu|cuda] [--quick]' >&2; exit 2 ;;
    esac
done
if [ "$device" = cpu ]; then gpus=none accelerator=cpu; else gpus=0 accelerator=gpu; fi

out=${OUT:-out/gpu}
slower=${SLOWER:-1}
work=$(mktemp -d)
results=$work/results
repository=$work/triton_repo
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$results"
: >"$out/summary.txt"
end=$(($(date +%s) + 470 * slower))

# step NAME SECONDS COMMAND...: runs it for at most so many seconds, and saves all results.
step() {
    name=$1 start=$(date +%s) limit=$(($2 * slower))
    shift 2
    if [ $((end - start)) -lt "$limit" ]; then limit=$((end - start)); fi
    if [ "$limit" -lt 5 ]; then echo "$name: no time left" | tee -a "$out/summary.txt"; return 1; fi
    timeout --kill-after=10 "$limit" "$@" >"$results/$name.log" 2>&1
    code=$?
    echo "$name: exit code $code after $(($(date +%s) - start)) s" | tee -a "$out/summary.txt"
    tar -C "$work" -czf "$work/results.tar.gz" results && mv "$work/results.tar.gz" "$out/results.tar.gz"
    return $code
}
homomorph() {
    name=$1 limit=$2
    shift 2
    step "$name" "$limit" python3 -c 'from homomorph_cli.main import run; run()' "$@"
}

# An environment in which the bundle's packages, numpy 1 among them, come before those of this Python. Triton's process for
# Python 3.12 ignores PYTHONPATH, and with numpy 2 it answers without bytes.
packages=$work/venv/lib/python3.12/site-packages
step environment 20 python3 -m venv --without-pip "$work/venv"
python3 -c 'import site; print(*site.getsitepackages(), sep="\n")' >"$packages/zz.pth"
printf '%s\n' "$PWD/client" "$PWD/training" "$PWD/export" "$PWD/benchmarks" "$PWD/cli" >>"$packages/zz.pth"
step unpack 60 tar -C "$packages" -xf out/gpu.tar.xz
export PATH="$work/venv/bin:$PATH" PYTHONUNBUFFERED=1

step machine 30 sh -c 'nvidia-smi; nproc; python3 -c "import torch; print(torch.__version__, torch.cuda.is_available())"'
step operator 120 python3 -m homomorph_export.ops.build
homomorph export 60 export avatars64 --repository "$repository" --no-onnx
step parity 60 python3 benchmarks/gpu/parity.py "$repository" "$gpus" "$results/parity.json"

set -- bench serving --repository "$repository" --gpus "$gpus" --out "$results/serving" --quick
homomorph serving 200 "$@" || homomorph serving_alone 100 "$@" --no-peers

set -- bench model --device "$device" --runtime torchscript --out "$results/model"
if [ "$quick" ]; then set -- "$@" --preset avatars64 --picture-size 64 --frames 3; fi
homomorph model 120 "$@"

homomorph kernel 60 bench kernel --device "$device" --quick --out "$results/kernel"
if [ "$device" != cpu ]; then
    step tests 60 python3 -m pytest -q -m gpu -p no:cacheprovider tests/export/test_interpolate.py tests/bench/test_bench_kernel.py
fi
homomorph train_speed 60 bench train --device "$device" --out "$results/train"

# Train the shipped preset for as long as is left.
if [ "$quick" ]; then count=64; else count=8000; fi
homomorph render 60 render "$work/pictures" --count $count --size 64
set -- train "$work/pictures" --out "$work/run" --accelerator "$accelerator" --checkpoint-every 100
if [ "$quick" ]; then set -- "$@" --steps 2 --set batch_size=8; fi
homomorph train $((end - $(date +%s) - 15)) "$@"
step weights 15 cp "$work/run/config.json" "$work/run/model.safetensors" "$work/run/strips.png" "$results"
echo "results: $out/summary.txt $out/results.tar.gz"
