# SPDX-License-Identifier: Apache-2.0
#
# Nothing at all unless a machine asks for it: UPDATERD_UBOOT = "1".
require ${@'u-boot-updaterd.inc' if bb.utils.contains('DISTRO_FEATURES', 'updaterd', True, False, d) and d.getVar('UPDATERD_UBOOT') == '1' else ''}
