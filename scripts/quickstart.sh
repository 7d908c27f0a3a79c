#!/bin/sh
# quickstart.sh - from a fresh Debian or Ubuntu to a trained network: installs what is missing,
# builds the library and one example, trains a small ResNet with efficient attention on
# Fashion-MNIST (or, where that package is not to be had, on the procedural long-range task).
#
# BUILD_DIR (build-quickstart) is where it builds, EPOCHS (3, or 4 for long-range) how long it trains.
# In so few epochs Fashion-MNIST is learned better without augmentation and at half the usual rate.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install_packages.sh gcc libc6-dev make cmake libhdf5-dev zlib1g-dev
dataset=fashion-mnist
if [ ! -d /usr/share/datasets/fashion-mnist ]; then
    sh scripts/install_packages.sh dataset-fashion-mnist || dataset=long-range
fi
build=${BUILD_DIR:-build-quickstart}
checkpoint=$build/quickstart.h5
cmake -S . -B "$build" -DTAPELINE_BUILD_TESTS=OFF -DTAPELINE_BUILD_BENCH=OFF
cmake --build "$build" -j"$(nproc)" --target train_classifier
if [ "$dataset" = fashion-mnist ]; then
    "$build"/examples/train_classifier --dataset fashion-mnist --depth 8 --attention efficient \
        --no-augmentation --lr 0.1 --epochs "${EPOCHS:-3}" --checkpoint "$checkpoint"
else
    "$build"/examples/train_classifier --dataset long-range --attention efficient --heads 4 \
        --epochs "${EPOCHS:-4}" --checkpoint "$checkpoint"
fi
"$build"/examples/train_classifier --evaluate "$checkpoint"
cat <<TEXT

The trained network lies in $checkpoint (HDF5: try h5dump -n $checkpoint).
What to try next:
  $build/examples/train_classifier --help
  the same without attention:  --dataset $dataset --attention none
  CIFAR-10: scripts/fetch_cifar10.sh, then --dataset cifar10 --data-dir DIR --depth 20
            --attention efficient --attention-stages 1,2
  the tests:                   scripts/test.sh
TEXT
