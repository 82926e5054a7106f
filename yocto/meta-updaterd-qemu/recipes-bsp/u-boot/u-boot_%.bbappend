# SPDX-License-Identifier: Apache-2.0

# The card hangs on PCI, which must be there before the environment is loaded. Newer
# releases have an option, which this board sets.
EXTRA_OEMAKE:append:qemuarm64-updaterd = " KCFLAGS=-DCONFIG_SYS_EARLY_PCI_INIT"

# OE-core's kernel has the drivers built in, so there is no initramfs.
UPDATERD_UBOOT_ENV_SET:qemuarm64-updaterd = "boot_initrd="
