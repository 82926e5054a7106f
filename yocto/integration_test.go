// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestParse: BitBake understands the layers, beside all of OE-core.
func TestParse(t *testing.T) {
	all := checkouts(t)
	s := theSite(t)
	for _, c := range all {
		t.Run(c.series, func(t *testing.T) {
			b := s.newBuild(t, c, "parse-"+c.series, layerDirs, false)
			said := b.must(t, "bitbake", "-p")
			for line := range strings.Lines(said) {
				if strings.HasPrefix(line, "WARNING:") || strings.HasPrefix(line, "ERROR:") {
					t.Errorf("%s: %s", c.series, line)
				}
			}
		})
	}
}

// wantPackages are the files of each package, on a device with systemd.
var wantPackages = map[string][]string{
	"updaterd": {
		"/usr/bin/updater-bootctl", "/usr/bin/updaterctl", "/usr/bin/updaterd",
		"/usr/lib/systemd/system-preset/98-updaterd.preset", "/usr/lib/systemd/system/emergency.target.wants/updaterd-trial.service",
		"/usr/lib/systemd/system/sysinit.target.wants/updaterd-trial.service", "/usr/lib/systemd/system/updaterd-trial.service", "/usr/lib/systemd/system/updaterd.service",
		"/usr/share/dbus-1/system-services/org.updaterd.Updater1.service", "/usr/share/dbus-1/system.d/org.updaterd.Updater1.conf",
		"/usr/share/polkit-1/actions/org.updaterd.policy",
	},
	"updaterd-bash-completion": {
		"/usr/share/bash-completion/completions/updater-bootctl", "/usr/share/bash-completion/completions/updaterctl",
		"/usr/share/bash-completion/completions/updaterd",
	},
	"updaterd-dev": {"/usr/share/dbus-1/interfaces/org.updaterd.Updater1.xml"},
	"updaterd-doc": {"/usr/share/man/man1/updaterctl.1", "/usr/share/man/man8/updater-bootctl.8", "/usr/share/man/man8/updaterd.8"},
}

// TestRecipes: what is fetched, compiled, installed and packaged for a device,
// with OE-core's own checks of packages.
func TestRecipes(t *testing.T) {
	all := checkouts(t)
	s := theSite(t)
	for _, c := range all {
		t.Run(c.series, func(t *testing.T) {
			b := s.newBuild(t, c, "short-"+c.series, layerDirs, true, `INIT_MANAGER = "systemd"`)
			b.must(t, "bitbake", "-c", "clean", "updaterd-conf") // or an earlier run has warned
			said := b.must(t, "bitbake", "--no-setscene", "-c", "package_qa", "updaterd", "updaterd-conf")
			if !strings.Contains(said, "the example key") {
				t.Error("nothing warns of the example key in the keyring")
			}
			if strings.Contains(said, "QA Issue") {
				t.Errorf("OE-core's checks complain:\n%s", said)
			}
			root := b.one(t, "tmp/work/*/updaterd/*/packages-split")
			for name, want := range wantPackages {
				if have := tree(t, filepath.Join(root, name)); !slices.Equal(have, want) {
					t.Errorf("package %s has\n%s\nwant\n%s", name, strings.Join(have, "\n"), strings.Join(want, "\n"))
				}
			}
			entries, err := os.ReadDir(root)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if _, ok := wantPackages[e.Name()]; !ok && len(tree(t, filepath.Join(root, e.Name()))) > 0 {
					t.Errorf("there is another package: %s", e.Name())
				}
			}
			binary, err := os.ReadFile(filepath.Join(root, "updaterd/usr/bin/updaterd"))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(binary, []byte("/lib/ld-linux")) || !bytes.Contains(binary, []byte(s.version)) {
				t.Error("the device binary is not static, or does not know its version")
			}
			conf := b.one(t, "tmp/work/*/updaterd-conf/*/packages-split")
			if have, want := tree(t, filepath.Join(conf, "updaterd-conf")), []string{"/etc/updaterd/keys/example.pub", "/etc/updaterd/updaterd.toml"}; !slices.Equal(have, want) {
				t.Errorf("package updaterd-conf has %q; want %q", have, want)
			}
			text, err := os.ReadFile(filepath.Join(conf, "updaterd-conf/etc/updaterd/updaterd.toml"))
			if err != nil || !strings.Contains(string(text), `compatible = "qemuarm64"`) {
				t.Errorf("updaterd.toml: %v\n%s", err, text)
			}
		})
	}
}

