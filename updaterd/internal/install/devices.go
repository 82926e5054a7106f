// SPDX-License-Identifier: Apache-2.0

package install

import (
	"io"
	"os"
)

// A Device is what a slot's content is on.
type Device = device

// A Source is a slot that a delta is made from. Its pages may be cached.
type Source interface {
	io.ReaderAt
	io.Closer
}

// Devices opens what the slots are on, by the paths of [Options].Slots. A test's
// remembers every write, and what a power cut would leave of it.
type Devices interface {
	// Open opens a device; for writing it must not be in any other use.
	Open(path string, write bool) (Device, error)
	// Source opens one for reading, mounted or not.
	Source(path string) (Source, error)
	// Size is that of a device, mounted or not.
	Size(path string) (int64, error)
	// Same reports whether two paths lead to the same bytes. The second may be
	// missing: a broken slot is no reason not to write the other one.
	Same(a, b string) (bool, error)
}

// systemDevices are block devices and regular files.
type systemDevices struct{}

func (systemDevices) Open(path string, write bool) (Device, error) { return openDevice(path, write) }
func (systemDevices) Size(path string) (int64, error)              { return sizeOf(path) }
func (systemDevices) Same(a, b string) (bool, error)               { return sameDevice(a, b) }

func (systemDevices) Source(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}
