// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/google/go-cmp/cmp"
	"github.com/updaterd/updaterd/qemu/uboot"
)

func TestParse(t *testing.T) {
	got, err := uboot.Parse("# comment\n\na=1\nb= \\\n\tx; \\\n# not in the way\n\ty\nc=d=e\nempty=\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "1", "b": " x; y", "c": "d=e", "empty": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"no value\n", "=x\n", "a=1\na=2\n", "a b=c\n", "a=b\\\n"} {
		if env, err := uboot.Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %v; want an error", bad, env)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(uboot.Env)
	f.Add("a=\\\n b\n")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := uboot.Parse(text)
		if err != nil {
			return
		}
		var again strings.Builder
		for name, value := range env {
			if strings.HasPrefix(name, "#") {
				t.Fatalf("a comment became the variable %q", name)
			}
			fmt.Fprintf(&again, "%s=%s\n", name, value)
		}
		back, err := uboot.Parse(again.String())
		if err != nil || !cmp.Equal(env, back) {
			t.Fatalf("Parse of %q = %v, %v; want %v", again.String(), back, err, env)
		}
	})
}

// The boot contract, as text: what other code relies on.
func TestDefault(t *testing.T) {
	env, err := uboot.Default()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"boot_slot": "a", "boot_bad": "", "upgrade_available": "0", "bootcount": "0", "bootlimit": "3"} {
		if got, ok := env[name]; !ok || got != want {
			t.Errorf("%s = %q, %v; want %q", name, got, ok, want)
		}
	}
	if n := strings.Count(env["altbootcmd"], "saveenv"); n != 1 {
		t.Errorf("altbootcmd saves %d times, want once", n)
	}
	if strings.Contains(env["bootcmd"]+env["boot_one"], "saveenv") {
		t.Error("a start without a fall-back writes the environment")
	}
	if !strings.Contains(env["boot_one"], "updaterd.slot=${updaterd_try} updaterd.env_id=${env_id}") {
		t.Error("the kernel is not told its slot and the environment's id")
	}
}

// The environment of a device that was fielded with RAUC has none of our variables.
func TestBootOrder(t *testing.T) {
	env, err := uboot.BootOrder()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"BOOT_ORDER": "A B", "BOOT_A_LEFT": "3", "BOOT_B_LEFT": "3",
		"boot_slot": "", "boot_bad": "", "upgrade_available": "", "bootlimit": "", "altbootcmd": "", "env_id": ""} {
		if env[name] != want {
			t.Errorf("%s = %q, want %q", name, env[name], want)
		}
	}
	if text := fmt.Sprint(env); strings.Contains(text, "updaterd") || strings.Contains(text, "env_id") {
		t.Error("the boot commands know of updaterd")
	}
}

// A board with a second stage: only the first one counts and saves, and it
// looks at every hash before it jumps.
func TestStages(t *testing.T) {
	first, err := uboot.Default(uboot.FirstEnv)
	if err != nil {
		t.Fatal(err)
	}
	second, err := uboot.Default(uboot.SecondEnv)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bootcmd", "altbootcmd", "boot_slot"} {
		base, _ := uboot.Default()
		if first[name] != base[name] || second[name] != base[name] {
			t.Errorf("%s is another one in a stage", name)
		}
	}
	check, jump := strings.Index(first["boot_one"], "iminfo"), strings.Index(first["boot_one"], "go ${loader_addr_r}")
	if check < 0 || jump < check || strings.Contains(first["boot_one"], "saveenv") {
		t.Errorf("the first stage jumps without a look, or saves: %s", first["boot_one"])
	}
	_, handed, _ := strings.Cut(first["boot_one"], "env export -t -s 0x1000 ${handover_addr_r} ")
	handed, _, _ = strings.Cut(handed, ";")
	if handed == "" || !strings.HasSuffix(second["boot_init"], "${handover_addr_r} 0x1000 "+handed) || first["handover_addr_r"] != second["handover_addr_r"] {
		t.Errorf("the first stage hands over %q, the second takes %q", handed, second["boot_init"])
	}
	for _, off := range []string{"CONFIG_BOOTCOUNT_LIMIT", "CONFIG_CMD_SAVEENV", "CONFIG_ENV_IS_IN_MMC"} {
		if !strings.Contains(uboot.SecondConfig, "# "+off+" is not set\n") {
			t.Errorf("the second stage has %s", off)
		}
	}
	back, err := uboot.Parse(uboot.Text(first))
	if err != nil || !cmp.Equal(first, back) {
		t.Errorf("Text does not give back what it was made of: %v", err)
	}
}

