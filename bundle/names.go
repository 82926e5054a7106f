// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"time"
)

// The rules of a manifest for what is stated elsewhere too, in channel metadata.

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

// CheckTime checks that a time is in UTC and whole seconds. what is what the error
// calls it.
func CheckTime(what string, t time.Time) error {
	if t.Location() != time.UTC || t.Nanosecond() != 0 || t.Year() < 1970 || t.Year() > 9999 {
		return fmt.Errorf("%s %v: want UTC, whole seconds, from 1970 on", what, t)
	}
	return nil
}
