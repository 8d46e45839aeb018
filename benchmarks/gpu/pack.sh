#!/bin/sh
# Packs the Python 3.12 packages that a GPU machine without a package registry lacks into out/gpu.tar.xz, Triton and numpy 1
# among them. run.sh, beside this file, unpacks it.
#
#     make setup && sh benchmarks/gpu/pack.sh
set -eu
cd "$(dirname "$0")/../.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 2_17 2_24 2_26 2_27 2_28 2_31 2_34 2_35; do  # pip takes exactly these, not older ones
    platforms="${platforms-} --platform manylinux_${version}_x86_64"
done
install() {
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install --quiet --no-deps --no-compile --only-binary=:all: \
        --implementation cp --python-version 3.12 $platforms --platform manylinux2014_x86_64 --target "$@"
}
install "$folder" --requirement benchmarks/gpu/requirements.txt nvidia-pytriton==0.7.0 'numpy>=1.26,<2'

# Leave out what only other Pythons, tests and compilers use.
cd "$folder"
find pytriton/tritonserver/python_backend_stubs -mindepth 1 -maxdepth 1 ! -name 3.12 -exec rm -r {} +
rm nvidia_pytriton.libs/libpython3*
find "$folder" -type d \( -name tests -o -name include \) -prune -exec rm -r {} +
find "$folder" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

cd - >/dev/null
mkdir -p out
tar -C "$folder" --sort=name --owner=0 --group=0 -c . | xz -9 -T0 >out/gpu.tar.xz
size=$(stat -c %s out/gpu.tar.xz)
echo "out/gpu.tar.xz: $((size / 1000000)) MB"
[ "$size" -lt 40000000 ] || { echo 'that is more than 40 MB' >&2; exit 1; }
