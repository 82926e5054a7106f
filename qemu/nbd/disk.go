// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"fmt"
	"os"
	"sync"
)

// sector is the unit in which writes are kept apart until they are flushed.
const sector = 512

// A Write is one entry of a disk's log: a write of Length bytes at Offset, or,
// with Flush set, a flush of all writes before it. A write with FUA (force unit
// access) is durable by itself, before it is answered.
type Write struct {
	Offset int64
	Length int
	FUA    bool
	Flush  bool
}

// A Disk is a raw image with a volatile cache in front of it. Its durable
// content is the file; all methods may be called while it is being served.
type Disk struct {
	mu       sync.Mutex
	file     *os.File
	size     int64
	volatile map[int64][]byte // sector number -> content not yet flushed
	log      []Write
	match    func(Write) bool
	cutAt    int // number of the matching write that never happens; 0 = none
	torn     int // sectors of that write that still reach the medium
	matched  int
	cut      chan struct{}
	spoiled  map[int64]bool // sectors that do not keep what is written
}

// OpenDisk opens the raw image at path, whose length is a multiple of 512 bytes.
func OpenDisk(path string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open disk: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open disk: %w", err)
	}
	if info.Size()%sector != 0 {
		f.Close()
		return nil, fmt.Errorf("open disk %s: its %d bytes are no multiple of %d", path, info.Size(), sector)
	}
	return &Disk{file: f, size: info.Size(), volatile: map[int64][]byte{}, cut: make(chan struct{})}, nil
}

// Close closes the image; what was not flushed is lost.
func (d *Disk) Close() error { return d.file.Close() }

// Size is the length of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// Log returns a copy of all writes and flushes since the last PowerOn.
func (d *Disk) Log() []Write {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Write(nil), d.log...)
}

// CutAtWrite plans a power cut: the n-th write from now (1 is the next one)
// for which match is true, or of all writes if match is nil, does not happen,
// but for its first torn sectors.
func (d *Disk) CutAtWrite(n, torn int, match func(Write) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt, d.torn, d.match, d.matched = n, torn, match, 0
}

// CutNow cuts the power at once.
func (d *Disk) CutNow() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.powerOff()
}

// Cut is closed when the power is cut.
func (d *Disk) Cut() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut
}

// Spoil makes the sector that holds offset lose one bit of whatever is written
// to it from now on, while the writer is told that all went well.
func (d *Disk) Spoil(offset int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.spoiled == nil {
		d.spoiled = map[int64]bool{}
	}
	d.spoiled[offset/sector] = true
}

// PowerOn makes a disk whose power was cut usable again; what was not flushed
// is gone, the plan and the log are empty.
func (d *Disk) PowerOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.volatile)
	d.log, d.cutAt, d.match = nil, 0, nil
	d.cut = make(chan struct{})
}

// ReadAt reads what the device would read: the cache over the medium.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.file.ReadAt(p, off)
	if err != nil {
		return n, err
	}
	if len(d.volatile) == 0 {
		return n, nil
	}
	for s := off / sector; s*sector < off+int64(len(p)); s++ {
		if data, ok := d.volatile[s]; ok {
			overlay(p, off, data, s*sector)
		}
	}
	return n, nil
}

// overlay copies the part of data (which lies at dataOff) that falls into p (which lies at off).
func overlay(p []byte, off int64, data []byte, dataOff int64) {
	if dataOff >= off {
		copy(p[dataOff-off:], data)
		return
	}
	copy(p, data[off-dataOff:])
}

// Medium reads and changes the durable content behind the device's back, as
// failing flash does.
func (d *Disk) Medium(change func(medium *os.File) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return change(d.file)
}

// write keeps p at off in the cache, or with fua on the medium; it reports false
// if the power is off. QEMU's client writes whole sectors.
func (d *Disk) write(p []byte, off int64, fua bool) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off() {
		return false, nil
	}
	if off%sector != 0 || len(p)%sector != 0 {
		return true, fmt.Errorf("write of %d bytes at %d is not in whole sectors", len(p), off)
	}
	w := Write{Offset: off, Length: len(p), FUA: fua}
	if d.cutAt > 0 && (d.match == nil || d.match(w)) {
		if d.matched++; d.matched == d.cutAt {
			n := min(d.torn*sector, len(p))
			if _, err := d.file.WriteAt(p[:n], off); err != nil {
				return true, err
			}
			d.powerOff()
			return false, nil
		}
	}
	d.log = append(d.log, w)
	for i := 0; i < len(p); i += sector {
		at, data := (off+int64(i))/sector, append([]byte(nil), p[i:i+sector]...)
		if d.spoiled[at] {
			data[0] ^= 1
		}
		d.volatile[at] = data
	}
	if !fua {
		return true, nil
	}
	for at := off / sector; at < (off+int64(len(p)))/sector; at++ {
		if _, err := d.file.WriteAt(d.volatile[at], at*sector); err != nil {
			return true, err
		}
		delete(d.volatile, at)
	}
	return true, nil
}

// flush makes everything in the cache durable.
func (d *Disk) flush() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off() {
		return false, nil
	}
	d.log = append(d.log, Write{Flush: true})
	for s, data := range d.volatile {
		if _, err := d.file.WriteAt(data, s*sector); err != nil {
			return true, err
		}
	}
	clear(d.volatile)
	return true, nil
}

func (d *Disk) off() bool {
	select {
	case <-d.cut:
		return true
	default:
		return false
	}
}

// powerOff is called with the lock held.
func (d *Disk) powerOff() {
	if !d.off() {
		clear(d.volatile)
		close(d.cut)
	}
}
