// SPDX-License-Identifier: Apache-2.0

package health

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

const (
	systemdName    = "org.freedesktop.systemd1"
	systemdPath    = dbus.ObjectPath("/org/freedesktop/systemd1")
	getAll         = "org.freedesktop.DBus.Properties.GetAll"
	unitProperties = systemdName + ".Unit"
	serviceProps   = systemdName + ".Service"
)

// Bus asks systemd over D-Bus.
type Bus struct{ conn *dbus.Conn }

// NewBus uses a connection to the system bus, which stays the caller's.
func NewBus(conn *dbus.Conn) *Bus { return &Bus{conn: conn} }

// Unit loads the unit if it is not loaded, as systemctl show does.
func (b *Bus) Unit(ctx context.Context, name string) (Unit, error) {
	var path dbus.ObjectPath
	manager := b.conn.Object(systemdName, systemdPath)
	if err := manager.CallWithContext(ctx, systemdName+".Manager.LoadUnit", 0, name).Store(&path); err != nil {
		return Unit{}, fmt.Errorf("ask systemd for unit %s: %w", name, err)
	}
	object := b.conn.Object(systemdName, path)
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

// value takes a property of the expected type; anything else counts as absent.
func value[T any](properties map[string]dbus.Variant, name string) T {
	v, _ := properties[name].Value().(T)
	return v
}
