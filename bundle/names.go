// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"time"
)

// The rules of a manifest for what is stated elsewhere too, in channel metadata and permits.

// CheckChannel checks the name of a channel.
func CheckChannel(name string) error {
	return checkWord("channel", name, maxClass, lower+digits, "-")
}

// CheckRelease checks the kinds of device that a release is for, and its version.
func CheckRelease(compatible []string, version string) error {
	if err := checkList("compatible", compatible); err != nil {
		return err
	}
	return checkLabel("version", version)
}

// CheckCompatible checks the kinds of device that something is for.
func CheckCompatible(compatible []string) error { return checkList("compatible", compatible) }

// checkTime checks that a time is in UTC and whole seconds. what is what the error
// calls it.
func checkTime(what string, t time.Time) error {
	if t.Location() != time.UTC || t.Nanosecond() != 0 || t.Year() < 1970 || t.Year() > 9999 {
		return fmt.Errorf("%s %v: want UTC, whole seconds, from 1970 on", what, t)
	}
	return nil
}

// CheckPeriod checks from when to when a statement holds.
func CheckPeriod(issued, expires time.Time) error {
	if err := checkTime("issued", issued); err != nil {
		return err
	}
	if err := checkTime("expires", expires); err != nil {
		return err
	}
	if !expires.After(issued) {
		return fmt.Errorf("expires %s, which is not after it was issued, %s", expires.Format(time.RFC3339), issued.Format(time.RFC3339))
	}
	return nil
}
