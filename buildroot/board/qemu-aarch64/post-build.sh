#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# post-build.sh TARGET_DIR [--version=VERSION] [...]
#
# What the board needs in the root file system, and which system it is. It may
# run several times on the same directory.
set -eu

target=$1
board=$(dirname "$0")
# Buildroot says where updaterd's tree is: a copy of this script may be in another.
tree=${BR2_EXTERNAL_UPDATERD_PATH:-$board/../..}
shift
version=
for option in "$@"; do
	case $option in
	--version=*) version=${option#*=} ;;
	esac
done
version=${UPDATERD_IMAGE_VERSION:-$version}
if [ -z "$version" ]; then
	echo "$0: which version is this? Set UPDATERD_IMAGE_VERSION, or --version=VERSION in BR2_ROOTFS_POST_SCRIPT_ARGS" >&2
	exit 1
fi

install -D -m 0644 "$board/fw_env.config" "$target/etc/fw_env.config"
# What "updater-bootctl restore" writes if no copy of the environment is left.
mkdir -p "$target/usr/share/updaterd"
"$tree/package/updaterd/environment" "$tree/board/qemu-aarch64/updaterd.env" "$board/board.env" >"$target/usr/share/updaterd/updaterd.env"

# The data partition, which both systems share.
mkdir -p "$target/data"
sed -i '\#[[:space:]]/data[[:space:]]#d' "$target/etc/fstab"
echo "/dev/mmcblk0p3	/data	ext4	rw,nosuid,nodev,noatime,nofail	0	0" >>"$target/etc/fstab"

# A device knows by BUILD_ID which delta is for it, so that must be another one
# whenever anything in the image is.
release=$target/usr/lib/os-release
sed -i '/^IMAGE_VERSION=/d; /^BUILD_ID=/d' "$release"
content=$(cd "$target" && find . \( -type f -exec sha256sum {} + \) -o \( -type l -printf '%p -> %l\n' \) | sort | sha256sum | cut -c 1-12)
cat >>"$release" <<END
IMAGE_VERSION="$version"
BUILD_ID="$version-$content"
END
