#!/usr/bin/env bash
# Installs Horovod for the torch that `python` has, from Horovod's source package. Another command of pip's may be
# given in place of `install`, as `install_horovod.sh wheel --wheel-dir DIR`; FRAMEWORK=TENSORFLOW builds it for that.
# 0.28.1 asks the compiler for C++14, torch 2.13's headers need C++17: its CMake files are changed, and nothing else.
# Needs a C++ compiler, CMake, Open MPI, and `setuptools<80 wheel` beside torch.
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
# Some of what it brings along declares a CMake older than 3.5, which CMake 4 refuses.
export CMAKE_POLICY_VERSION_MINIMUM=3.5
python -m pip "$@" --no-build-isolation .
