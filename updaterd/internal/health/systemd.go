// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	getOne         = "org.freedesktop.DBus.Properties.Get"
	getAll         = "org.freedesktop.DBus.Properties.GetAll"
	unitProperties = systemdName + ".Unit"
	serviceProps   = systemdName + ".Service"
)

// Bus asks systemd over D-Bus. It connects when it is asked, and again after the
// connection was lost: a bus that is late or restarted is no verdict on a system.
type Bus struct {
	dial Dial

	mu   sync.Mutex
	conn *dbus.Conn // nil before the first question
}

// A Dial connects to the system bus. ctx bounds how long that takes, and not the
// life of the connection, which whoever dials closes.
type Dial func(ctx context.Context) (*dbus.Conn, error)

// NewBus connects by dial, which is not called before there is a question.
func NewBus(dial Dial) *Bus { return &Bus{dial: dial} }

func (b *Bus) connect(ctx context.Context) (*dbus.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil && b.conn.Connected() {
		return b.conn, nil
	}
	conn, err := b.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to D-Bus: %w", err)
	}
	b.conn = conn
	return conn, nil
}

// Unit loads the unit if it is not loaded, as systemctl show does.
func (b *Bus) Unit(ctx context.Context, name string) (Unit, error) {
	conn, err := b.connect(ctx)
	if err != nil {
		return Unit{}, fmt.Errorf("ask systemd for unit %s: %w", name, err)
	}
	var path dbus.ObjectPath
	manager := conn.Object(systemdName, systemdPath)
	if err := manager.CallWithContext(ctx, systemdName+".Manager.LoadUnit", 0, name).Store(&path); err != nil {
		return Unit{}, fmt.Errorf("ask systemd for unit %s: %w", name, err)
	}
	object := conn.Object(systemdName, path)
	var unit map[string]dbus.Variant
	if err := object.CallWithContext(ctx, getAll, 0, unitProperties).Store(&unit); err != nil {
		return Unit{}, fmt.Errorf("ask systemd for unit %s: %w", name, err)
	}
	service := map[string]dbus.Variant{}
	if strings.HasSuffix(name, ".service") {
		if err := object.CallWithContext(ctx, getAll, 0, serviceProps).Store(&service); err != nil {
			return Unit{}, fmt.Errorf("ask systemd for unit %s: %w", name, err)
		}
	}
	u := Unit{
		LoadState:   value[string](unit, "LoadState"),
		ActiveState: value[string](unit, "ActiveState"),
		SubState:    value[string](unit, "SubState"),
		Result:      value[string](service, "Result"),
		Restarts:    value[uint32](service, "NRestarts"),
		Invocation:  hex.EncodeToString(value[[]byte](unit, "InvocationID")),
	}
	if u.LoadState == "" || u.ActiveState == "" {
		return Unit{}, fmt.Errorf("ask systemd for unit %s: the answer has no state", name)
	}
	return u, nil
}

// Stopping asks whether a shutdown has begun, of whatever kind.
func (b *Bus) Stopping(ctx context.Context) (bool, error) {
	conn, err := b.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("ask systemd for the system's state: %w", err)
	}
	var state string
	manager := conn.Object(systemdName, systemdPath)
	if err := manager.CallWithContext(ctx, getOne, 0, systemdName+".Manager", "SystemState").Store(&state); err != nil {
		return false, fmt.Errorf("ask systemd for the system's state: %w", err)
	}
	switch state {
	case "stopping":
		return true, nil
	case "running", "degraded", "maintenance":
		return false, nil
	}
	// Before its start is complete, systemd says "starting" even while it stops.
	return false, fmt.Errorf("ask systemd for the system's state: %q does not tell whether it stops", state)
}

// value takes a property of the expected type; anything else counts as absent.
func value[T any](properties map[string]dbus.Variant, name string) T {
	v, _ := properties[name].Value().(T)
	return v
}
