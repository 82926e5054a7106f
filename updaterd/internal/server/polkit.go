// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// The polkit actions, declared in data/org.updaterd.policy.
const (
	actionInspect       = "org.updaterd.inspect"
	actionInstall       = "org.updaterd.install"
	actionRetry         = "org.updaterd.retry-known-bad"
	actionDowngrade     = "org.updaterd.downgrade"
	actionMark          = "org.updaterd.mark"
	actionOverrideTrial = "org.updaterd.override-trial"
	actionControlJob    = "org.updaterd.control-job"
	actionReboot        = "org.updaterd.reboot"
)

const (
	polkitName  = "org.freedesktop.PolicyKit1"
	polkitPath  = "/org/freedesktop/PolicyKit1/Authority"
	polkitCheck = "org.freedesktop.PolicyKit1.Authority.CheckAuthorization"
)

// How long polkit may take: a person types a password, a rule does not.
const (
	polkitTimeout            = 20 * time.Second
	polkitInteractiveTimeout = 5 * time.Minute
)

// An authority decides who may do what: root may, polkit is asked about
// anybody else, and where there is no polkit nobody else may.
type authority struct {
	conn *dbus.Conn
	// userID tells the user who owns a connection to the bus.
	userID func(ctx context.Context, sender string) (uint32, error)
}

func newAuthority(conn *dbus.Conn) *authority {
	return &authority{conn: conn, userID: func(ctx context.Context, sender string) (uint32, error) {
		var uid uint32
		err := conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixUser", 0, sender).Store(&uid)
		return uid, err
	}}
}

// check returns nil if the sender of msg may do action. Every doubt is a no.
func (a *authority) check(ctx context.Context, msg *dbus.Message, action string) error {
	sender, _ := msg.Headers[dbus.FieldSender].Value().(string)
	if sender == "" {
		return namedf(update.NameNotAuthorized, "authorise %s: the request names no sender", action)
	}
	interactive := msg.Flags&dbus.FlagAllowInteractiveAuthorization != 0
	timeout := polkitTimeout
	if interactive {
		timeout = polkitInteractiveTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	uid, err := a.userID(ctx, sender)
	if err != nil {
		return namedf(update.NameNotAuthorized, "authorise %s: ask the bus who %s is: %v", action, sender, err)
	}
	if uid == 0 {
		return nil
	}
	return a.askPolkit(ctx, sender, action, interactive)
}

func (a *authority) askPolkit(ctx context.Context, sender, action string, interactive bool) error {
	type subject struct {
		Kind    string
		Details map[string]dbus.Variant
	}
	var result struct {
		Authorized bool
		Challenge  bool
		Details    map[string]string
	}
	var flags uint32
	if interactive {
		flags = 1 // AllowUserInteraction
	}
	who := subject{Kind: "system-bus-name", Details: map[string]dbus.Variant{"name": dbus.MakeVariant(sender)}}
	err := a.conn.Object(polkitName, polkitPath).
		CallWithContext(ctx, polkitCheck, 0, who, action, map[string]string{}, flags, "").Store(&result)
	switch {
	case polkitAbsent(err):
		return namedf(update.NameNotAuthorized, "authorise %s: there is no polkit on this device, so only root may do this; run it as root", action)
	case err != nil:
		return namedf(update.NameNotAuthorized, "authorise %s: ask polkit: %v", action, err)
	case result.Authorized:
		return nil
	case result.Challenge:
		return namedf(update.NameNotAuthorized, "authorise %s: polkit wants a password and nobody could be asked; run it as root, or add a polkit rule for %s", action, action)
	}
	return namedf(update.NameNotAuthorized, "authorise %s: polkit says no; run it as root, or add a polkit rule for %s", action, action)
}

// polkitAbsent tells "there is no polkit" from "polkit is there and broken".
func polkitAbsent(err error) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner"
}
