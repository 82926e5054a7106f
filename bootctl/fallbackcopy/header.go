// SPDX-License-Identifier: Apache-2.0

package fallbackcopy

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl/durable"
)

// HeaderSize is the length of a header: one sector, which a power cut does not tear.
const HeaderSize = 512

// A Header is the file that keeps a first sector while it is not in its slot.
type Header struct{ Path string }

// Load returns the sector, or nil if none is kept or the file is damaged.
func (h *Header) Load() ([]byte, error) {
	f, err := os.Open(h.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, HeaderSize+sha256.Size+1))
	if err != nil {
		return nil, err
	}
	return decode(b), nil
}

// decode is nil unless b is a sector and its digest.
func decode(b []byte) []byte {
	if len(b) != HeaderSize+sha256.Size {
		return nil
	}
	if sum := sha256.Sum256(b[:HeaderSize]); !bytes.Equal(sum[:], b[HeaderSize:]) {
		return nil
	}
	return b[:HeaderSize]
}

// Save keeps a sector; when it returns nil, a power cut does not take it.
func (h *Header) Save(sector []byte) error {
	if len(sector) != HeaderSize {
		return fmt.Errorf("keep header: internal error: %d bytes", len(sector))
	}
	if old, err := h.Load(); err == nil && bytes.Equal(old, sector) {
		// Whoever wrote it may have ended before its name was on the medium.
		return durable.OS{}.SyncDir(filepath.Dir(h.Path))
	}
	if _, err := durable.MakeDir(durable.OS{}, filepath.Dir(h.Path), 0o700); err != nil {
		return fmt.Errorf("keep header: %w", err)
	}
	sum := sha256.Sum256(sector)
	if err := durable.WriteFile(durable.OS{}, h.Path, append(bytes.Clone(sector), sum[:]...), 0o600); err != nil {
		return fmt.Errorf("keep header: %w", err)
	}
	return nil
}

// Drop forgets the sector for good.
func (h *Header) Drop() error {
	if err := os.Remove(h.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop header: %w", err)
	}
	// Also if it is gone already: whoever removed it may have ended before this.
	if err := (durable.OS{}).SyncDir(filepath.Dir(h.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("drop header: %w", err)
	}
	return nil
}
