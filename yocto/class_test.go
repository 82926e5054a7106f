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

bb = types.SimpleNamespace(fatal=fatal, note=lambda said: None, plain=print)
bb.utils = types.SimpleNamespace(to_boolean=lambda value: value in ('1', 'yes', 'true'))
names = {'bb': bb, 'os': os, 'd': Data()}
for function in re.findall(r'^def .*?\n(?=\n\S)', text, re.M | re.S):
    exec(function, names)
body = re.search(r'^python do_updaterd_bundle\(\) \{\n(.*?)^\}$', text, re.M | re.S).group(1)
exec('def do_updaterd_bundle():\n' + body, names)
print('checksums:', names['updaterd_checksums'](names['d']))
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
		"bin/updater-bundle":     "#!/bin/sh\necho \"runs: $*\"\n",
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
		"DEPLOY_DIR_IMAGE": dir + "/deploy", "IMAGE_LINK_NAME": "image", "UPDATERD_DEPLOYDIR": dir + "/out",
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
			if got := strings.ReplaceAll(string(said), dir, "DIR"); err != nil || !strings.Contains(got, tc.want) {
				t.Errorf("%v:\n%s\nwant %q", err, got, tc.want)
			}
		})
	}
}

// TestReleaseInImage runs what the class does to an image: a build id, the data
// partition, and a warning about what would spoil deltas.
func TestReleaseInImage(t *testing.T) {
	class := read(t, layer, "classes-recipe/updaterd-bundle.bbclass")
	root := t.TempDir()
	values := strings.NewReplacer(
		"${IMAGE_ROOTFS}", root, "${nonarch_libdir}", "/usr/lib", "${sysconfdir}", "/etc", "${PN}", "image", "${IMAGE_BASENAME}", "image",
		"${UPDATERD_VERSION}", "1.2", "${UPDATERD_SEQUENCE}", "7", "${UPDATERD_DATA_DEVICE}", "/dev/mmcblk0p3",
		`${@bb.utils.contains('IMAGE_FEATURES', 'read-only-rootfs', 'false', 'true', d)}`, "$writable",
	)
	call := func(writable bool) string {
		script := "set -e\nbbwarn() { echo \"WARNING: $*\"; }\nwritable=false\n"
		if writable {
			script = strings.Replace(script, "=false", "=true", 1)
		}
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
	said := call(true)
	for _, want := range []string{"read-only-rootfs", "there is no os-release"} {
		if !strings.Contains(said, want) {
			t.Errorf("nothing is said about %q: %s", want, said)
		}
	}
	release := root + "/usr/lib/os-release"
	if err := os.WriteFile(release, []byte("ID=x\nBUILD_ID=\"old\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../usr/lib/os-release", root+"/etc/os-release"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		if said := call(false); said != "" {
			t.Errorf("all is well, and it says %s", said)
		}
		if got, want := read(t, release), "ID=x\nIMAGE_VERSION=\"1.2\"\nBUILD_ID=\"image-1.2-7\"\n"; got != want {
			t.Errorf("os-release is %q; want %q", got, want)
		}
		if got, want := read(t, root, "etc/fstab"), "/dev/mmcblk0p3 /data ext4 rw,nosuid,nodev,noatime 0 2\n"; got != want {
			t.Errorf("fstab is %q; want %q", got, want)
		}
	}
}
