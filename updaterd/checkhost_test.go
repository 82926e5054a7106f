// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/health"
)

// units is a systemd that knows them by their load state and active state.
type units map[string]string

func (u units) Unit(_ context.Context, name string) (health.Unit, error) {
	if !strings.Contains(name, ".") {
		return health.Unit{}, fmt.Errorf("unit name %s is not valid", name)
	}
	load, active, _ := strings.Cut(u[name], " ")
	return health.Unit{LoadState: cmp.Or(load, "not-found"), ActiveState: cmp.Or(active, "inactive")}, nil
}

func TestUnitsWithSystemd(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	running := units{"a.service": "loaded active", "b.service": "loaded reloading", "boot-complete.target": "loaded active"}
	for name, tc := range map[string]struct {
		names    []string
		complete bool
		change   units
		dead     bool // the bus
		trial    bool
		level    string
		text     string
		cure     string
	}{
		"none":                 {nil, false, nil, true, false, check.OK, "none", ""},
		"all active":           {[]string{"a.service", "b.service"}, true, nil, false, false, check.OK, "3, all active", ""},
		"the target twice":     {[]string{"boot-complete.target"}, true, nil, false, false, check.OK, "1, all active", ""},
		"no bus":               {[]string{"a.service"}, false, nil, true, false, check.Failure, "no such socket", "install and start dbus"},
		"misspelt":             {[]string{"a.service", "x.service"}, true, nil, false, false, check.Failure, "x.service (systemd says not-found)", "correct its name in [health] units"},
		"no name of a unit":    {[]string{"a"}, false, nil, false, false, check.Failure, "unit name a is not valid", "such as app.service"},
		"masked":               {[]string{"a.service"}, false, units{"a.service": "masked inactive"}, false, false, check.Failure, "a.service (systemd says masked)", `"systemctl unmask a.service"`},
		"bad":                  {[]string{"a.service"}, false, units{"a.service": "bad-setting inactive"}, false, false, check.Failure, "bad-setting", `"systemd-analyze verify a.service"`},
		"two":                  {[]string{"x.service", "a.service"}, false, units{"a.service": "masked inactive"}, false, true, check.Failure, "x.service (systemd says not-found), a.service (systemd says masked)", `x.service, or correct its name in [health] units; run "systemctl unmask a.service"`},
		"failed":               {[]string{"a.service"}, false, units{"a.service": "loaded failed"}, false, false, check.Warning, "not active at this moment: a.service (failed)", `"systemctl status a.service"`},
		"starting in a trial":  {[]string{"a.service", "b.service"}, false, units{"a.service": "loaded activating"}, false, true, check.OK, "2, all loaded; this trial waits for a.service (activating)", ""},
		"nothing requires it":  {nil, true, units{"boot-complete.target": "loaded inactive"}, false, false, check.Warning, "boot-complete.target (inactive)", "Wants=boot-complete.target"},
		"and another is down":  {[]string{"a.service"}, true, units{"a.service": "loaded inactive", "boot-complete.target": "loaded inactive"}, false, false, check.Warning, "a.service (inactive), boot-complete.target (inactive)", "systemd-boot-check-no-failures"},
		"missing in its trial": {[]string{"x.service"}, false, nil, false, true, check.Failure, "x.service", "install x.service"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, c := fitting(t)
			c.Health.Units, c.Health.BootComplete = tc.names, tc.complete
			if tc.trial {
				putEnvironment(t, dir, "boot_slot=b", "upgrade_available=1")
			}
			there := maps.Clone(running)
			maps.Copy(there, tc.change)
			ask := func() (unitState, io.Closer, error) {
				if tc.dead {
					return nil, nil, errors.New("no such socket")
				}
				return there, io.NopCloser(nil), nil
			}
			r := check.Run([]check.Check{{Name: "health units", Look: func() (string, error) { return checkUnits(c, root, ask) }}})[0]
			if r.Level != tc.level || !strings.Contains(r.Text, tc.text) || !strings.Contains(r.Cure, tc.cure) || (r.Cure == "") != (tc.cure == "") {
				t.Errorf("%+v; want %s with %q, and the cure %q", r, tc.level, tc.text, tc.cure)
			}
		})
	}
}

// TestCuresNameSections: a section that a cure names is there.
func TestCuresNameSections(t *testing.T) {
	var sources []string
	for _, pattern := range []string{"check*.go", "internal/check/*.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, found...)
	}
	named := 0
	for _, path := range sources {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"([A-Z][^"\\]*)\\?" in (docs/[a-z-]+\.md)`).FindAllStringSubmatch(string(text), -1) {
			named++
			page, err := os.ReadFile("../" + m[2])
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			if !regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(m[1]) + `\b`).Match(page) {
				t.Errorf("%s names a section %q, and %s has none", path, m[1], m[2])
			}
		}
	}
	if named == 0 {
		t.Error("no cure names a section")
	}
}

// TestInstalledUnitsFit: the checks find what "make install" installs.
func TestInstalledUnitsFit(t *testing.T) {
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed")
	}
	for init, want := range map[string]map[string]string{
		"systemd":  {"trial's end": "by /usr/lib/systemd/system/sysinit.target.wants/updaterd-trial.service", "unit's paths": "may write where the configuration says"},
		"sysvinit": {"trial's end": "no systemd", "unit's start": "by /etc/init.d/S80updaterd"},
	} {
		root := t.TempDir()
		install := exec.CommandContext(t.Context(), "make", "-s", "-C", "..", "install-init", "INIT="+init, "INITSCRIPT=S80updaterd", "DESTDIR="+root,
			"PREFIX=/usr", "SYSCONFDIR=/etc", "UNITDIR=/usr/lib/systemd/system")
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("make install-init: %v\n%s", err, out)
		}
		put(t, root, "run/lock/.keep", nil)
		put(t, root, "var/.keep", nil)
		if err := os.Symlink("../run/lock", filepath.Join(root, "var/lock")); err != nil {
			t.Fatal(err)
		}
		if init == "systemd" {
			put(t, root, "run/systemd/system/.keep", nil)
		}
		_, c := fitting(t)
		host := hostOf(c, root)
		host.DataDir, host.Environment = "/data/updaterd", nil
		for _, r := range check.Run(check.List(host)) {
			if text, ok := want[r.Name]; ok && (r.Level != check.OK || !strings.Contains(r.Text, text)) {
				t.Errorf("INIT=%s: %+v; want %q", init, r, text)
			}
		}
	}
}
