# SPDX-License-Identifier: Apache-2.0
#
# Turns an image recipe into a signed bundle, beside the image in DEPLOY_DIR_IMAGE:
#
#     inherit core-image updaterd-bundle
#     UPDATERD_KEY = "/path/to/release.key"
#     UPDATERD_VERSION = "2.0"
#     UPDATERD_SEQUENCE = "7"
#     UPDATERD_DELTA_FROM = "/path/to/releases/*.upb"
#
# The same image, options and time give the same bytes, the signature apart.

# --- What there is to decide -------------------------------------------------

# What kind of device this is for; the same goes into updaterd-conf.
UPDATERD_COMPATIBLE ??= "${MACHINE}"
# A label for people, and the number that orders releases: each must have a higher one.
UPDATERD_VERSION ??= "${DISTRO_VERSION}"
UPDATERD_SEQUENCE ??= ""
# Seconds since 1970: the time of the release, such as that of its commit.
UPDATERD_CREATED ??= "${REPRODUCIBLE_TIMESTAMP_ROOTFS}"

# Where the keys live that sign: absolute paths, or URIs of tokens and key services
# (docs/signing.md). Blanks separate them; a URI with a blank writes it as %20.
UPDATERD_KEY ??= ""
# A file whose first line is the passphrase of the keys, or the PIN of the token.
UPDATERD_KEY_PASSPHRASE_FILE ??= ""
# Names of variables to hand to what signs, such as VAULT_TOKEN; they must be let
# in by BB_ENV_PASSTHROUGH_ADDITIONS, and never count as a change.
UPDATERD_KEY_ENV ??= ""
# "1": leave the bundle unsigned, for another machine to sign.
UPDATERD_UNSIGNED ??= "0"

# What the device believes, as updaterd-conf puts it into the image; what is signed with
# another key stops the build.
UPDATERD_KEYRING ??= ""
UPDATERD_POLICY ??= ""

# Earlier deployments to make deltas from: absolute paths of images or bundles, which
# may be patterns, each with "CLASS=" before it unless it is for rootfs. Not below
# DEPLOY_DIR: what this made there before is removed before it runs.
UPDATERD_DELTA_FROM ??= ""
# A directory of public keys, if an earlier bundle was signed with others than now.
UPDATERD_DELTA_KEYRING ??= ""

# The images: CLASS=FILE. The type must be raw: not compressed.
UPDATERD_FSTYPE ??= "ext4"
UPDATERD_IMAGES ??= "rootfs=${DEPLOY_DIR_IMAGE}/${IMAGE_LINK_NAME}.${UPDATERD_FSTYPE}"
# More options of "updater-bundle create", such as "--blocks --channel stable".
UPDATERD_BUNDLE_ARGS ??= ""

UPDATERD_BUNDLE_NAME ??= "${IMAGE_LINK_NAME}-${UPDATERD_VERSION}"

# The device of the partition for data, which is mounted on /data; "": somebody else mounts it.
# Without systemd it has the kernel's name, such as /dev/mmcblk0p3.
UPDATERD_DATA_DEVICE ??= "/dev/disk/by-partlabel/data"

# For the layouts of disks (files/wic/updaterd-ab*.wks.in): the sizes, and where the copies
# of U-Boot's environment are.
UPDATERD_SLOT_SIZE ??= "512M"
UPDATERD_DATA_SIZE ??= "256M"
UPDATERD_ENV_OFFSET ??= "1024K"
UPDATERD_ENV_OFFSET_REDUND ??= "1056K"

# --- The image ---------------------------------------------------------------

IMAGE_FEATURES += "updaterd"
IMAGE_FSTYPES:append = " ${UPDATERD_FSTYPE}"
# A disk for the factory is made from the same image. Layouts lie in files/wic, which
# scarthgap does not look into by itself, and later series refuse to find in wic.
IMAGE_TYPEDEP:wic:append = " ${UPDATERD_FSTYPE}"
WKS_SEARCH_PATH:append = ":${@':'.join(p + '/files/wic' for p in d.getVar('BBPATH').split(':'))}"

# Slots are compared, and deltas made, in blocks of 4096 bytes.
IMAGE_ROOTFS_ALIGNMENT = "4"
# Nothing of an ext4 is random: what did not change has the same bytes in the next
# release. A slot is mounted read-only, so a journal would only cost room.
UPDATERD_EXT4_UUID ??= "d8b33ec8-a4f3-4c8f-93d5-9a7c5a1d1a3e"
EXTRA_IMAGECMD:ext4 = "-i 4096 -b 4096 -O ^has_journal -U ${UPDATERD_EXT4_UUID} -E hash_seed=${UPDATERD_EXT4_UUID},lazy_itable_init=0"
# OE-core from blacksail on has a seed and a time of its own: it appends "-E hash_seed=" with
# this, which takes the place of the option above, and the times are set below.
REPRODUCIBLE_EXT234_HASH_SEED = "${UPDATERD_EXT4_UUID},lazy_itable_init=0"
# What mke2fs and e2fsck take for now.
export E2FSPROGS_FAKE_TIME = "${UPDATERD_CREATED}"
export E2FSCK_TIME = "${UPDATERD_CREATED}"

