// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// Bus starts a dbus-daemon of the test's own and returns its address. It has
// the shape of a system bus: nothing may be owned or called but what the
// policies allow. Each policy is a file with a <busconfig>; with none, all is
// allowed to everybody.
func Bus(t testing.TB, policies ...string) string {
	t.Helper()
	// Not t.TempDir: the path of a socket has at most 107 bytes, and other users must reach it.
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "bus.conf")
	if err := os.WriteFile(config, []byte(busConfig(filepath.Join(dir, "socket"), policies)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog", "--print-address=1")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start a private bus: %v; the package dbus (or dbus-daemon) has what it needs", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("start a private bus: read its address: %v", err)
	}
	return strings.TrimSpace(address)
}

func busConfig(socket string, policies []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
`, socket)
	if len(policies) == 0 {
		b.WriteString(`    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
`)
	} else {
		b.WriteString(`    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
`)
	}
	b.WriteString(`    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
  </policy>
`)
	for _, p := range policies {
		fmt.Fprintf(&b, "  <include>%s</include>\n", p)
	}
	b.WriteString("</busconfig>\n")
	return b.String()
}

// Connect connects to a bus for the length of the test.
func Connect(t testing.TB, address string) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
