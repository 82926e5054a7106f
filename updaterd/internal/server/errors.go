// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// errorPrefix comes before a stable error name on the bus.
const errorPrefix = "org.updaterd.Error."

// names are the stable error names; docs/errors.md says what each one means.
var names = []string{
	update.NameUntrustedSignature, update.NameMalformedBundle, update.NameNotCompatible, update.NameNotARecipient, update.NameTooLarge,
	update.NameBelowFloor, update.NameNotPermitted, update.NameKnownBad, update.NameEnvironmentUnproven, update.NameEnvironmentDamaged,
	update.NameBootedSlotUnproven, update.NameBusy, update.NameNoSpace, update.NameNetwork,
	update.NameOverBudget, update.NameMedium, update.NameSourceChanged, update.NameCancelled,
	update.NameNotAuthorized, update.NameBadState, update.NameBadArgument, update.NameUnhealthy, update.NameInternal,
	update.NameReplayed, update.NameExpired, update.NameNotOffered, update.NameNotMigrated,
}

// ErrBusLost says that the connection to the message bus ended while the
// server ran. There is no way back but to start again.
var ErrBusLost = errors.New("serve D-Bus: the message bus closed the connection")

// namedf is an error that the server itself has found.
func namedf(name, format string, args ...any) error {
	return &update.Error{Name: name, Message: fmt.Sprintf(format, args...)}
}

// busError gives err the name under which it leaves. A name that is not in the
// list is a mistake of ours and leaves as Internal, so that the list stays true.
func busError(err error) *dbus.Error {
	if err == nil {
		return nil
	}
	name := update.NameInternal
	var n update.Named
	if errors.As(err, &n) && slices.Contains(names, n.ErrorName()) {
		name = n.ErrorName()
	}
	return &dbus.Error{Name: errorPrefix + name, Body: []any{clean(err.Error())}}
}

func unknown(what, format string, args ...any) *dbus.Error {
	return &dbus.Error{Name: "org.freedesktop.DBus.Error." + what, Body: []any{clean(fmt.Sprintf(format, args...))}}
}
