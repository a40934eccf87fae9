#!/usr/bin/env bash
# Installs Horovod from its source package, for the torch of `python`. Another pip command can replace `install`, such
# as `install_horovod.sh wheel --wheel-dir DIR`; FRAMEWORK=TENSORFLOW builds it for TensorFlow.
# Horovod 0.28.1 requests C++14, but the headers of torch 2.13 need C++17: only its CMake files are changed.
# Needs a C++ compiler, CMake, Open MPI, torch and `setuptools<80 wheel`.
set -euo pipefail
version=0.28.1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ $# -gt 0 ] || set -- install --no-cache-dir

python -m pip download --quiet --no-deps --no-build-isolation --no-binary horovod --dest "$work" "horovod==$version"
tar -xzf "$work/horovod-$version.tar.gz" -C "$work"
cd "$work/horovod-$version"
sed -i -E 's/set\(CMAKE_(CXX|CUDA)_STANDARD 1[14]\)/set(CMAKE_\1_STANDARD 17)/' \
    CMakeLists.txt horovod/torch/CMakeLists.txt horovod/common/ops/cuda/CMakeLists.txt

export HOROVOD_WITH_MPI=1 HOROVOD_WITHOUT_GLOO=1
for framework in PYTORCH TENSORFLOW MXNET; do
    [ "$framework" = "${FRAMEWORK:-PYTORCH}" ] && with=WITH || with=WITHOUT
    export "HOROVOD_${with}_$framework=1"
done
# Some bundled projects declare a CMake older than 3.5, which CMake 4 rejects.
export CMAKE_POLICY_VERSION_MINIMUM=3.5
python -m pip "$@" --no-build-isolation .
