#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# post-image.sh BINARIES_DIR [--version=VERSION] [--sequence=NUMBER]
#
# Makes the card that leaves the factory, and the bundle that brings the same
# system to devices which have an older one. In the environment:
#
# UPDATERD_KEY             the key that signs: a PEM file, or where it lives
#                          (awskms://..., pkcs11:..., see "updater-bundle help").
#                          Without one the bundle is left unsigned
# UPDATERD_RELEASES        a directory with the bundles that devices have got: the
#                          new one gets a delta from each
# UPDATERD_IMAGE_VERSION, UPDATERD_IMAGE_SEQUENCE
#                          what orders the releases; or the options above
#
# The same system and the same of these give the same bytes, if SOURCE_DATE_EPOCH
# is set, as it is by BR2_REPRODUCIBLE, and the key is an Ed25519 key.
set -eu

images=$1
board=$(dirname "$0")
# Buildroot says where updaterd's tree is: a copy of this script may be in another.
tree=${BR2_EXTERNAL_UPDATERD_PATH:-$board/../..}
shift
version=
sequence=
for option in "$@"; do
	case $option in
	--version=*) version=${option#*=} ;;
	--sequence=*) sequence=${option#*=} ;;
	esac
done
version=${UPDATERD_IMAGE_VERSION:-$version}
sequence=${UPDATERD_IMAGE_SEQUENCE:-$sequence}
configuration=$TARGET_DIR/etc/updaterd/updaterd.toml
keyring=$TARGET_DIR/etc/updaterd/keys
compatible=$(sed -n 's/^compatible = "\(.*\)"$/\1/p' "$configuration")

fail() {
	echo "$0: $*" >&2
	exit 1
}
[ -n "$compatible" ] || fail "$configuration does not say what device it is for (compatible = \"NAME\")"
[ -n "$version" ] || fail "which version is this? Set UPDATERD_IMAGE_VERSION, or --version=VERSION in BR2_ROOTFS_POST_SCRIPT_ARGS"
# Its default is the time, and that stands still in reproducible builds.
[ -n "$sequence" ] || fail "which number does this release have? Devices install nothing that has a lower one than they have. Set UPDATERD_IMAGE_SEQUENCE, or --sequence=NUMBER in BR2_ROOTFS_POST_SCRIPT_ARGS"

out=$images/$compatible-$version.upb
set -- --compatible "$compatible" --version "$version" --sequence "$sequence" --image "rootfs=$images/rootfs.ext4" -o "$out"
if [ -n "${UPDATERD_KEY:-}" ]; then
	set -- "$@" --key "$UPDATERD_KEY"
else
	set -- "$@" --unsigned
fi
if [ -n "${UPDATERD_RELEASES:-}" ]; then
	[ -d "$UPDATERD_RELEASES" ] || fail "UPDATERD_RELEASES is \"$UPDATERD_RELEASES\", which is no directory"
	set -- "$@" --keyring "$keyring"
	for old in "$UPDATERD_RELEASES"/*.upb; do
		[ -e "$old" ] && set -- "$@" --delta-from "rootfs=$old"
	done
fi
updater-bundle create "$@"
if [ -n "${UPDATERD_KEY:-}" ]; then
	# With the keys in the image, so that a wrong one is seen here and not in the field.
	updater-bundle verify --keyring "$keyring" "$out"
else
	echo "$0: UPDATERD_KEY is not set, so $out is not signed and no device accepts it; next: updater-bundle sign"
fi

# Both copies of the environment, with a canary: it need not be proven by a reboot.
{
	"$tree/package/updaterd/environment" "$tree/board/qemu-aarch64/updaterd.env" "$board/board.env"
	echo env_id=factory
} | mkenvimage -r -p 0 -s 0x4000 -o "$images/uboot-env.bin" -

rm -f "$images/data.ext4"
E2FSPROGS_FAKE_TIME=${SOURCE_DATE_EPOCH:-$(date +%s)} mkfs.ext4 -q -L data -m 0 -U 5f1c7d2e-6e0b-4d57-9c55-0d0e2c6a4b1d \
	-E hash_seed=5f1c7d2e-6e0b-4d57-9c55-0d0e2c6a4b2d,lazy_itable_init=1 "$images/data.ext4" 120M

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
genimage --loglevel 1 --rootpath "$work/root" --tmppath "$work/tmp" --inputpath "$images" --outputpath "$images" \
	--config "$board/genimage.cfg"
