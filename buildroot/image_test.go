// SPDX-License-Identifier: Apache-2.0

package buildroot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	env "github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/qemu/uboot"
)

// An output is what Buildroot would have made before it calls the board's scripts.
type output struct {
	dir     string
	env     []string
	scripts string // where the board's scripts are
}

func (o *output) path(name string) string { return filepath.Join(o.dir, name) }

// built are the host's programs, made once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "updaterd-tools")
	if err != nil {
		return "", err
	}
	scratch = dir
	out, err := try(nil, "make", "-s", "-C", "..", "tools", "TOOLS="+dir)
	if err != nil {
		err = fmt.Errorf("build the tools: %w: %s", err, out)
	}
	return dir, err
})

// scratch is the directory of what is built once.
var scratch string

func TestMain(m *testing.M) {
	code := m.Run()
	if scratch != "" {
		os.RemoveAll(scratch)
	}
	os.Exit(code)
}

// tools is where the host's programs are, a private key, and the directory with its
// public half. It skips where another program is missing.
func tools(t *testing.T) (bin, key, keys string) {
	t.Helper()
	for program, from := range map[string]string{"genimage": "genimage", "mkenvimage": "u-boot-tools", "mkfs.ext4": "e2fsprogs", "sfdisk": "fdisk"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("skipped: no %s (package %s); .ci/setup installs it", program, from)
		}
	}
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, keys = filepath.Join(dir, "release.key"), filepath.Join(dir, "keys")
	run(t, nil, filepath.Join(bin, "updater-sign"), "keygen", "--algorithm", "ed25519", "-o", filepath.Join(dir, "release"))
	run(t, nil, "sh", "-c", "mkdir "+keys+" && mv "+dir+"/release.p* "+keys)
	return bin, key, keys
}

func run(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	out, err := try(env, argv...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", argv, err, out)
	}
	return out
}

