# SPDX-License-Identifier: Apache-2.0

SUMMARY = "Configuration and keyring of updaterd"
DESCRIPTION = "What the product decides: updaterd.toml, and the public keys that \
may sign bundles. Put your own updaterd.toml before this one by a bbappend, name \
the keys in UPDATERD_KEYRING, or provide virtual-updaterd-conf by another recipe."
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

inherit features_check

REQUIRED_DISTRO_FEATURES = "updaterd"

# Into S, which has no one name in all series.
SRC_URI = "\
    file://updaterd.toml;subdir=${BP} \
    file://example.pub;subdir=${BP} \
"

UPDATERD_COMPATIBLE ?= "${MACHINE}"
# Public keys, certificates of authorities and revocation lists, as absolute paths.
UPDATERD_KEYRING ?= ""
# A policy that says which key is believed for what, as an absolute path.
UPDATERD_POLICY ?= ""

INHIBIT_DEFAULT_DEPS = "1"
PACKAGE_ARCH = "${MACHINE_ARCH}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

# Another key under the same name is another keyring.
do_install[file-checksums] += "${@' '.join('%s:%s' % (f, os.path.exists(f)) for f in d.getVar('UPDATERD_KEYRING').split() + d.getVar('UPDATERD_POLICY').split())}"

do_install() {
    compatible=$(echo ${UPDATERD_COMPATIBLE})
    case $compatible in
    '' | *' '*)
        bbfatal "UPDATERD_COMPATIBLE is \"$compatible\", and a device has one name. Set that for the machine; the recipe of an image may name more kinds of devices for its bundle." ;;
    esac
    install -d -m 0755 ${D}${sysconfdir}/updaterd ${D}${sysconfdir}/updaterd/keys
    sed "s|@UPDATERD_COMPATIBLE@|$compatible|" ${S}/updaterd.toml > ${D}${sysconfdir}/updaterd/updaterd.toml
    chmod 0644 ${D}${sysconfdir}/updaterd/updaterd.toml
    for key in ${UPDATERD_KEYRING}; do
        if [ ! -f "$key" ]; then
            bbfatal "UPDATERD_KEYRING names $key, which is not there. Name the public keys as absolute paths (updater-sign public --key KEY -o FILE writes one)."
        fi
        if grep -q 'PRIVATE KEY' "$key"; then
            bbfatal "UPDATERD_KEYRING names $key, which is a private key and must not get into an image. Name its public half (updater-sign public --key $key -o FILE)."
        fi
        case $key in
        *.pem | *.pub | *.crt | *.crl | *.tlog) ;;
        *) bbfatal "UPDATERD_KEYRING names $key, which the device would not read: it wants keys as *.pem or *.pub, certificates as *.crt, revocation lists as *.crl and keys of logs as *.tlog. Rename it." ;;
        esac
        if [ -e "${D}${sysconfdir}/updaterd/keys/$(basename "$key")" ]; then
            bbfatal "UPDATERD_KEYRING names $key and another file of that name, of which the keyring would have one. Rename it."
        fi
        install -m 0644 "$key" ${D}${sysconfdir}/updaterd/keys/
    done
    if [ -z "${UPDATERD_KEYRING}" ]; then
        bbwarn "the keyring of the image holds the example key, whose private half nobody has: the device will refuse every bundle. Set UPDATERD_KEYRING to the public keys that may sign."
        install -m 0644 ${S}/example.pub ${D}${sysconfdir}/updaterd/keys/
    fi
    if [ -n "${UPDATERD_POLICY}" ]; then
        if [ ! -f "${UPDATERD_POLICY}" ]; then
            bbfatal "UPDATERD_POLICY is ${UPDATERD_POLICY}, which is not there. Name the policy by its absolute path."
        fi
        install -m 0644 ${UPDATERD_POLICY} ${D}${sysconfdir}/updaterd/policy.toml
        grep -q '^policy *=' ${D}${sysconfdir}/updaterd/updaterd.toml ||
            sed -i '1i policy = "${sysconfdir}/updaterd/policy.toml"' ${D}${sysconfdir}/updaterd/updaterd.toml
    fi
}

CONFFILES:${PN} = "${sysconfdir}/updaterd/updaterd.toml"
RPROVIDES:${PN} = "virtual-updaterd-conf"
