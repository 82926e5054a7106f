// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
)

// serve plays systemd on the other end of a pipe: it lets anybody in and
// answers calls with what answer returns. It needs no bus.
func serve(t *testing.T, answer func(path dbus.ObjectPath, member string, args []any) ([]any, error)) *dbus.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	go func() {
		err := play(theirs, answer)
		theirs.Close()
		done <- err
	}()
	conn, err := dbus.NewConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Auth([]dbus.Auth{dbus.AuthAnonymous()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return conn
}

// errHangUp ends the connection, as a bus that is restarted does.
var errHangUp = errors.New("hang up")

func play(pipe net.Conn, answer func(dbus.ObjectPath, string, []any) ([]any, error)) error {
	r := bufio.NewReader(pipe)
	for line := ""; !strings.HasPrefix(line, "BEGIN"); {
		var err error
		if line, err = r.ReadString('\n'); err != nil {
			return err
		}
		reply := "ERROR\r\n"
		switch line = strings.TrimPrefix(line, "\x00"); {
		case strings.HasPrefix(line, "AUTH ANONYMOUS"):
			reply = "OK 0123456789abcdef0123456789abcdef\r\n"
		case strings.HasPrefix(line, "AUTH"):
			reply = "REJECTED ANONYMOUS\r\n"
		case strings.HasPrefix(line, "BEGIN"):
			continue
		}
		if _, err := pipe.Write([]byte(reply)); err != nil {
			return err
		}
	}
	for serial := uint32(1); ; serial++ {
		call, err := dbus.DecodeMessage(r)
		if err != nil {
			return err
		}
		path, _ := call.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
		member, _ := call.Headers[dbus.FieldMember].Value().(string)
		body, err := answer(path, member, call.Body)
		if err == errHangUp {
			return err
		}
		reply := &dbus.Message{Type: dbus.TypeMethodReply, Body: body, Headers: map[dbus.HeaderField]dbus.Variant{}}
		if err != nil {
			reply.Type, reply.Body = dbus.TypeError, []any{err.Error()}
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant("org.freedesktop.systemd1.Broken")
		}
		reply.Headers[dbus.FieldReplySerial] = dbus.MakeVariant(call.Serial())
		if len(reply.Body) > 0 {
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(reply.Body...))
		}
		if err := send(pipe, reply, serial); err != nil {
			return err
		}
	}
}

// send writes a message with a serial, which the library keeps to itself.
func send(w net.Conn, m *dbus.Message, serial uint32) error {
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b.Bytes()[8:], serial)
	_, err := w.Write(b.Bytes())
	return err
}

// dials hands out connections, one a time, and then fails.
func dials(conns ...*dbus.Conn) Dial {
	return func(context.Context) (*dbus.Conn, error) {
		if len(conns) == 0 || conns[0] == nil {
			conns = conns[min(1, len(conns)):]
			return nil, errors.New("connection refused")
		}
		conn := conns[0]
		conns = conns[1:]
		return conn, nil
	}
}

// A trial goes on, whatever becomes of the bus in it.
func TestBusComesAndGoes(t *testing.T) {
	restart := false
	connect := func() *dbus.Conn {
		return serve(t, func(_ dbus.ObjectPath, member string, _ []any) ([]any, error) {
			if restart {
				return nil, errHangUp
			}
			if member == "LoadUnit" {
				return []any{systemdPath}, nil
			}
			return []any{map[string]dbus.Variant{"LoadState": dbus.MakeVariant("loaded"), "ActiveState": dbus.MakeVariant("active")}}, nil
		})
	}
	bus := NewBus(dials(nil, connect(), nil, connect()))
	for i, want := range []string{"connection refused", "", "", "EOF", "connection refused", "", ""} {
		restart = want == "EOF"
		_, err := bus.Unit(t.Context(), "app.target")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("question %d: %v; want error %q", i, err, want)
		}
	}
}

func TestBus(t *testing.T) {
	id := []byte{0xab, 0xcd}
	units := map[string]map[string]map[string]dbus.Variant{
		"app.service": {
			unitProperties: {"LoadState": dbus.MakeVariant("loaded"), "ActiveState": dbus.MakeVariant("activating"),
				"SubState": dbus.MakeVariant("auto-restart"), "InvocationID": dbus.MakeVariant(id)},
			serviceProps: {"Result": dbus.MakeVariant("exit-code"), "NRestarts": dbus.MakeVariant(uint32(4))},
		},
		"boot-complete.target": {
			unitProperties: {"LoadState": dbus.MakeVariant("loaded"), "ActiveState": dbus.MakeVariant("active"),
				"SubState": dbus.MakeVariant("active"), "InvocationID": dbus.MakeVariant([]byte{})},
		},
		"odd.target": {unitProperties: {"LoadState": dbus.MakeVariant(uint32(1))}},
	}
	systemState := ""
	paths := map[dbus.ObjectPath]string{}
	bus := NewBus(dials(serve(t, func(path dbus.ObjectPath, member string, args []any) ([]any, error) {
		switch member {
		case "LoadUnit":
			name := args[0].(string)
			if units[name] == nil {
				return nil, errors.New("out of order")
			}
			p := systemdPath + dbus.ObjectPath("/unit/"+strings.NewReplacer(".", "_2e", "-", "_2d").Replace(name))
			paths[p] = name
			return []any{p}, nil
		case "Get":
			if path != systemdPath || systemState == "" || !cmp.Equal(args, []any{"org.freedesktop.systemd1.Manager", "SystemState"}) {
				return nil, errors.New("no such property")
			}
			return []any{dbus.MakeVariant(systemState)}, nil
		case "GetAll":
			return []any{units[paths[path]][args[0].(string)]}, nil
		}
		return nil, errors.New("no such method " + member)
	})))
	for _, tc := range []struct {
		name, err string
		want      Unit
	}{
		{"app.service", "", Unit{"loaded", "activating", "auto-restart", "exit-code", 4, "abcd"}},
		{"boot-complete.target", "", Unit{LoadState: "loaded", ActiveState: "active", SubState: "active"}},
		{"odd.target", "the answer has no state", Unit{}},
		{"broken.service", "ask systemd for unit broken.service: out of order", Unit{}},
	} {
		got, err := bus.Unit(t.Context(), tc.name)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("Unit(%s) = %v; want error %q", tc.name, err, tc.err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("Unit(%s): %s", tc.name, diff)
		}
	}
	for state, known := range map[string]bool{"running": true, "degraded": true, "maintenance": true, "stopping": true,
		"initializing": false, "starting": false, "": false} {
		systemState = state
		stopping, err := bus.Stopping(t.Context())
		if stopping != (state == "stopping") || (err == nil) != known {
			t.Errorf("Stopping in state %q = %v, %v", state, stopping, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bus.Unit(ctx, "app.service"); !errors.Is(err, context.Canceled) {
		t.Errorf("Unit with a cancelled context = %v", err)
	}
}
