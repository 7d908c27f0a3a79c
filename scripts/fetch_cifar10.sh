#!/bin/sh
# fetch_cifar10.sh [--cifar100] [FOLDER] - downloads the official CIFAR-10 archive (163 MB) and
# verifies its checksum. FOLDER: where to (default datasets/cifar10 or datasets/cifar100 beside this
# script's folder). A download that was cut off is taken up again. The archive need not be unpacked:
#
#     train_classifier --dataset cifar10 --data-dir FOLDER
#
# --cifar100: CIFAR-100 instead. TAPELINE_CIFAR_URL names another place to download from.
set -eu

usage() {
    echo "usage: fetch_cifar10.sh [--cifar100] [FOLDER]" >&2
    exit 2
}

fail() {
    echo "fetch_cifar10.sh: $*" >&2
    exit 1
}

archive=cifar-10-binary.tar.gz
md5=c32a1d4ab5d03f1284b67883e8d87530
name=cifar10
folder=
while [ $# -gt 0 ]; do
    case $1 in
    --cifar100)
        archive=cifar-100-binary.tar.gz
        md5=03b5dce01913d631647c71ecec9e9cb8
        name=cifar100
        ;;
    -*) usage ;;
    *)
        [ -z "$folder" ] || usage
        folder=$1
        ;;
    esac
    shift
done
[ -n "$folder" ] || folder=$(cd "$(dirname "$0")/.." && pwd)/datasets/$name
url=${TAPELINE_CIFAR_URL:-https://www.cs.toronto.edu/~kriz}/$archive
target=$folder/$archive
partial=$target.part

checksum_of() {
    md5sum "$1" | cut -d ' ' -f 1
}

mkdir -p "$folder" || fail "cannot create the folder $folder"
if [ -f "$target" ]; then
    found=$(checksum_of "$target")
    if [ "$found" = "$md5" ]; then
        echo "$target is there already, and its checksum is right"
        exit 0
    fi
    fail "$target: expected the md5 checksum $md5, found $found; remove the file to download it again"
fi

echo "downloading $url"
if [ -f "$partial" ] && [ "$(checksum_of "$partial")" = "$md5" ]; then
    : # only the last step was missing
elif command -v curl >/dev/null 2>&1; then
    curl --fail --location --continue-at - --retry 3 --output "$partial" "$url" ||
        fail "the download failed; run this again to go on where it stopped"
elif command -v wget >/dev/null 2>&1; then
    wget --continue --tries 3 --output-document "$partial" "$url" ||
        fail "the download failed; run this again to go on where it stopped"
else
    fail "neither curl nor wget is installed: apt-get install curl"
fi

found=$(checksum_of "$partial")
if [ "$found" != "$md5" ]; then
    rm -f "$partial"
    fail "$url: expected the md5 checksum $md5, found $found; the download was removed"
fi
mv "$partial" "$target"
echo "$target: checksum verified"
