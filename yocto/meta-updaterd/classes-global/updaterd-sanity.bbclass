# SPDX-License-Identifier: Apache-2.0
#
# Tells who has added the layer, but not switched it on, why nothing happens.
# UPDATERD_SANITY_CHECK = "0" silences it, for a build of the host's tools alone.

UPDATERD_SANITY_CHECK ?= "1"

addhandler updaterd_sanity
updaterd_sanity[eventmask] = "bb.event.SanityCheck"
python updaterd_sanity() {
    if not bb.utils.to_boolean(e.data.getVar('UPDATERD_SANITY_CHECK')):
        return
    if not bb.utils.contains('DISTRO_FEATURES', 'updaterd', True, False, e.data):
        bb.warn('The layer meta-updaterd is in bblayers.conf, but "updaterd" is not in DISTRO_FEATURES, '
                'so the layer changes nothing. Add DISTRO_FEATURES:append = " updaterd", '
                'or set UPDATERD_SANITY_CHECK = "0" if that is what you want.')
}