# mke2fs before 1.47.1 (scarthgap) copies into the inodes when the build made, and last
# read, each file. Then no two builds are the same, and each delta carries the difference.
updaterd_inode_times() {
    printf 'set_super_value %s @${UPDATERD_CREATED}\n' mkfs_time lastcheck > ${T}/inode-times
    (cd ${IMAGE_ROOTFS} && find . -printf '%P\n') | LC_ALL=C sort | sed 's/"/""/g' | while IFS= read -r path; do
        for field in atime ctime crtime; do
            echo "set_inode_field \"/$path\" $field @${UPDATERD_CREATED}"
            echo "set_inode_field \"/$path\" ${field}_extra 0"
        done
    done >> ${T}/inode-times
    # The time of the last write is what debugfs takes for now.
    E2FSPROGS_FAKE_TIME=${UPDATERD_CREATED} debugfs -w -f ${T}/inode-times ${IMGDEPLOYDIR}/${IMAGE_NAME}.ext4 > ${T}/inode-times.log 2>&1
    if grep -E '^set_(inode_field|super_value):' ${T}/inode-times.log; then
        bbfatal_log "debugfs cannot set the times in ${IMAGE_NAME}.ext4; see above."
    fi
}
do_image_ext4[postfuncs] += "updaterd_inode_times"

# The bootloader deploys updaterd-env.bin, which a layout may want.
do_image_wic[depends] += "${@'virtual/bootloader:do_deploy' if d.getVar('UPDATERD_UBOOT') == '1' else ''}"

ROOTFS_POSTPROCESS_COMMAND += "updaterd_read_only updaterd_release updaterd_data"

