# SPDX-License-Identifier: Apache-2.0

FILESEXTRAPATHS:prepend:qemuarm64-updaterd := "${THISDIR}/files:"
SRC_URI:append:qemuarm64-updaterd = " file://updaterd-qemu.cfg"