// TestSysvinit: a device without systemd gets the init script, and nothing that
// names the unit.
func TestSysvinit(t *testing.T) {
	c := checkouts(t)[0]
	s := theSite(t)
	b := s.newBuild(t, c, "short-"+c.series, layerDirs, true, `INIT_MANAGER = "sysvinit"`)
	b.must(t, "bitbake", "--no-setscene", "-c", "package_qa", "updaterd")
	have := tree(t, filepath.Join(b.one(t, "tmp/work/*/updaterd/*/packages-split"), "updaterd"))
	want := slices.DeleteFunc(slices.Clone(wantPackages["updaterd"]), func(f string) bool {
		return strings.Contains(f, "systemd") || strings.Contains(f, "system-services")
	})
	want = append([]string{"/etc/init.d/updaterd"}, want...)
	if !slices.Equal(have, want) {
		t.Errorf("package updaterd has\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// tree lists all files and links below a directory.
func tree(t *testing.T, root string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, root))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// testImage stands for an image: OE-core cannot build one here. Its tasks are
// named as those of an image, and its ext4 is made by OE-core's own function.
const testImage = `# SPDX-License-Identifier: Apache-2.0
SUMMARY = "A small image"
LICENSE = "Apache-2.0"
INHIBIT_DEFAULT_DEPS = "1"

inherit image-artifact-names image_types nopackages updaterd-bundle

IMAGE_BASENAME = "${PN}"
IMAGE_ROOTFS = "${WORKDIR}/rootfs"
IMGDEPLOYDIR = "${WORKDIR}/deploy-${PN}-image-complete"
PACKAGE_ARCH = "${MACHINE_ARCH}"
deltask do_fetch
deltask do_unpack
deltask do_patch
deltask do_configure
deltask do_compile
deltask do_install
deltask do_populate_lic

do_rootfs[cleandirs] = "${IMAGE_ROOTFS} ${IMGDEPLOYDIR}"
do_rootfs() {
    mkdir -p ${IMAGE_ROOTFS}${nonarch_libdir} ${IMAGE_ROOTFS}${sysconfdir}
    printf 'ID=test\nNAME="Test"\nBUILD_ID="of OE-core"\n' > ${IMAGE_ROOTFS}${nonarch_libdir}/os-release
    ln -s ../usr/lib/os-release ${IMAGE_ROOTFS}${sysconfdir}/os-release
    # What stays, and what the release changes.
    for i in $(seq 40); do seq $i 20000 > ${IMAGE_ROOTFS}/stays-$i; done
    echo '${UPDATERD_VERSION}' > ${IMAGE_ROOTFS}/changes
    updaterd_release
    updaterd_data
    find ${IMAGE_ROOTFS} -exec touch -h -d @${UPDATERD_CREATED} {} +
}
addtask do_rootfs

fakeroot do_image() {
    ROOTFS_SIZE=16384
    oe_mkext234fs ext4 ${EXTRA_IMAGECMD:ext4}
    updaterd_inode_times
    ln -s ${IMAGE_NAME}.ext4 ${IMGDEPLOYDIR}/${IMAGE_LINK_NAME}.ext4
}
do_image[dirs] = "${IMGDEPLOYDIR}"
do_image[vardepsexclude] = "IMAGE_NAME DATETIME"
addtask do_image after do_rootfs

SSTATETASKS += "do_image_complete"
SSTATE_SKIP_CREATION:task-image-complete = "1"
do_image_complete[sstate-inputdirs] = "${IMGDEPLOYDIR}"
do_image_complete[sstate-outputdirs] = "${DEPLOY_DIR_IMAGE}"
do_image_complete() {
    :
}
addtask do_image_complete after do_image before do_build
`

// TestBundle: the class makes a bundle that verifies, with a delta from the one
// before it, the same bytes from the same input, and a plain error without a key.
func TestBundle(t *testing.T) {
	all := checkouts(t)
	s := theSite(t)
	s.write(t, "layers/meta-test/conf/layer.conf", `BBPATH .= ":${LAYERDIR}"
BBFILES += "${LAYERDIR}/*.bb"
BBFILE_COLLECTIONS += "updaterd-test"
BBFILE_PATTERN_updaterd-test = "^${LAYERDIR}/"
LAYERSERIES_COMPAT_updaterd-test = "scarthgap wrynose blacksail"
`, 0o644)
	s.write(t, "layers/meta-test/test-image.bb", testImage, 0o644)
	for _, c := range all {
		t.Run(c.series, func(t *testing.T) {
			name := "bundle-" + c.series
			settings := func(more ...string) []string {
				return append([]string{`INIT_MANAGER = "systemd"`, `UPDATERD_COMPATIBLE = "test-board"`, `UPDATERD_CREATED = "1750000000"`}, more...)
			}
			layers := append(slices.Clone(layerDirs), "meta-test")
			build := func(more ...string) *build { return s.newBuild(t, c, name, layers, true, settings(more...)...) }

			b := build(`UPDATERD_SEQUENCE = "1"`)
			b.must(t, "bitbake", "--no-setscene", "-c", "populate_sysroot", "updaterd-tools-native")
			tools := b.one(t, "tmp/sysroots-components/*/updaterd-tools-native/usr/bin")
			updater := filepath.Join(tools, "updater-bundle")
			if _, err := os.Stat(filepath.Join(tools, "sigstore-kms-pkcs11")); err != nil {
				t.Error(err)
			}

			if said, err := b.run(t, "bitbake", "--no-setscene", "-c", "updaterd_bundle", "test-image"); err == nil || !strings.Contains(said, "UPDATERD_KEY is not set") {
				t.Errorf("without a key: %v\n%s", err, said)
			}

			// Said at once, of this image alone.
			for setting, want := range map[string]string{
				`INIT_MANAGER = "sysvinit"`:                             "without systemd /data is mounted before udev makes the links",
				`UPDATERD_DELTA_FROM = "${DEPLOY_DIR_IMAGE}/test*.upb"`: "is removed before the next bundle is made",
			} {
				if said, err := build(setting).run(t, "bitbake", "-n", "test-image"); err == nil || !strings.Contains(said, want) {
					t.Errorf("with %s: %v\n%s\nwant %q", setting, err, said, want)
				}
			}

			keys := filepath.Join(b.dir, name, "keys")
			if err := os.RemoveAll(keys); err != nil {
				t.Fatal(err)
			}
			s.mkdir(t, name+"/keys/public")
			// Ed25519 signs the same with the same bytes.
			run(t, filepath.Join(tools, "updater-sign"), "keygen", "--algorithm", "ed25519", "-o", keys+"/release")
			for old, path := range map[string]string{"release.pub": "public/release.pub", "release.key": "release.key"} {
				data, err := os.ReadFile(filepath.Join(keys, old))
				if err != nil {
					t.Fatal(err)
				}
				s.write(t, name+"/keys/"+path, string(data), 0o600)
			}
			key := `UPDATERD_KEY = "` + keys + `/release.key"`

			// What the image believes, and another key than the one that signs.
			run(t, filepath.Join(tools, "updater-sign"), "keygen", "--algorithm", "ed25519", "-o", keys+"/other")
			run(t, "chmod", "a+r", keys+"/other.pub")
			b = build(key, `UPDATERD_VERSION = "1.0"`, `UPDATERD_SEQUENCE = "1"`, `UPDATERD_KEYRING = "`+keys+`/other.pub"`)
			if said, err := b.run(t, "bitbake", "--no-setscene", "-c", "updaterd_bundle", "test-image"); err == nil || !strings.Contains(said, "no device with this image would install the bundle") {
				t.Errorf("the image does not believe the key that signs, and the build goes on: %v\n%s", err, said)
			}
			key += "\nUPDATERD_KEYRING = \"" + keys + "/public/release.pub\""

			make1 := []string{key, `UPDATERD_VERSION = "1.0"`, `UPDATERD_SEQUENCE = "1"`}
			make2 := []string{key, `UPDATERD_VERSION = "2.0"`, `UPDATERD_SEQUENCE = "2"`, `UPDATERD_DELTA_FROM = "` + s.dir + "/" + name + `/releases/*.upb"`}
			b = build(make1...)
			b.must(t, "bitbake", "--no-setscene", "-c", "updaterd_bundle", "test-image")
			first := b.one(t, "tmp/deploy/images/*/test-image-*-1.0.upb")
			second := strings.TrimSuffix(first, "1.0.upb") + "2.0.upb"
			link := strings.TrimSuffix(first, "-1.0.upb") + ".upb"
			run(t, updater, "verify", "--keyring", keys+"/public", first)
			one := digest(t, first)
			checkExt4(t, b)

			// The same again, from nothing.
			b.must(t, "bitbake", "-c", "clean", "test-image")
			b.must(t, "bitbake", "--no-setscene", "-c", "updaterd_bundle", "test-image")
			if digest(t, first) != one {
				t.Errorf("%s is not the same when it is made again", first)
			}

			data, err := os.ReadFile(first)
			if err != nil {
				t.Fatal(err)
			}
			s.write(t, name+"/releases/1.0.upb", string(data), 0o644)
			b = build(make2...)
			b.must(t, "bitbake", "--no-setscene", "-c", "updaterd_bundle", "test-image")
			run(t, updater, "verify", "--keyring", keys+"/public", second)
			if target, err := os.Readlink(link); err != nil || target != filepath.Base(second) {
				t.Errorf("%s leads to %q, %v; want %s", link, target, err, filepath.Base(second))
			}
			checkDelta(t, run(t, updater, "info", "--json", "--keyring", keys+"/public", second))

			// Another key at the same place signs anew, without any other change.
			run(t, "rm", keys+"/release.key", keys+"/release.pub")
			run(t, filepath.Join(tools, "updater-sign"), "keygen", "--algorithm", "ed25519", "-o", keys+"/release")
			data, err = os.ReadFile(keys + "/release.key")
			if err != nil {
				t.Fatal(err)
			}
			s.write(t, name+"/keys/release.key", string(data), 0o600)
			said, err := b.run(t, "bitbake", "--no-setscene", "-c", "updaterd_bundle", "test-image")
			if err == nil || !strings.Contains(said, "1.0.upb") {
				t.Errorf("the earlier bundle is signed with another key, and nothing complains: %v\n%s", err, said)
			}
		})
	}
}

// checkExt4 looks at what OE-core's function has made of the class's options: newer
// series have a seed and times of their own.
func checkExt4(t *testing.T, b *build) {
	t.Helper()
	said := b.must(t, "env", "TZ=UTC", "dumpe2fs", b.one(t, "tmp/deploy/images/*/test-image-*.rootfs.ext4"))
	said = strings.Join(strings.Fields(said), " ")
	for _, want := range []string{
		"Filesystem UUID: d8b33ec8-a4f3-4c8f-93d5-9a7c5a1d1a3e", "Directory Hash Seed: d8b33ec8-a4f3-4c8f-93d5-9a7c5a1d1a3e",
		"Filesystem created: Sun Jun 15 15:06:40 2025", "Last write time: Sun Jun 15 15:06:40 2025", "Last checked: Sun Jun 15 15:06:40 2025",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the file system has no %q:\n%s", want, said[:min(len(said), 3000)])
		}
	}
}

// checkDelta looks for a small delta, and for what the class has put into the image.
func checkDelta(t *testing.T, info string) {
	t.Helper()
	type image struct {
		BuildID string `json:"build_id"`
		Recipes []struct {
			Kind     string
			Download int64
			Source   struct {
				BuildID string `json:"build_id"`
			}
		}
	}
	var have struct {
		Version, Created string
		Sequence         uint64
		Compatible       []string
		Images           []image
	}
	if err := json.Unmarshal([]byte(info), &have); err != nil {
		t.Fatalf("%v\n%s", err, info)
	}
	if have.Version != "2.0" || have.Sequence != 2 || have.Created != "2025-06-15T15:06:40Z" || !slices.Equal(have.Compatible, []string{"test-board"}) || len(have.Images) != 1 {
		t.Fatalf("what the class was told is not in the bundle:\n%s", info)
	}
	img := have.Images[0]
	if img.BuildID != "test-image-2.0-2" || len(img.Recipes) != 2 || img.Recipes[0].Kind != "delta" || img.Recipes[0].Source.BuildID != "test-image-1.0-1" {
		t.Fatalf("the image has no build id, or no delta from the earlier one:\n%s", info)
	}
	if delta, full := img.Recipes[0].Download, img.Recipes[1].Download; delta*20 > full {
		t.Errorf("the delta has %d bytes and the whole image %d: is it built the same each time?", delta, full)
	}
}

func digest(t *testing.T, path string) [32]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// TestCheckLayer runs yocto-check-layer, which takes ten minutes and more, with
// the newest LTS release that there is, or the first one.
func TestCheckLayer(t *testing.T) {
	all := checkouts(t)
	c := all[0]
	for _, other := range all {
		if other.series == "wrynose" {
			c = other
		}
	}
	s := theSite(t)
	// What an earlier run has parsed is no help: the recipes are new each time.
	if err := os.RemoveAll(filepath.Join(s.dir, "check-"+c.series)); err != nil {
		t.Fatal(err)
	}
	b := s.newBuild(t, c, "check-"+c.series, nil, false)
	argv := []string{"yocto-check-layer"}
	for _, layer := range layerDirs {
		argv = append(argv, filepath.Join(s.dir, "layers", layer))
	}
	said := b.must(t, argv...)
	for _, layer := range layerDirs {
		if !strings.Contains(said, layer+" ... PASS") && !strings.Contains(said, layer+".. PASS") {
			t.Errorf("%s is not said to have passed:\n%s", layer, said[max(0, len(said)-4000):])
		}
	}
}
