# SPDX-License-Identifier: Apache-2.0

# The keyring is there only when the key is.
do_install[depends] += "${@'updaterd-dev-key:do_make_key' if d.getVar('MACHINE') == 'qemuarm64-updaterd' else ''}"

# A key that is not there yet does not count for the task's hash, so a shared cache would
# hand out the keyring of another build directory, with its key.
SSTATE_SKIP_CREATION:qemuarm64-updaterd = "1"
