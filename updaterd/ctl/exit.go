// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"strings"

	"github.com/updaterd/updaterd/updaterd/client"
)

// The exit codes. docs/errors.md has them too, and a test compares the two.
const (
	exitOK            = 0
	exitFailure       = 1
	exitUsage         = 2
	exitUnreachable   = 3
	exitNotAuthorized = 4
	exitRefused       = 5
	exitNetwork       = 6
	exitRolledBack    = 7
	exitCancelled     = 8
	exitInterrupted   = 130
)

// An exit is one code and what it means.
type exit struct {
	code    int
	meaning string
}

func exits() []exit {
	return []exit{
		{exitOK, "done"},
		{exitFailure, "failed"},
		{exitUsage, "the command line, or an argument, makes no sense"},
		{exitUnreachable, "updaterd, or the message bus, does not answer"},
		{exitNotAuthorized, "not authorised"},
		{exitRefused, "refused before anything was changed"},
		{exitNetwork, "the network or the server failed"},
		{exitRolledBack, "the new system was judged bad and the device went back to the old one"},
		{exitCancelled, "the job was cancelled"},
		{exitInterrupted, "interrupted; a job that was begun goes on in the daemon"},
	}
}

// codeOf gives every stable error name its exit code, once.
func codeOf(name client.ErrorName) int {
	switch name {
	case "":
		return exitOK
	case client.BadArgument:
		return exitUsage
	case client.Unreachable:
		return exitUnreachable
	case client.NotAuthorized:
		return exitNotAuthorized
	case client.UntrustedSignature, client.MalformedBundle, client.NotCompatible, client.NotARecipient, client.TooLarge,
		client.BelowFloor, client.NotPermitted, client.KnownBad, client.EnvironmentUnproven, client.EnvironmentDamaged,
		client.BootedSlotUnproven, client.Busy, client.NoSpace, client.OverBudget, client.BadState,
		client.Replayed, client.Expired, client.NotOffered:
		return exitRefused
	case client.Network:
		return exitNetwork
	case client.Unhealthy:
		return exitRolledBack
	case client.Cancelled:
		return exitCancelled
	}
	return exitFailure // Medium, SourceChanged, NotMigrated, Internal
}

// jobError is a job that has ended otherwise than well.
type jobError struct {
	outcome client.Outcome
	err     error
}

func (e *jobError) Error() string { return e.err.Error() }
func (e *jobError) Unwrap() error { return e.err }

func exitCode(err error) int {
	var usage *usageError
	var job *jobError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &job):
		return job.code()
	}
	return codeOf(client.NameOf(err))
}

// code never says "refused": a job that was begun may have changed something.
func (e *jobError) code() int {
	switch e.outcome {
	case client.RolledBack:
		return exitRolledBack
	case client.WasCancelled:
		return exitCancelled
	}
	switch code := codeOf(client.NameOf(e.err)); code {
	case exitNetwork, exitCancelled, exitRolledBack:
		return code
	}
	return exitFailure
}

// hintFor is the next step after an error, if there is one.
func hintFor(command string, err error) string {
	var usage *usageError
	if errors.As(err, &usage) {
		return `run "` + strings.TrimSpace("updaterctl help "+command) + `"`
	}
	if errors.Is(err, context.Canceled) {
		return ""
	}
	switch client.NameOf(err) {
	case client.Unreachable:
		return `run "systemctl status updaterd", or without systemd "/etc/init.d/updaterd status"`
	case client.NotAuthorized:
		return `run it as root, for example with sudo`
	case client.Busy:
		return `run "updaterctl watch" to follow the job in hand, or "updaterctl cancel" to end it`
	case client.KnownBad:
		return `"updaterctl install --retry" tries a known-bad bundle again`
	case client.EnvironmentUnproven:
		// Not by updaterd, which reboots only into a trial or out of one.
		return `reboot the device once ("reboot"): the bootloader then proves that it reads the environment`
	case client.NoSpace:
		return `"updaterctl install --mode=stream" stores nothing`
	case client.Network:
		return `what was fetched is kept: run the same command again when the link is back`
	case client.Unhealthy:
		return `run "updaterctl history" for the reason`
	}
	return ""
}
