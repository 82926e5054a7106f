# SPDX-License-Identifier: Apache-2.0

SUMMARY = "A/B updates that never leave a device unbootable"
DESCRIPTION = "Installs signed bundles into the other of two slots, over links \
that may die at any byte, tries the new system, and falls back if it does not \
prove itself. One static binary is the daemon and its command-line tools."

require updaterd-release.inc
require updaterd-licenses.inc

inherit bash-completion features_check systemd update-rc.d

REQUIRED_DISTRO_FEATURES = "updaterd"

do_compile() {
    oe_runmake -C ${S} device ARCH=${TARGET_GOARCH} OUT=${B}/updaterd
}

UPDATERD_INIT = "${@bb.utils.filter('DISTRO_FEATURES', 'systemd sysvinit', d) or 'none'}"

do_install() {
    oe_runmake -C ${S} install DESTDIR=${D} BINARY=${B}/updaterd INIT='${UPDATERD_INIT}' \
        PREFIX=${prefix} SYSCONFDIR=${sysconfdir} UNITDIR=${systemd_system_unitdir} INITDIR=${INIT_D_DIR}
}

SYSTEMD_SERVICE:${PN} = "updaterd.service"

INITSCRIPT_NAME = "updaterd"
# It stops before what it judges does: a trial must not take a shutdown for a failure.
INITSCRIPT_PARAMS = "start 80 2 3 4 5 . stop 01 0 1 6 ."

# The interface's description is for those who generate code from it.
FILES:${PN} += "${systemd_system_unitdir} ${datadir}/dbus-1/system.d ${datadir}/dbus-1/system-services ${datadir}/polkit-1"
FILES:${PN}-dev = "${datadir}/dbus-1/interfaces"
FILES:${PN}-staticdev = ""

# A system that has not been updated is known by the build id in os-release.
RDEPENDS:${PN} = "dbus os-release"
# The configuration is the product's: see updaterd-conf.
RRECOMMENDS:${PN} = "virtual-updaterd-conf u-boot-default-env ca-certificates \
    ${@bb.utils.contains('DISTRO_FEATURES', 'polkit', 'polkit', '', d)}"