func try(env []string, argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// newOutput installs what a system has, as the package does, with a stand-in for
// the device binary.
func newOutput(t *testing.T, bin, keys, content string) *output {
	t.Helper()
	o := &output{dir: t.TempDir(), scripts: board}
	target := o.path("target")
	o.env = []string{"TARGET_DIR=" + target, "BINARIES_DIR=" + o.path("images"), "PATH=" + bin + ":" + os.Getenv("PATH"),
		"SOURCE_DATE_EPOCH=1700000000", "UPDATERD_KEY=", "UPDATERD_RELEASES=", "UPDATERD_IMAGE_VERSION=", "UPDATERD_IMAGE_SEQUENCE="}
	write(t, o.path("updaterd"), content)
	run(t, nil, "make", "-s", "-C", "..", "install", "BINARY="+o.path("updaterd"), "DESTDIR="+target, "INIT=sysvinit", "INITSCRIPT=S80updaterd")
	run(t, nil, "sh", "-c", "cp "+keys+"/* "+target+"/etc/updaterd/keys/ && cp "+board+"/updaterd.toml "+target+"/etc/updaterd/")
	write(t, target+"/etc/fstab", "# <file system>\t<mount pt>\t<type>\n/dev/root\t/\text2\trw,noauto\t0\t1\n")
	write(t, target+"/usr/lib/os-release", "NAME=Buildroot\nID=buildroot\nVERSION_ID=2026.08\n")
	run(t, nil, "ln", "-s", "../usr/lib/os-release", target+"/etc/os-release")
	run(t, nil, "mkdir", o.path("images"))
	return o
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// root does what Buildroot does before it makes images: post-build.sh and the file system.
func (o *output) root(t *testing.T, options ...string) {
	t.Helper()
	target := o.path("target")
	run(t, o.env, append([]string{o.scripts + "/post-build.sh", target}, options...)...)
	flags := regexp.MustCompile(`BR2_TARGET_ROOTFS_EXT2_MKFS_OPTIONS="(.*)"`).FindStringSubmatch(read(t, defconfig))
	if flags == nil {
		t.Fatal("the defconfig has no options for the file system")
	}
	argv := append([]string{"mkfs.ext4", "-q", "-d", target, "-m", "5"}, strings.Fields(flags[1])...)
	run(t, nil, append(argv, o.path("images/rootfs.ext4"), "24M")...)
}

// elsewhere copies the board's scripts, as a product does.
func (o *output) elsewhere(t *testing.T) {
	t.Helper()
	o.scripts = filepath.Join(t.TempDir(), "a board")
	for _, name := range []string{"post-build.sh", "post-image.sh", "genimage.cfg", "board.env", "fw_env.config"} {
		write(t, o.scripts+"/"+name, read(t, board+"/"+name))
	}
	run(t, nil, "chmod", "+x", o.scripts+"/post-build.sh", o.scripts+"/post-image.sh")
	tree, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	o.env = append(o.env, "BR2_EXTERNAL_UPDATERD_PATH="+tree)
}

func (o *output) postImage(options ...string) (string, error) {
	return try(o.env, append([]string{o.scripts + "/post-image.sh", o.path("images")}, options...)...)
}

// manifest is what the tests look at of "updater-bundle info --json".
type manifest struct {
	Verified   bool     `json:"verified"`
	Version    string   `json:"version"`
	Sequence   uint64   `json:"sequence"`
	Compatible []string `json:"compatible"`
	Images     []struct {
		BuildID string `json:"build_id"`
		Recipes []struct {
			Kind string `json:"kind"`
		} `json:"recipes"`
	} `json:"images"`
}

func TestImages(t *testing.T) {
	bin, key, keys := tools(t)
	bundleTool := filepath.Join(bin, "updater-bundle")
	options := []string{"--version=1.0", "--sequence=1"}
	one := newOutput(t, bin, keys, strings.Repeat("the first version\n", 9000))
	one.env = append(one.env, "UPDATERD_KEY="+key)
	one.root(t, options...)
	if out, err := one.postImage(options...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	first := one.path("images/buildroot-qemu-aarch64-1.0.upb")
	m := info(t, bundleTool, keys, first)
	if !m.Verified || m.Version != "1.0" || m.Sequence != 1 || fmt.Sprint(m.Compatible) != "[buildroot-qemu-aarch64]" || len(m.Images) != 1 {
		t.Fatalf("the bundle is %+v", m)
	}
	if id := m.Images[0].BuildID; !regexp.MustCompile(`^1\.0-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("its image has build id %q", id)
	}
	checkCard(t, one)

	sums := digests(t, one)
	if out, err := one.postImage(options...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(sums, digests(t, one)); diff != "" {
		t.Errorf("the same inputs give other bytes: %s", diff)
	}

	// The next release has a delta from the first, which makes the same image.
	releases := t.TempDir()
	run(t, nil, "cp", first, releases)
	two := newOutput(t, bin, keys, strings.Repeat("the second version\n", 9000))
	two.env = append(two.env, "UPDATERD_KEY="+key, "UPDATERD_RELEASES="+releases, "UPDATERD_IMAGE_VERSION=2.0", "UPDATERD_IMAGE_SEQUENCE=2")
	two.elsewhere(t)
	two.root(t, options...)
	if out, err := two.postImage(options...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	second := two.path("images/buildroot-qemu-aarch64-2.0.upb")
	m = info(t, bundleTool, keys, second)
	kinds := ""
	for _, r := range m.Images[0].Recipes {
		kinds += r.Kind + " "
	}
	if m.Version != "2.0" || m.Sequence != 2 || kinds != "delta full " {
		t.Errorf("the second bundle is %+v, with recipes %s", m, kinds)
	}
	made := two.path("made.ext4")
	run(t, nil, bundleTool, "apply", "--keyring", keys, "--image", "rootfs", "--source", one.path("images/rootfs.ext4"), "-o", made, second)
	if out, err := try(nil, "cmp", made, two.path("images/rootfs.ext4")); err != nil {
		t.Errorf("the delta makes another image: %s", out)
	}
}

func info(t *testing.T, bundleTool, keys, path string) *manifest {
	t.Helper()
	var m manifest
	if err := json.Unmarshal([]byte(run(t, nil, bundleTool, "info", "--json", "--keyring", keys, path)), &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

func digests(t *testing.T, o *output) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for _, name := range []string{"rootfs.ext4", "uboot-env.bin", "data.ext4", "sdcard.img", "buildroot-qemu-aarch64-1.0.upb"} {
		sums[name] = strings.Fields(run(t, nil, "sha256sum", o.path("images/"+name)))[0]
	}
	return sums
}

// checkCard looks at the card that leaves the factory.
func checkCard(t *testing.T, o *output) {
	t.Helper()
	card := o.path("images/sdcard.img")
	var table struct {
		Table struct {
			Label      string
			Partitions []struct {
				Name        string
				Start, Size int64
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal([]byte(run(t, nil, "sfdisk", "--json", card)), &table); err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(card)
	if err != nil {
		t.Fatal(err)
	}
	if len(disk) != 256<<20 {
		t.Errorf("the card has %d bytes", len(disk))
	}
	if table.Table.Label != "gpt" || len(table.Table.Partitions) != 3 {
		t.Fatalf("the card has %+v", table)
	}
	root, err := os.ReadFile(o.path("images/rootfs.ext4"))
	if err != nil {
		t.Fatal(err)
	}
	// The slots as updaterd.toml and the boot commands number them, and data.
	for i, name := range []string{"rootfs_a", "rootfs_b", "data"} {
		p := table.Table.Partitions[i]
		if p.Name != name || p.Start%2048 != 0 || i == 0 && p.Start != 4096 {
			t.Errorf("partition %d is %+v, want %s", i+1, p, name)
		}
		content := disk[p.Start*512 : (p.Start+p.Size)*512]
		if name == "data" {
			if string(content[1080:1082]) != "\x53\xef" {
				t.Error("data is no ext4")
			}
		} else if !bytes.HasPrefix(content, root) || p.Size != 64<<20/512 {
			t.Errorf("%s does not hold the image, or has %d sectors", name, p.Size)
		}
	}
	want, err := uboot.Default(read(t, board+"/board.env"))
	if err != nil {
		t.Fatal(err)
	}
	want["env_id"] = "factory"
	for name, value := range want {
		if value == "" {
			delete(want, name) // U-Boot does not store an empty variable
		}
	}
	for _, at := range []int{uboot.EnvOffset, uboot.EnvOffset2} {
		c := env.DecodeCopy(disk[at:at+uboot.EnvSize], true)
		if !c.Valid {
			t.Fatalf("the environment at %#x is not intact", at)
		}
		got, err := env.Parse(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Vars()); diff != "" {
			t.Errorf("the environment at %#x: %s", at, diff)
		}
	}
}

func TestRootFileSystem(t *testing.T) {
	bin, _, keys := tools(t)
	o := newOutput(t, bin, keys, "x")
	target := o.path("target")
	id := func() string {
		return regexp.MustCompile(`(?m)^BUILD_ID=.*$`).FindString(read(t, target+"/etc/os-release"))
	}
	post := func() { run(t, o.env, board+"/post-build.sh", target, "--version=1.0", "--sequence=1") }
	post()
	first, tree := id(), run(t, nil, "sh", "-c", "cd "+target+" && find . -type f -exec sha256sum {} + | sort")
	post()
	if now := run(t, nil, "sh", "-c", "cd "+target+" && find . -type f -exec sha256sum {} + | sort"); now != tree {
		t.Errorf("a second run changes something:\n%s\n%s", tree, now)
	}
	write(t, target+"/etc/more", "more")
	if post(); id() == first || first == "" {
		t.Errorf("another image has the same %q", first)
	}
	second := id()
	run(t, nil, "ln", "-s", "more", target+"/etc/link")
	if post(); id() == second {
		t.Errorf("another link has the same %q", second)
	}
	if fstab := read(t, target+"/etc/fstab"); strings.Count(fstab, "/data") != 1 || !strings.Contains(fstab, "/dev/root") {
		t.Errorf("fstab: %s", fstab)
	}
	if got := read(t, target+"/etc/fw_env.config"); got != uboot.FwEnvConfig {
		t.Errorf("fw_env.config: %s", got)
	}
	got, err := uboot.Parse(read(t, target+"/usr/share/updaterd/updaterd.env"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := uboot.Default(read(t, board+"/board.env"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("updaterd.env: %s", diff)
	}
	if out, err := try(o.env, board+"/post-build.sh", target); err == nil || !strings.Contains(out, "UPDATERD_IMAGE_VERSION") {
		t.Errorf("without a version: %v, %s", err, out)
	}
}

// What a release engineer forgets is said, and no bundle that devices refuse is called good.
func TestPostImageRefuses(t *testing.T) {
	bin, key, keys := tools(t)
	other := filepath.Join(t.TempDir(), "other")
	run(t, nil, filepath.Join(bin, "updater-sign"), "keygen", "-o", other)
	o := newOutput(t, bin, keys, "x")
	o.root(t, "--version=1")
	all := o.env
	for name, tc := range map[string]struct {
		env     []string
		options []string
		says    string
		fails   bool
	}{
		"no key":           {nil, []string{"--version=1", "--sequence=1"}, "is not signed and no device accepts it", false},
		"another key":      {[]string{"UPDATERD_KEY=" + other + ".key"}, []string{"--version=1", "--sequence=1"}, "verify", true},
		"key not found":    {[]string{"UPDATERD_KEY=" + other + ".none"}, []string{"--version=1", "--sequence=1"}, "other.none", true},
		"no sequence":      {[]string{"UPDATERD_KEY=" + key}, []string{"--version=1"}, "UPDATERD_IMAGE_SEQUENCE", true},
		"no such releases": {[]string{"UPDATERD_KEY=" + key, "UPDATERD_RELEASES=/none"}, []string{"--version=1", "--sequence=1"}, "no directory", true},
	} {
		t.Run(name, func(t *testing.T) {
			o.env = append(all[:len(all):len(all)], tc.env...)
			out, err := o.postImage(tc.options...)
			if (err != nil) != tc.fails || !strings.Contains(out, tc.says) {
				t.Errorf("%v, %s; want %q", err, out, tc.says)
			}
		})
	}
}
