# SPDX-License-Identifier: Apache-2.0

SUMMARY = "A key for trying things out"
DESCRIPTION = "Made once, in the build directory, where do_clean does not get at it: \
devices that were built with it trust no other. If it is lost: \
bitbake -f -c make_key updaterd-dev-key"
LICENSE = "Apache-2.0"

inherit features_check nopackages

REQUIRED_DISTRO_FEATURES = "updaterd"

INHIBIT_DEFAULT_DEPS = "1"
EXCLUDE_FROM_WORLD = "1"

deltask do_fetch
deltask do_unpack
deltask do_patch
deltask do_configure
deltask do_compile
deltask do_install
deltask do_populate_lic
deltask do_populate_sysroot

do_make_key() {
    if [ ! -f ${UPDATERD_DEV_KEYS}/release.key ] || [ ! -f ${UPDATERD_DEV_KEYS}/release.pub ]; then
        install -d -m 0700 ${UPDATERD_DEV_KEYS}
        rm -f ${UPDATERD_DEV_KEYS}/release.key ${UPDATERD_DEV_KEYS}/release.pub
        updater-sign keygen -o ${UPDATERD_DEV_KEYS}/release
    fi
}
# Builds for several machines at once (multiconfig) share the key, but not TMPDIR.
do_make_key[lockfiles] = "${UPDATERD_DEV_KEYS}.lock"
do_make_key[depends] += "updaterd-tools-native:do_populate_sysroot"
addtask make_key before do_build
