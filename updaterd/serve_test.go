// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/updaterd/internal/config"
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
