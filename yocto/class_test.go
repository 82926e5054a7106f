// SPDX-License-Identifier: Apache-2.0

package yocto

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stub stands for BitBake: it runs the functions of the class that is its first argument, with
// the variables in its input over the defaults of the class, which it expands as far as it takes.
const stub = `
import json, os, re, sys, types

text = open(sys.argv[1]).read()
values = {'PATH': os.environ['PATH']}
for name, value in re.findall(r'^(UPDATERD_\w+) \?\?= "(.*)"$', text, re.M):
    values[name] = value
values.update(json.load(sys.stdin))

class Fatal(Exception):
    pass

class Data:
    def getVar(self, name):
        value = values.get(name)
        if value is None:
            return None
        return re.sub(r'\$\{(\w+)\}', lambda m: self.getVar(m.group(1)) or '', value)

def fatal(said):
    raise Fatal(said)

bb = types.SimpleNamespace(fatal=fatal, note=print, plain=print, warn=lambda said: print('warning:', said))
bb.utils = types.SimpleNamespace(to_boolean=lambda value: value in ('1', 'yes', 'true'),
    contains=lambda name, word, yes, no, d: yes if word in (d.getVar(name) or '').split() else no)
names = {'bb': bb, 'os': os, 'd': Data()}
for function in re.findall(r'^def .*?\n(?=\n\S)', text, re.M | re.S):
    exec(function, names)
body = re.search(r'^python do_updaterd_bundle\(\) \{\n(.*?)^\}$', text, re.M | re.S).group(1)
exec('def do_updaterd_bundle():\n' + body, names)
print('checksums:', names['updaterd_checksums'](names['d']))
print('wrong:', names['updaterd_wrong'](names['d']))
try:
    names['do_updaterd_bundle']()
except Fatal as e:
    print('fatal:', e)
`

