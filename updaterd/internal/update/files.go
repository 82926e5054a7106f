// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/updaterd/updaterd/bootctl/durable"
)

// The files of the data directory. Each is replaced as a whole.
const (
	fileJournal = "journal.json"
	fileFloors  = "floors.json"
	fileSlots   = "slots.json"
	fileDeny    = "deny.json"
	fileHistory = "history.jsonl"
	fileChannel = "channel.json"
	fileData    = "data.json"
)

// files is the data directory; the tests cut the power in another one.
type files interface {
	// read returns at most limit bytes; fs.ErrNotExist if there is no such file.
	read(name string, limit int) ([]byte, error)
	// write replaces the file; when it returns nil, a power cut does not undo it.
	write(name string, data []byte) error
	// keep renames the file, replacing what was kept before.
	keep(name, as string) error
}

// dir is the directory at path.
type dir struct {
	fs   durable.FS
	path string
}

func (d dir) read(name string, limit int) ([]byte, error) {
	f, err := d.fs.Open(filepath.Join(d.path, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", name, errCorrupt, limit)
	}
	return b, nil
}

func (d dir) write(name string, data []byte) error {
	return durable.WriteFile(d.fs, filepath.Join(d.path, name), data, 0o600)
}

func (d dir) keep(name, as string) error {
	if err := d.fs.Rename(filepath.Join(d.path, name), filepath.Join(d.path, as)); err != nil {
		return err
	}
	return d.fs.SyncDir(d.path)
}

// loadRecord decodes a file. What is damaged or newer is set aside as a kept
// file and counts as absent: it is never a reason not to start. The returned
// sentence, if any, says so.
func loadRecord(d files, name string, decode func([]byte) error) (problem string) {
	b, err := d.read(name, maxRecord)
	if err == nil {
		err = decode(b)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	var as string
	switch {
	case errors.Is(err, errNewer):
		as = name + ".newer"
	case errors.Is(err, errCorrupt):
		as = name + ".corrupt"
	default:
		return fmt.Sprintf("cannot read %s, so it counts as absent: %v", name, err)
	}
	if kerr := d.keep(name, as); kerr != nil {
		return fmt.Sprintf("%s counts as absent: %v; it could not be kept as %s: %v", name, err, as, kerr)
	}
	return fmt.Sprintf("%s counts as absent and is kept as %s: %v", name, as, err)
}
