# SPDX-License-Identifier: Apache-2.0

SUMMARY = "Makes and signs the bundles that updaterd installs"
DESCRIPTION = "updater-bundle, updater-sign, and sigstore-kms-pkcs11 for keys in tokens."

require updaterd-release.inc
require updaterd-tools-licenses.inc

inherit native

do_compile() {
    oe_runmake -C ${S} tools TOOLS=${B}/bin
}

do_install() {
    oe_runmake -C ${S} install-tools TOOLS=${B}/bin DESTDIR=${D} PREFIX=${prefix}
}
