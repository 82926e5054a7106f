// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"fmt"
	"time"
)

// An Error says why bytes could not be had. Its stable name is "Network".
type Error struct {
	// Ref is what was read, without credentials and query.
	Ref string
	// Status is the HTTP status that caused the error, or 0.
	Status int

	kind  kind
	after time.Duration // what the server asked us to wait
	err   error
}

type kind int

const (
	transient kind = iota // worth another try
	final                 // another try would end the same way
	changed
	truncated
)

func (e *Error) Error() string { return fmt.Sprintf("fetch %s: %v", e.Ref, e.err) }
func (e *Error) Unwrap() error { return e.err }

// ErrorName is the error's name on D-Bus.
func (e *Error) ErrorName() string { return "Network" }

// Changed reports that the file behind Ref is not the one that was read before.
// The next request is made to the new file, so the caller must first find out
// what it is.
func (e *Error) Changed() bool { return e.kind == changed }

// Truncated reports that the file ends before the range that was asked for.
func (e *Error) Truncated() bool { return e.kind == truncated }

// Causes that tests and callers can tell apart.
var (
	// ErrNoRange: the server sends the whole file whatever range is asked for.
	ErrNoRange = errors.New("server ignores Range requests; serve the bundle from a server or CDN that supports them")
	// ErrStalled: the connection is open, but no byte came for too long.
	ErrStalled = errors.New("connection stalled")
	// ErrNoBundle: somebody answers, with something that nobody would serve as a
	// bundle.
	ErrNoBundle = errors.New("an answer that is no bundle: is there a login page on this network?")
)
