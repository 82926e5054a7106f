// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"fmt"
)

// The stable error names of docs/errors.md. Others are the engine's own.
const (
	NameUntrustedSignature  = "UntrustedSignature"
	NameMalformedBundle     = "MalformedBundle"
	NameNotCompatible       = "NotCompatible"
	NameNotARecipient       = "NotARecipient"
	NameTooLarge            = "TooLarge"
	NameBelowFloor          = "BelowFloor"
	NameNotPermitted        = "NotPermitted"
	NameKnownBad            = "KnownBad"
	NameEnvironmentUnproven = "EnvironmentUnproven"
	NameEnvironmentDamaged  = "EnvironmentDamaged"
	NameBootedSlotUnproven  = "BootedSlotUnproven"
	NameBusy                = "Busy"
	NameNoSpace             = "NoSpace"
	NameNetwork             = "Network"
	NameOverBudget          = "OverBudget"
	NameMedium              = "Medium"
	NameSourceChanged       = "SourceChanged"
	NameCancelled           = "Cancelled"
	NameNotAuthorized       = "NotAuthorized"
	NameBadState            = "BadState"
	NameBadArgument         = "BadArgument"
	NameUnhealthy           = "Unhealthy"
	NameReplayed            = "Replayed"
	NameExpired             = "Expired"
	NameNotOffered          = "NotOffered"
	NameNotMigrated         = "NotMigrated"
	NameInternal            = "Internal"
)

// An Error is a sentence for a person with a stable name for programs. It
// satisfies Named.
type Error struct {
	Name    string
	Message string
	Err     error // the cause, if any; Message does not repeat it
}

// Error returns the sentence and its cause.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Message
	}
	if e.Message == "" {
		return e.Err.Error()
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrorName returns the stable name.
func (e *Error) ErrorName() string { return e.Name }

// errorf makes an Error; a %w verb keeps the cause reachable.
func errorf(name, format string, args ...any) *Error {
	return &Error{Name: name, Err: fmt.Errorf(format, args...)}
}

// nameOf is the stable name of any error.
func nameOf(err error) string {
	var n Named
	if errors.As(err, &n) {
		return n.ErrorName()
	}
	return NameInternal
}
