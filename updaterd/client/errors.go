// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"strings"

	"github.com/godbus/dbus/v5"
)

// ErrorName is one of the stable names of docs/errors.md.
type ErrorName string

// The names that updaterd gives. On the bus "org.updaterd.Error." comes before them.
const (
	UntrustedSignature  ErrorName = "UntrustedSignature"
	MalformedBundle     ErrorName = "MalformedBundle"
	NotCompatible       ErrorName = "NotCompatible"
	NotARecipient       ErrorName = "NotARecipient"
	TooLarge            ErrorName = "TooLarge"
	BelowFloor          ErrorName = "BelowFloor"
	NotPermitted        ErrorName = "NotPermitted"
	KnownBad            ErrorName = "KnownBad"
	EnvironmentUnproven ErrorName = "EnvironmentUnproven"
	EnvironmentDamaged  ErrorName = "EnvironmentDamaged"
	BootedSlotUnproven  ErrorName = "BootedSlotUnproven"
	Busy                ErrorName = "Busy"
	NoSpace             ErrorName = "NoSpace"
	Network             ErrorName = "Network"
	OverBudget          ErrorName = "OverBudget"
	Medium              ErrorName = "Medium"
	SourceChanged       ErrorName = "SourceChanged"
	Cancelled           ErrorName = "Cancelled"
	NotAuthorized       ErrorName = "NotAuthorized"
	BadState            ErrorName = "BadState"
	BadArgument         ErrorName = "BadArgument"
	Unhealthy           ErrorName = "Unhealthy"
	Internal            ErrorName = "Internal"
	Replayed            ErrorName = "Replayed"
	Expired             ErrorName = "Expired"
	NotOffered          ErrorName = "NotOffered"
	NotMigrated         ErrorName = "NotMigrated"
)

// Unreachable is this package's own name: the bus or the daemon does not answer.
const Unreachable ErrorName = "Unreachable"

// Names lists every name that updaterd gives, in the order of docs/errors.md.
func Names() []ErrorName {
	return []ErrorName{
		UntrustedSignature, MalformedBundle, NotCompatible, NotARecipient, TooLarge, BelowFloor, NotPermitted, KnownBad,
		EnvironmentUnproven, EnvironmentDamaged, BootedSlotUnproven, Busy, NoSpace, Network,
		OverBudget, Medium, SourceChanged, Cancelled, NotAuthorized, BadState, BadArgument,
		Unhealthy, Internal, Replayed, Expired, NotOffered, NotMigrated,
	}
}

// Error is what went wrong, with a name to branch on and a sentence to show.
type Error struct {
	Name    ErrorName
	Message string
	cause   error
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the error of the bus, if it was one.
func (e *Error) Unwrap() error { return e.cause }

// NameOf returns the name of err: "" for nil, Internal for an error of another kind.
func NameOf(err error) ErrorName {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Name
	}
	return Internal
}

// wrap turns an error of godbus into an *Error.
func wrap(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	var e dbus.Error
	if !errors.As(err, &e) {
		if p := new(dbus.Error); errors.As(err, &p) {
			e = *p
		} else {
			return &Error{Name: Unreachable, Message: "ask updaterd: " + err.Error(), cause: err}
		}
	}
	message := e.Error()
	if name, ok := strings.CutPrefix(e.Name, "org.updaterd.Error."); ok {
		return &Error{Name: ErrorName(name), Message: message, cause: err}
	}
	name, ok := strings.CutPrefix(e.Name, "org.freedesktop.DBus.Error.")
	switch {
	case ok && name == "AccessDenied":
		return &Error{Name: NotAuthorized, Message: "ask updaterd: the bus does not let this user talk to it: " + message, cause: err}
	case ok && (name == "UnknownObject" || name == "InvalidArgs" || name == "PropertyReadOnly"):
		return &Error{Name: BadArgument, Message: message, cause: err}
	case ok && unreachable(name):
		return &Error{Name: Unreachable, Message: "reach updaterd: " + message, cause: err}
	}
	return &Error{Name: Internal, Message: e.Name + ": " + message, cause: err}
}

func unreachable(name string) bool {
	switch name {
	case "ServiceUnknown", "NameHasNoOwner", "NoServer", "NoReply", "Disconnected", "TimedOut", "Timeout":
		return true
	}
	return strings.HasPrefix(name, "Spawn.")
}
