# SPDX-License-Identifier: Apache-2.0

SUMMARY = "A small image for the example board, and the bundle that updates to it"
LICENSE = "Apache-2.0"

inherit core-image updaterd-bundle features_check

REQUIRED_DISTRO_FEATURES = "updaterd"
COMPATIBLE_MACHINE = "^qemuarm64-updaterd$"

# A slot is never written but by an update.
IMAGE_FEATURES += "read-only-rootfs empty-root-password allow-empty-password"

UPDATERD_VERSION ?= "1.0"
UPDATERD_SEQUENCE ?= "1"
UPDATERD_SLOT_SIZE = "384M"
UPDATERD_DATA_SIZE = "192M"
IMAGE_ROOTFS_MAXSIZE = "393216"

# A key of this build alone; a product has its own, made elsewhere.
UPDATERD_KEY ?= "${UPDATERD_DEV_KEYS}/release.key"
do_updaterd_bundle[depends] += "updaterd-dev-key:do_make_key"

# QEMU's SD card wants a size that is a power of two.
updaterd_round_card() {
    truncate -s 1G ${IMGDEPLOYDIR}/${IMAGE_NAME}.wic
}
do_image_wic[postfuncs] += "updaterd_round_card"