// TestClass runs the class without BitBake: what it asks updater-bundle for, what makes
// a bundle be made anew, and what it says to who has set something wrong.
func TestClass(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("skipped: no python3, which BitBake is written in")
	}
	dir := t.TempDir()
	for path, text := range map[string]string{
		// Believes what is signed if the keyring has release.pub, and the policy lets it.
		"bin/updater-bundle": "#!/bin/sh\necho \"runs: $*\"\n[ $1 != info ] || { echo believes $(ls $3); test -f $3/release.pub && ! grep -qs two $5; }\n",
		"release.pub":        "key", "other.pub": "key", "one.toml": "one", "two.toml": "two",
		"deploy/image.ext4":      "image",
		"release.key":            "key",
		"releases/1.0.upb":       "old",
		"releases/1.1.upb":       "newer",
		"releases/not-a-release": "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	good := map[string]string{
		"PN": "image", "MACHINE": "board", "DISTRO_VERSION": "1.2", "REPRODUCIBLE_TIMESTAMP_ROOTFS": "1750000000", "T": dir,
		"DEPLOY_DIR": dir + "/deploy", "DEPLOY_DIR_IMAGE": dir + "/deploy", "VIRTUAL-RUNTIME_init_manager": "systemd", "IMAGE_LINK_NAME": "image", "UPDATERD_DEPLOYDIR": dir + "/out",
		"UPDATERD_SEQUENCE": "7", "UPDATERD_KEY": dir + "/release.key",
	}
	const runs = "runs: create --version 1.2 --sequence 7 --created 1750000000 --compatible board --image rootfs=DIR/deploy/image.ext4"
	for name, tc := range map[string]struct {
		set  map[string]string
		want string
	}{
		"as it is":          {nil, runs + " --key DIR/release.key -o DIR/out/image-1.2.upb\n"},
		"a key counts":      {nil, "checksums: DIR/release.key:True\n"},
		"unsigned":          {map[string]string{"UPDATERD_KEY": "", "UPDATERD_UNSIGNED": "1"}, runs + " --unsigned -o"},
		"deltas":            {map[string]string{"UPDATERD_DELTA_FROM": "DIR/releases/*.upb"}, " --delta-from rootfs=DIR/releases/1.0.upb --delta-from rootfs=DIR/releases/1.1.upb --key"},
		"deltas count":      {map[string]string{"UPDATERD_DELTA_FROM": "DIR/releases/*.upb"}, " DIR/releases/*.upb:True\n"},
		"other patterns":    {map[string]string{"UPDATERD_DELTA_FROM": "boot=DIR/releases/1.[01].up?"}, " --delta-from boot=DIR/releases/1.0.upb --delta-from boot=DIR/releases/1.1.upb --key"},
		"they count, too":   {map[string]string{"UPDATERD_DELTA_FROM": "boot=DIR/releases/1.[01].up?"}, " DIR/releases/1.*.up*:True\n"},
		"no release yet":    {map[string]string{"UPDATERD_DELTA_FROM": "DIR/releases/*.raw"}, runs + " --key"},
		"no such directory": {map[string]string{"UPDATERD_DELTA_FROM": "DIR/relaeses/*.upb"}, "fatal: image: UPDATERD_DELTA_FROM names DIR/relaeses/*.upb, but DIR/relaeses is not there"},
		"no such release":   {map[string]string{"UPDATERD_DELTA_FROM": "DIR/releases/2.upb"}, "fatal: image: UPDATERD_DELTA_FROM names DIR/releases/2.upb, but DIR/releases/2.upb is not there"},
		"not absolute":      {map[string]string{"UPDATERD_DELTA_FROM": "releases/*.upb"}, "fatal: image: UPDATERD_DELTA_FROM names releases/*.upb, which is not an absolute path"},
		"no key":            {map[string]string{"UPDATERD_KEY": ""}, "fatal: image: UPDATERD_KEY is not set"},
		"a missing key":     {map[string]string{"UPDATERD_KEY": "DIR/lost.key"}, "fatal: image: DIR/lost.key is not there; UPDATERD_KEY"},
		"a relative key":    {map[string]string{"UPDATERD_KEY": "release.key"}, `fatal: image: UPDATERD_KEY is "release.key", which is neither`},
		"no sequence":       {map[string]string{"UPDATERD_SEQUENCE": ""}, `fatal: image: UPDATERD_SEQUENCE is ""`},
		"no image":          {map[string]string{"UPDATERD_FSTYPE": "squashfs"}, "fatal: image: UPDATERD_IMAGES names rootfs=DIR/deploy/image.squashfs, which is not there"},
		"nothing is wrong":  {nil, "wrong: None\n"},
		"from the build":    {map[string]string{"UPDATERD_DELTA_FROM": "DIR/releases/*.upb boot=DIR/deploy/image*/a.upb"}, "wrong: UPDATERD_DELTA_FROM names DIR/deploy/image*/a.upb, but what an earlier build left"},
		"by another name":   {map[string]string{"UPDATERD_DELTA_FROM": "DIR/releases/../deploy/*.upb"}, "wrong: UPDATERD_DELTA_FROM names DIR/releases/../deploy/*.upb, but"},
		"a longer name":     {map[string]string{"UPDATERD_DELTA_FROM": "DIR/deployed/*.upb"}, "wrong: None\n"},
		"no links yet":      {map[string]string{"VIRTUAL-RUNTIME_init_manager": "sysvinit"}, `wrong: UPDATERD_DATA_DEVICE is "/dev/disk/by-partlabel/data", but without systemd`},
		"the kernel's name": {map[string]string{"VIRTUAL-RUNTIME_init_manager": "sysvinit", "UPDATERD_DATA_DEVICE": "/dev/mmcblk0p3"}, "wrong: None\n"},
		"nobody mounts it":  {map[string]string{"VIRTUAL-RUNTIME_init_manager": "busybox", "UPDATERD_DATA_DEVICE": ""}, "wrong: None\n"},
		"a distribution's":  {map[string]string{"VIRTUAL-RUNTIME_init_manager": "", "DISTRO_FEATURES": "systemd usrmerge"}, "wrong: None\n"},
		"believed":          {map[string]string{"UPDATERD_KEYRING": "DIR/other.pub DIR/release.pub"}, "\nupdater-bundle info --keyring DIR/updaterd-keyring DIR/out/image-1.2.upb\n"},
		"a believed key":    {map[string]string{"UPDATERD_KEYRING": "DIR/release.pub", "UPDATERD_POLICY": "DIR/one.toml"}, "checksums: DIR/release.key:True DIR/release.pub:True DIR/one.toml:True\n"},
		"not believed":      {map[string]string{"UPDATERD_KEYRING": "DIR/other.pub"}, "fatal: image: no device with this image would install the bundle: what UPDATERD_KEY names (DIR/release.key) is not what UPDATERD_KEYRING has it believe (DIR/other.pub)"},
		"signed elsewhere":  {map[string]string{"UPDATERD_KEYRING": "DIR/other.pub", "UPDATERD_UNSIGNED": "1"}, runs + " --unsigned -o DIR/out/image-1.2.upb\n"},
		"a lost key":        {map[string]string{"UPDATERD_KEYRING": "DIR/lost.pub"}, "fatal: image: UPDATERD_KEYRING names DIR/lost.pub, which is not there"},
		"a policy":          {map[string]string{"UPDATERD_KEYRING": "DIR/release.pub", "UPDATERD_POLICY": "DIR/one.toml"}, "\nupdater-bundle info --keyring DIR/updaterd-keyring --policy DIR/one.toml DIR/out/image-1.2.upb\n"},
		"asks for more":     {map[string]string{"UPDATERD_KEYRING": "DIR/release.pub", "UPDATERD_POLICY": "DIR/two.toml"}, "warning: image: the policy of the image (DIR/two.toml) does not let it install the bundle as it is now"},
		"no token":          {map[string]string{"UPDATERD_KEY_ENV": "VAULT_TOKEN"}, "fatal: image: UPDATERD_KEY_ENV names VAULT_TOKEN, which is not set"},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]string{}
			for _, set := range []map[string]string{good, tc.set} {
				for name, value := range set {
					values[name] = strings.ReplaceAll(value, "DIR", dir)
				}
			}
			input, err := json.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(dir + "/out"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir+"/out", 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("python3", "-c", stub, filepath.Join(layer, "classes-recipe/updaterd-bundle.bbclass"))
			cmd.Env = append(os.Environ(), "PATH="+dir+"/bin:"+os.Getenv("PATH"))
			cmd.Stdin = bytes.NewReader(input)
			said, err := cmd.CombinedOutput()
			got := strings.ReplaceAll(string(said), dir, "DIR")
			if err != nil || !strings.Contains(got, tc.want) {
				t.Errorf("%v:\n%s\nwant %q", err, got, tc.want)
			}
			if tc.set["UPDATERD_UNSIGNED"] != "" && strings.Contains(got, "updater-bundle info") {
				t.Errorf("nothing is signed yet, and a signature is asked for:\n%s", got)
			}
		})
	}
}

