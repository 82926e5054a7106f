// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/health"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// The hook is told whose the data are and what runs; what is not known is empty.
func TestMigrationIsTold(t *testing.T) {
	c := config.Defaults()
	if migration(c) != nil {
		t.Error("there is a hook without a configuration of one")
	}
	out := filepath.Join(t.TempDir(), "told")
	c.Migrate.Argv = []string{"/bin/sh", "-c", `env | grep UPDATERD_ | sort >"$1"; echo no room; exit $2`, "sh", out, "0"}
	m := update.Migration{From: update.Origin{Version: "1 beta"}, To: update.Origin{Version: "2", Sequence: 20, BuildID: "b-2"}, Slot: "b"}
	if err := migration(c)(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	told, err := os.ReadFile(out)
	want := "UPDATERD_NEW_BUILD_ID=b-2\nUPDATERD_NEW_SEQUENCE=20\nUPDATERD_NEW_VERSION=2\nUPDATERD_OLD_BUILD_ID=\nUPDATERD_OLD_SEQUENCE=\nUPDATERD_OLD_VERSION=1 beta\n"
	if err != nil || string(told) != want {
		t.Errorf("the hook was told, %v:\n%swant\n%s", err, told, want)
	}
	c.Migrate.Argv[5] = "3"
	if err := migration(c)(t.Context(), m); err == nil || err.Error() != "command migrate exited with status 3: no room" {
		t.Errorf("a hook that fails: %v", err)
	}
}

// A bus that hangs must not keep a trial from its last resort.
func TestSilentBus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	bus, err := net.Listen("unix", socket) // takes connections into its backlog, and is silent
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	start := time.Now()
	conn, err := connectBus(t.Context(), 100*time.Millisecond)
	if err == nil {
		conn.Close()
	}
	if took := time.Since(start); err == nil || !strings.Contains(err.Error(), "no answer") || took > 5*time.Second {
		t.Errorf("connectBus = %v after %v, want an error soon", err, took)
	}
}

// A daemon whose checks ask for units starts without a bus; the units' states
// are unknown then, which is no verdict before the deadline.
func TestUnitsWithoutBus(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	c := config.Defaults()
	c.Health.Units = []string{"app.service"}
	checker, err := health.New(checkerOptions(t.Context(), t.TempDir(), c))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var verdict *health.Unhealthy
	err = checker.Check(ctx, nil)
	if !errors.As(err, &verdict) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connect to D-Bus") {
		t.Errorf("Check = %v; want what is unknown at the deadline, and why", err)
	}

	// A question that is given a time does not wait longer for a bus that is silent.
	bus, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	start := time.Now()
	ask, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if conn, err := dialer(t.Context())(ask); err == nil {
		conn.Close()
		t.Error("connected to a bus that is silent")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a question took %v", took)
	}
}

// systemd is asked whether the system goes down also if no check is about units.
func TestWhoIsAsked(t *testing.T) {
	for _, tc := range []struct {
		name    string
		systemd bool
		health  string
		want    bool
	}{
		{"commands without systemd", false, "", false},
		{"commands with systemd", true, "", true},
		{"units", false, "units", true},
		{"boot-complete", false, "boot_complete", true},
	} {
		dir := t.TempDir()
		if tc.systemd {
			if err := os.MkdirAll(filepath.Join(dir, "run/systemd/system"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		c := config.Defaults()
		switch tc.health {
		case "units":
			c.Health.Units = []string{"app.service"}
		case "boot_complete":
			c.Health.BootComplete = true
		}
		if got := checkerOptions(t.Context(), dir, c).Systemd != nil; got != tc.want {
			t.Errorf("%s: systemd is asked: %v", tc.name, got)
		}
	}
}