updaterd_read_only() {
    if ${@bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', 'false', 'true', d)}; then
        bbwarn "${PN}: a slot that is mounted for writing is soon not the image that deltas are made from, and has no journal to survive a power cut. Add IMAGE_FEATURES += \"read-only-rootfs\"."
    fi
}

# A device finds out which release its factory slot holds, and so which delta fits,
# by the build id.
updaterd_release() {
    found=no
    for file in ${IMAGE_ROOTFS}${nonarch_libdir}/os-release ${IMAGE_ROOTFS}${sysconfdir}/os-release; do
        if [ -f "$file" ] && [ ! -L "$file" ]; then
            sed -i -e '/^BUILD_ID=/d' -e '/^IMAGE_VERSION=/d' "$file"
            echo 'IMAGE_VERSION="${UPDATERD_VERSION}"' >> "$file"
            echo 'BUILD_ID="${IMAGE_BASENAME}-${UPDATERD_VERSION}-${UPDATERD_SEQUENCE}"' >> "$file"
            found=yes
        fi
    done
    if [ $found = no ]; then
        bbwarn "${PN}: there is no os-release in the image, so it has no build id, and a device from the factory takes no delta. Install the package os-release."
    fi
}

def updaterd_systemd(d):
    """Tells whether systemd starts the image, and so reads its fstab."""
    manager = d.getVar('VIRTUAL-RUNTIME_init_manager')
    if manager:
        return manager == 'systemd'
    return bb.utils.contains('DISTRO_FEATURES', 'systemd', True, False, d)

# With nofail, systemd starts without /data if it must. BusyBox without CONFIG_DESKTOP, as
# OE-core has it, hands that to the kernel, which then refuses to mount.
updaterd_data() {
    if [ -n "${UPDATERD_DATA_DEVICE}" ]; then
        install -d -m 0755 ${IMAGE_ROOTFS}/data
        if ! grep -qs '[[:space:]]/data[[:space:]]' ${IMAGE_ROOTFS}${sysconfdir}/fstab; then
            echo '${UPDATERD_DATA_DEVICE} /data ext4 rw,nosuid,nodev,noatime${@',nofail' if updaterd_systemd(d) else ''} 0 2' >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
        fi
    fi
}

# --- The bundle --------------------------------------------------------------

def updaterd_key_files(d):
    """Returns the keys that are files, and the file with the passphrase."""
    keys = [k for k in (d.getVar('UPDATERD_KEY') or '').split() if k.startswith('/')]
    return keys + (d.getVar('UPDATERD_KEY_PASSPHRASE_FILE') or '').split()

def updaterd_sources(d):
    """Returns (class, path or pattern) of each earlier deployment."""
    sources = []
    for source in (d.getVar('UPDATERD_DELTA_FROM') or '').split():
        name, equals, path = source.partition('=')
        if not equals or '/' in name:
            name, path = 'rootfs', source
        sources.append((name, path))
    return sources

def updaterd_checksums(d):
    """What is not made by a task, but makes another bundle when it changes."""
    import re

    # Of patterns, BitBake knows * alone here: more files than meant do no harm.
    paths = updaterd_key_files(d) + [re.sub(r'\?|\[[^]/]*\]', '*', path) for _, path in updaterd_sources(d)]
    for name in ('UPDATERD_DELTA_KEYRING', 'UPDATERD_KEYRING', 'UPDATERD_POLICY'):
        paths += (d.getVar(name) or '').split()
    return ' '.join('%s:%s' % (p, '*' in p or os.path.exists(p)) for p in paths)

def updaterd_place(pattern):
    """Returns the directory that what a pattern matches lies in, or the path that is none."""
    import glob

    while glob.has_magic(pattern):
        pattern = os.path.dirname(pattern)
    return pattern

def updaterd_wrong(d):
    """Returns what can be said before hours of building, or nothing."""
    device = d.getVar('UPDATERD_DATA_DEVICE') or ''
    if device.startswith('/dev/disk/') and not updaterd_systemd(d):
        return ('UPDATERD_DATA_DEVICE is "%s", but without systemd /data is mounted before udev makes the links in '
                '/dev/disk. Name the device as the kernel does, such as UPDATERD_DATA_DEVICE = "/dev/mmcblk0p3", or set '
                'it to "" and mount /data yourself.' % device)
    deploy = os.path.realpath(d.getVar('DEPLOY_DIR'))
    for _, pattern in updaterd_sources(d):
        if (os.path.realpath(updaterd_place(pattern)) + '/').startswith(deploy + '/'):
            return ('UPDATERD_DELTA_FROM names %s, but what an earlier build left in %s is removed before the next bundle is '
                    'made, so there would be no delta. Keep each release elsewhere: copy its .upb to a directory such as '
                    '/releases, and name that.' % (pattern, deploy))

python do_updaterd_bundle() {
    import glob, shutil, subprocess

    def fail(text):
        bb.fatal('%s: %s' % (d.getVar('PN'), text))

    keys = (d.getVar('UPDATERD_KEY') or '').split()
    unsigned = bb.utils.to_boolean(d.getVar('UPDATERD_UNSIGNED'))
    if not keys and not unsigned:
        fail('UPDATERD_KEY is not set, so there is nothing to sign the bundle with. Set it to the absolute path of a '
             'private key ("updater-sign keygen" makes one), to the URI of one, or set UPDATERD_UNSIGNED = "1".')
    for key in keys:
        if not key.startswith('/') and ':' not in key:
            fail('UPDATERD_KEY is "%s", which is neither an absolute path nor a URI.' % key)
    for path in updaterd_key_files(d):
        if not os.path.isfile(path):
            fail('%s is not there; UPDATERD_KEY and UPDATERD_KEY_PASSPHRASE_FILE name it.' % path)
    sequence = d.getVar('UPDATERD_SEQUENCE') or ''
    if not sequence.isdigit():
        fail('UPDATERD_SEQUENCE is "%s". Set it to a whole number that is higher with each release, such as the number '
             'of the build: a device installs no release with a lower one.' % sequence)

    args = ['updater-bundle', 'create', '--version', d.getVar('UPDATERD_VERSION'),
            '--sequence', sequence, '--created', d.getVar('UPDATERD_CREATED')]
    for name in d.getVar('UPDATERD_COMPATIBLE').split():
        args += ['--compatible', name]
    for image in d.getVar('UPDATERD_IMAGES').split():
        if not os.path.isfile(image.partition('=')[2]):
            fail('UPDATERD_IMAGES names %s, which is not there. Let do_updaterd_bundle[depends] name the task that '
                 'makes it.' % image)
        args += ['--image', image]
    for name, pattern in updaterd_sources(d):
        if not pattern.startswith('/'):
            fail('UPDATERD_DELTA_FROM names %s, which is not an absolute path.' % pattern)
        # An empty directory of releases is how the first one begins, a misspelt one is not.
        place = updaterd_place(pattern)
        if not os.path.exists(place):
            fail('UPDATERD_DELTA_FROM names %s, but %s is not there. Make it, or correct the path.' % (pattern, place))
        for path in sorted(glob.glob(pattern)):
            args += ['--delta-from', '%s=%s' % (name, path)]
    keyring = d.getVar('UPDATERD_DELTA_KEYRING')
    if keyring:
        args += ['--keyring', keyring]
    passphrase = d.getVar('UPDATERD_KEY_PASSPHRASE_FILE')
    if passphrase:
        args += ['--passphrase-file', passphrase]
    if unsigned:
        args += ['--unsigned']
    else:
        for key in keys:
            args += ['--key', key]
    args += (d.getVar('UPDATERD_BUNDLE_ARGS') or '').split()
    deploy = d.getVar('UPDATERD_DEPLOYDIR')
    name = d.getVar('UPDATERD_BUNDLE_NAME') + '.upb'
    bundle = os.path.join(deploy, name)
    args += ['-o', bundle]

    env = dict(os.environ, PATH=d.getVar('PATH'), TMPDIR=d.getVar('T'))
    for variable in (d.getVar('UPDATERD_KEY_ENV') or '').split():
        value = d.getVar(variable)
        if value is None:
            fail('UPDATERD_KEY_ENV names %s, which is not set; BB_ENV_PASSTHROUGH_ADDITIONS lets it in.' % variable)
        env[variable] = value

    def run(args):
        bb.note(' '.join(args))
        return subprocess.run(args, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    done = run(args)
    if done.returncode != 0:
        fail('"%s" failed:\n%s' % (' '.join(args), done.stdout))
    bb.plain(done.stdout.strip())

    # With the keys in the image, so that a wrong one is seen here and not in the field.
    believed = (d.getVar('UPDATERD_KEYRING') or '').split()
    if believed and not unsigned:
        keyring = os.path.join(d.getVar('T'), 'updaterd-keyring')
        shutil.rmtree(keyring, ignore_errors=True)
        os.mkdir(keyring)
        for path in believed:
            if not os.path.isfile(path):
                fail('UPDATERD_KEYRING names %s, which is not there.' % path)
            shutil.copy(path, keyring)
        # Not "verify", which could not read an encrypted one.
        check = ['updater-bundle', 'info', '--keyring', keyring]
        done = run(check + [bundle])
        if done.returncode != 0:
            fail('no device with this image would install the bundle: what UPDATERD_KEY names (%s) is not what '
                 'UPDATERD_KEYRING has it believe (%s). Put the public half of the key that signs into UPDATERD_KEYRING, '
                 'or sign with another one.\n%s' % (' '.join(keys), ' '.join(believed), done.stdout))
        # A policy may ask for what comes later: one more signature, an entry in a log.
        policy = d.getVar('UPDATERD_POLICY')
        if policy:
            done = run(check + ['--policy', policy, bundle])
            if done.returncode != 0:
                bb.warn('%s: the policy of the image (%s) does not let it install the bundle as it is now:\n%s' %
                        (d.getVar('PN'), policy, done.stdout))

    link = os.path.join(deploy, d.getVar('IMAGE_LINK_NAME') + '.upb')
    if os.path.basename(link) != name:
        os.symlink(name, link)
}
# Variables that it reads under names that are not written out in it.
do_updaterd_bundle[vardeps] += "UPDATERD_IMAGES UPDATERD_VERSION UPDATERD_CREATED UPDATERD_COMPATIBLE UPDATERD_BUNDLE_NAME IMAGE_LINK_NAME"
do_updaterd_bundle[vardepsexclude] += "DATETIME ${UPDATERD_KEY_ENV}"
do_updaterd_bundle[file-checksums] += "${@updaterd_checksums(d)}"
do_updaterd_bundle[depends] += "updaterd-tools-native:do_populate_sysroot"
do_updaterd_bundle[cleandirs] = "${UPDATERD_DEPLOYDIR}"
do_updaterd_bundle[dirs] = "${UPDATERD_DEPLOYDIR}"

UPDATERD_DEPLOYDIR = "${WORKDIR}/deploy-${PN}-updaterd-bundle"

SSTATETASKS += "do_updaterd_bundle"
# Like the image, it is large, made anew in no time, and not to be signed by who may read a cache.
SSTATE_SKIP_CREATION:task-updaterd-bundle = "1"
do_updaterd_bundle[sstate-inputdirs] = "${UPDATERD_DEPLOYDIR}"
do_updaterd_bundle[sstate-outputdirs] = "${DEPLOY_DIR_IMAGE}"
do_updaterd_bundle[stamp-extra-info] = "${MACHINE_ARCH}"

python do_updaterd_bundle_setscene() {
    sstate_setscene(d)
}
addtask do_updaterd_bundle_setscene
addtask do_updaterd_bundle after do_image_complete before do_build

python() {
    wrong = updaterd_wrong(d)
    if wrong:
        raise bb.parse.SkipRecipe(wrong)
    # A service that holds the key is asked over the network; nothing else here needs one.
    if any('://' in key for key in (d.getVar('UPDATERD_KEY') or '').split()) and \
            not bb.utils.to_boolean(d.getVar('UPDATERD_UNSIGNED')):
        d.setVarFlag('do_updaterd_bundle', 'network', '1')
}