// step is a shell function of a recipe or a class, with the values of BitBake's
// variables, as a script.
func step(t *testing.T, file, task string, variables map[string]string) string {
	t.Helper()
	_, body, found := strings.Cut(read(t, layer, file), "\n"+task+"() {\n")
	body, _, closed := strings.Cut(body, "\n}\n")
	if !found || !closed {
		t.Fatalf("%s has no %s", file, task)
	}
	for name, value := range variables {
		body = strings.ReplaceAll(body, "${"+name+"}", value)
	}
	return "set -e\nbbwarn() { echo \"WARNING: $*\"; }\nbbfatal() { echo \"ERROR: $*\"; exit 1; }\n" + body
}

// TestConf runs what makes the configuration of a device, without BitBake.
func TestConf(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.pub": "key", "b.crt": "certificate", "c.tlog": "log", "other/a.pub": "another", "a.txt": "key",
		"p.pem": "-----BEGIN PRIVATE KEY-----", "policy.toml": "rules",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct{ compatible, keyring, policy, want string }{
		"all":            {" board ", "DIR/a.pub DIR/b.crt DIR/c.tlog", "DIR/policy.toml", "/keys/a.pub /keys/b.crt /keys/c.tlog /policy.toml /updaterd.toml"},
		"no key":         {"board", "", "", "WARNING: the keyring of the image holds the example key"},
		"a private one":  {"board", "DIR/p.pem", "", "ERROR: UPDATERD_KEYRING names DIR/p.pem, which is a private key"},
		"lost":           {"board", "DIR/b.pub", "", "ERROR: UPDATERD_KEYRING names DIR/b.pub, which is not there"},
		"not read":       {"board", "DIR/a.txt", "", "ERROR: UPDATERD_KEYRING names DIR/a.txt, which the device would not read"},
		"one name twice": {"board", "DIR/a.pub DIR/other/a.pub", "", "ERROR: UPDATERD_KEYRING names DIR/other/a.pub and another file of that name"},
		"no policy":      {"board", "DIR/a.pub", "DIR/lost.toml", "ERROR: UPDATERD_POLICY is DIR/lost.toml, which is not there"},
		"two devices":    {"board other", "DIR/a.pub", "", `ERROR: UPDATERD_COMPATIBLE is "board other"`},
		"no device":      {"", "DIR/a.pub", "", `ERROR: UPDATERD_COMPATIBLE is ""`},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			out, err := exec.Command("sh", "-c", step(t, "recipes-core/updaterd/updaterd-conf_1.0.bb", "do_install", map[string]string{
				"D": root, "sysconfdir": "/etc", "S": layer + "/recipes-core/updaterd/files", "UPDATERD_COMPATIBLE": tc.compatible,
				"UPDATERD_KEYRING": strings.ReplaceAll(tc.keyring, "DIR", dir), "UPDATERD_POLICY": strings.ReplaceAll(tc.policy, "DIR", dir),
			})).CombinedOutput()
			said := strings.ReplaceAll(string(out), dir, "DIR")
			if failed := err != nil; failed != strings.HasPrefix(tc.want, "ERROR") {
				t.Fatalf("%v\n%s", err, said)
			}
			if !strings.HasPrefix(tc.want, "/") {
				if !strings.Contains(said, tc.want) {
					t.Errorf("it says %q; want %q", said, tc.want)
				}
				return
			}
			if got := strings.Join(tree(t, root+"/etc/updaterd"), " "); got != tc.want {
				t.Errorf("installed are %s; want %s", got, tc.want)
			}
			if got := read(t, root, "etc/updaterd/updaterd.toml"); !strings.HasPrefix(got, "policy = \"/etc/updaterd/policy.toml\"\n") || !strings.Contains(got, "\ncompatible = \"board\"\n") {
				t.Errorf("updaterd.toml is\n%s", got)
			}
		})
	}
}

