# SPDX-License-Identifier: Apache-2.0

# The keyring is there only when the key is.
do_install[depends] += "${@'updaterd-dev-key:do_make_key' if d.getVar('MACHINE') == 'qemuarm64-updaterd' else ''}"
