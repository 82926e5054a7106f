// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

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