// mkenvimage is U-Boot's own tool for the same job.
func TestEncodeLikeMkenvimage(t *testing.T) {
	env := map[string]string{"boot_slot": "b", "altbootcmd": "run x; saveenv", "a": "1"}
	got, err := uboot.Encode(env, uboot.EnvSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := filepath.Join(dir, "env.txt")
	if err := os.WriteFile(text, []byte("a=1\naltbootcmd=run x; saveenv\nboot_slot=b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "env.bin")
	if out, err := exec.Command("mkenvimage", "-r", "-p", "0", "-s", fmt.Sprint(uboot.EnvSize), "-o", image, text).CombinedOutput(); err != nil {
		t.Fatalf("mkenvimage: %v\n%s(.ci/setup installs it, in u-boot-tools)", err, out)
	}
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the image differs from mkenvimage's:\n% x\n% x", got[:64], want[:64])
	}
}

func TestEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		env := rapid.MapOf(rapid.StringMatching(`[a-z_]{1,10}`), rapid.StringMatching(`[^\x00\n]{1,30}`)).Draw(t, "env")
		size := rapid.IntRange(6, 2000).Draw(t, "size")
		generation := rapid.Byte().Draw(t, "generation")
		copy1, err := uboot.Encode(env, size, generation)
		need := 6
		for name, value := range env {
			need += len(name) + len(value) + 2
		}
		if (err == nil) != (need <= size) {
			t.Fatalf("Encode of %d bytes into %d = %v", need, size, err)
		}
		if err != nil {
			return
		}
		if len(copy1) != size || copy1[4] != generation {
			t.Fatalf("copy has %d bytes and generation %d, want %d and %d", len(copy1), copy1[4], size, generation)
		}
		back := map[string]string{}
		for s := range strings.SplitSeq(strings.TrimRight(string(copy1[5:]), "\x00"), "\x00") {
			if name, value, ok := strings.Cut(s, "="); ok {
				back[name] = value
			}
		}
		if !cmp.Equal(env, back) {
			t.Fatalf("back came %v, want %v", back, env)
		}
	})
	for _, bad := range []map[string]string{{"a=b": "c"}, {"": "x"}, {"a": "x\x00y"}} {
		if _, err := uboot.Encode(bad, 100, 0); err == nil {
			t.Errorf("Encode(%q) = nil; want an error", bad)
		}
	}
}

func TestCheckConfig(t *testing.T) {
	fragment := "# why\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_SYS_REDUNDAND_ENVIRONMENT=y\nCONFIG_ENV_REDUNDANT=y\n"
	tests := []struct {
		name, final, wrong string
	}{
		{"old name", "CONFIG_A=y\nCONFIG_SYS_REDUNDAND_ENVIRONMENT=y\n", ""},
		{"new name", "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_ENV_REDUNDANT=y\n", ""},
		{"dropped", "# CONFIG_A is not set\nCONFIG_ENV_REDUNDANT=y\n", "CONFIG_A"},
		{"still on", "CONFIG_A=y\nCONFIG_B=y\nCONFIG_ENV_REDUNDANT=y\n", "CONFIG_B"},
		{"other value", "CONFIG_A=m\nCONFIG_ENV_REDUNDANT=y\n", "CONFIG_A"},
		{"one copy", "CONFIG_A=y\n", "CONFIG_ENV_REDUNDANT"},
		{"a longer name", "CONFIG_A=y\nCONFIG_ENV_REDUNDANT_UPGRADE=y\n", "CONFIG_ENV_REDUNDANT"},
		{"nothing", "", "CONFIG_A"},
		{"another renamed one", "CONFIG_A=y\nCONFIG_ENV_REDUNDANT=y\nCONFIG_ENV_DEFAULT_ENV_TEXT_FILE=\"x.env\"\n", ""},
		{"another value for it", "CONFIG_A=y\nCONFIG_ENV_REDUNDANT=y\nCONFIG_ENV_DEFAULT_ENV_TEXT_FILE=\"y.env\"\n", "CONFIG_DEFAULT_ENV_FILE or CONFIG_ENV_DEFAULT_ENV_TEXT_FILE"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fragment := fragment
			if strings.HasPrefix(test.name, "another") {
				fragment += "CONFIG_DEFAULT_ENV_FILE=\"x.env\"\nCONFIG_ENV_DEFAULT_ENV_TEXT_FILE=\"x.env\"\n"
			}
			err := uboot.CheckConfig(fragment, test.final) // runs check-config
			if (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
				t.Errorf("CheckConfig = %v; want %q", err, test.wrong)
			}
		})
	}
}

// The offsets that Linux uses are those that U-Boot uses.
func TestFwEnvConfig(t *testing.T) {
	for _, offset := range []int{uboot.EnvOffset, uboot.EnvOffset2} {
		if line := fmt.Sprintf("/dev/mmcblk0 %#x %#x\n", offset, uboot.EnvSize); !strings.Contains(uboot.FwEnvConfig, line) {
			t.Errorf("fw_env.config has no line %q", line)
		}
		if value := fmt.Sprintf("=%#x\n", offset); !strings.Contains(uboot.Config, value) {
			t.Errorf("updaterd.config has no option %q", value)
		}
	}
	if line := fmt.Sprintf("CONFIG_ENV_SIZE=%#x\n", uboot.EnvSize); !strings.Contains(uboot.Config, line) {
		t.Errorf("updaterd.config has no line %q", line)
	}
}

// An integrator copies the list from the documentation.
func TestWriteableListIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/boot-contract.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), `"`+uboot.WriteableList+`"`) {
		t.Errorf("docs/boot-contract.md does not give the list %q", uboot.WriteableList)
	}
	env, err := uboot.Default()
	if err != nil {
		t.Fatal(err)
	}
	// What Linux may remove must not come back with the defaults.
	if env["boot_bad"] != "" || env["env_id"] != "" {
		t.Errorf("boot_bad = %q and env_id = %q by default", env["boot_bad"], env["env_id"])
	}
}
