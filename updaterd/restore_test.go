// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl"
)

// A fw_env.config that names a wrong place finds no environment there, and
// nothing may be written to it: it belongs to somebody else.
func TestRestoresOnlyWhereAnEnvironmentWas(t *testing.T) {
	dir, c := fitting(t)
	right, err := os.ReadFile(c.Boot.FwEnvConfig)
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "defaults", []byte("boot_slot=a\nbootlimit=3\naltbootcmd=run fallback\nfrom=defaults\n"))
	c.Boot.Defaults = filepath.Join(dir, "defaults")
	change := bootctl.Change{Primary: "a", Trial: bootctl.TrialEnd, NotBad: []bootctl.Slot{"a"}, Bad: []bootctl.Slot{"b"}}

	disk, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil {
		t.Fatal(err)
	}
	disk = append(disk, bytes.Repeat([]byte("kernel"), 0x1000)...)
	put(t, dir, "env", disk)
	same := func() bool {
		now, err := os.ReadFile(filepath.Join(dir, "env"))
		return err == nil && bytes.Equal(now, disk)
	}
	if err := remember(c, "a"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"offset": fmt.Sprintf("%s/env 0x2000 0x1000\n%s/env 0x3000 0x1000\n", dir, dir),
		"size":   fmt.Sprintf("%s/env 0x0 0x800\n%s/env 0x1000 0x800\n", dir, dir),
	} {
		put(t, dir, "fw_env.config", []byte(text))
		if err := remember(c, "a"); err != nil { // as the daemon does before
			t.Fatal(err)
		}
		if err := restore(c, change); err == nil || !strings.Contains(err.Error(), "no intact environment is on record") || !same() {
			t.Errorf("wrong %s: restore = %v; the medium is as before: %v", name, err, same())
		}
	}
	// What is on record is restored once it is lost.
	put(t, dir, "fw_env.config", right)
	disk[9] ^= 1
	disk[0x1009] ^= 1
	put(t, dir, "env", disk)
	if err := restore(c, change); err != nil {
		t.Fatal(err)
	}
	control, err := openEnvironment(c, "a")
	if err != nil {
		t.Fatal(err)
	}
	if env, err := control.Env(); err != nil || env.Get("from") != "defaults" {
		t.Errorf("the environment is %v, %v", env, err)
	}
	// Without the record, as after the loss of the data partition, it is not: nobody
	// knows then whether this is a trial either.
	if err := os.RemoveAll(c.DataDir); err != nil {
		t.Fatal(err)
	}
	disk[9] ^= 2
	put(t, dir, "env", disk)
	if err := restore(c, change); err == nil || !same() {
		t.Errorf("without a record: restore = %v; the medium is as before: %v", err, same())
	}
}