// TestReleaseInImage runs what the class does to an image: a build id, the data
// partition, and a warning about what would spoil deltas.
func TestReleaseInImage(t *testing.T) {
	class := read(t, layer, "classes-recipe/updaterd-bundle.bbclass")
	root := t.TempDir()
	const systemd = "${@',nofail' if updaterd_systemd(d) else ''}"
	if !strings.Contains(class, systemd) {
		t.Errorf("the class has no %s", systemd)
	}
	values := strings.NewReplacer(systemd, "'$nofail'",
		"${IMAGE_ROOTFS}", root, "${nonarch_libdir}", "/usr/lib", "${sysconfdir}", "/etc", "${PN}", "image", "${IMAGE_BASENAME}", "image",
		"${UPDATERD_VERSION}", "1.2", "${UPDATERD_SEQUENCE}", "7", "${UPDATERD_DATA_DEVICE}", "/dev/mmcblk0p3",
		`${@bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', 'false', 'true', d)}`, "$writable",
	)
	call := func(set string) string {
		script := "set -e\nbbwarn() { echo \"WARNING: $*\"; }\n" + set + "\n"
		for _, name := range []string{"updaterd_read_only", "updaterd_release", "updaterd_data"} {
			function := regexp.MustCompile(`(?ms)^` + name + `\(\) \{\n.*?^\}\n`).FindString(class)
			if function == "" {
				t.Fatalf("the class has no %s", name)
			}
			script += values.Replace(function) + name + "\n"
		}
		out, err := exec.Command("sh", "-c", script).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	for _, dir := range []string{"/usr/lib", "/etc"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	said := call("writable=true nofail=")
	for _, want := range []string{"read-only-rootfs", "there is no os-release"} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing is said about %q: %s", want, said)
		}
	}
	if got, want := read(t, root, "etc/fstab"), "/dev/mmcblk0p3 /data ext4 rw,nosuid,nodev,noatime 0 2\n"; got != want {
		t.Errorf("without systemd, fstab is %q; want %q", got, want)
	}
	if err := os.Remove(root + "/etc/fstab"); err != nil {
		t.Fatal(err)
	}
	release := root + "/usr/lib/os-release"
	if err := os.WriteFile(release, []byte("ID=x\nBUILD_ID=\"old\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../usr/lib/os-release", root+"/etc/os-release"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if said := call("writable=false nofail=,nofail"); said != "" {
			t.Errorf("all is well, and it says %s", said)
		}
		if got, want := read(t, release), "ID=x\nIMAGE_VERSION=\"1.2\"\nBUILD_ID=\"image-1.2-7\"\n"; got != want {
			t.Errorf("os-release is %q; want %q", got, want)
		}
		if got, want := read(t, root, "etc/fstab"), "/dev/mmcblk0p3 /data ext4 rw,nosuid,nodev,noatime,nofail 0 2\n"; got != want {
			t.Errorf("fstab is %q; want %q", got, want)
		}
	}
}
