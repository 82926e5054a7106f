// SPDX-License-Identifier: Apache-2.0

package install

import "fmt"

// A Region is a slot without a device of its own: a part of a disk, outside of
// every partition that is mounted, or what of a device is in front of something else.
type Region struct {
	Device       string
	Offset, Size int64
}

// openRegion opens the disk, which others may use at the same time.
func openRegion(r Region, write bool) (device, error) {
	d, err := openShared(r.Device, write)
	if err != nil {
		return nil, err
	}
	if r.Offset < 0 || r.Size <= 0 || r.Size > d.Size()-r.Offset {
		d.Close()
		return nil, fmt.Errorf("%d bytes at %d are not within %s, which has %d", r.Size, r.Offset, r.Device, d.Size())
	}
	return &region{d, r.Offset, r.Size}, nil
}

// region is a device within another one.
type region struct {
	device
	off, size int64
}

func (r *region) Size() int64 { return r.size }

func (r *region) ReadAt(p []byte, off int64) (int, error) {
	if err := r.within(len(p), off); err != nil {
		return 0, err
	}
	return r.device.ReadAt(p, r.off+off)
}

func (r *region) WriteAt(p []byte, off int64) (int, error) {
	if err := r.within(len(p), off); err != nil {
		return 0, err
	}
	return r.device.WriteAt(p, r.off+off)
}

func (r *region) within(n int, off int64) error {
	if off < 0 || int64(n) > r.size-off {
		return fmt.Errorf("%d bytes at %d: beyond the end at %d", n, off, r.size)
	}
	return nil
}
