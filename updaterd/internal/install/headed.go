// SPDX-License-Identifier: Apache-2.0

package install

import "bytes"

// A HeaderStore keeps the first bytes of a slot outside of it, because whoever
// looks for a slot to start takes the first one that has them. See package
// bootctl/fallbackcopy.
type HeaderStore interface {
	// Load returns nil if nothing is kept.
	Load() ([]byte, error)
	// Save and Drop return when a power cut does not undo them.
	Save(header []byte) error
	Drop() error
}

// headerSize is how many bytes a HeaderStore keeps.
const headerSize = 512

// A headed device looks like any other, but what is written to its header goes
// to the store, and the medium has zeros there. So installing to it completely
// does not select it.
type headed struct {
	device
	store HeaderStore
}

// ReadAt reads the header from the store, if the medium has none.
func (d *headed) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.device.ReadAt(p, off)
	if err != nil || off >= headerSize {
		return n, err
	}
	there := make([]byte, headerSize)
	if _, err := d.device.ReadAt(there, 0); err != nil {
		return 0, err
	}
	if !zero(there) {
		return n, nil
	}
	kept, err := d.store.Load()
	if err != nil {
		return 0, err
	}
	if len(kept) == headerSize {
		copy(p, kept[off:])
	}
	return n, nil
}

// WriteAt writes what is behind the header. A header of zeros is cleared in both
// places, any other one is kept.
func (d *headed) WriteAt(p []byte, off int64) (int, error) {
	if off >= headerSize {
		return d.device.WriteAt(p, off)
	}
	// The engine writes it as a whole, with what follows; nobody else writes here.
	header := make([]byte, headerSize)
	if off > 0 || len(p) < headerSize {
		if _, err := d.ReadAt(header, 0); err != nil {
			return 0, err
		}
	}
	n := copy(header[off:], p)
	if zero(header) {
		if err := d.drop(); err != nil {
			return 0, err
		}
	}
	if len(p) > n {
		if _, err := d.device.WriteAt(p[n:], headerSize); err != nil {
			return 0, err
		}
	}
	if !zero(header) {
		// Kept only when what it is the header of is on the medium.
		if err := d.device.Sync(); err != nil {
			return 0, err
		}
		if err := d.store.Save(header); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// drop clears the header where it would be started from, then where it is kept:
// nothing leads to what is written from here on.
func (d *headed) drop() error {
	if _, err := d.device.WriteAt(make([]byte, headerSize), 0); err != nil {
		return err
	}
	if err := d.device.Sync(); err != nil {
		return err
	}
	return d.store.Drop()
}

func zero(b []byte) bool { return bytes.Count(b, []byte{0}) == len(b) }
