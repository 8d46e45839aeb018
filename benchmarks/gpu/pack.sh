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

# Leave out what only other Pythons, tests, compilers and other styles of drawings use.
cd "$folder"
find pytriton/tritonserver/python_backend_stubs -mindepth 1 -maxdepth 1 ! -name 3.12 -exec rm -r {} +
rm nvidia_pytriton.libs/libpython3* numpy/core/_simd.*.so
find . -type d \( -name tests -o -name include \) -prune -exec rm -r {} +
find . \( -name '*.a' -o -name '*.[ch]' -o -name '*.pyx' -o -name '*.pyi' \) -delete
find dicebear_styles -name '*.json' ! -name avataaars.json -delete
find . -type f \( -name '*.so*' -o -name tritonserver -o -name triton_python_backend_stub \) -exec strip --strip-unneeded {} +
# An empty library in the place of ICU's 29 MB of tables. Only libxml2 links to ICU, and asks it for rare encodings alone.
icu=$(echo nvidia_pytriton.libs/libicudata*)
echo 'const char icudt70_dat[64];' | cc -x c - -shared -nostdlib -s -Wl,-soname,"${icu##*/}" -o "$icu"

cd - >/dev/null
mkdir -p out
tar -C "$folder" --sort=name --owner=0 --group=0 -c . | xz --x86 --lzma2=preset=9e >out/gpu.tar.xz
size=$(stat -c %s out/gpu.tar.xz)
echo "out/gpu.tar.xz: $((size / 1000000)) MB"
[ "$size" -lt 30000000 ] || { echo 'that is more than 30 MB' >&2; exit 1; }
