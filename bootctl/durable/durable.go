// SPDX-License-Identifier: Apache-2.0

// Package durable replaces files so that a power cut leaves the old content or
// the new, never a mixture and never an empty file.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// WriteFile replaces the file at path with data. When it returns nil, the new
// content survives a power cut; when it returns an error, the old content is
// still in place unless the error came from syncing the directory, after which
// either may be found. A path has one writer at a time: what a cut left of the
// temporary file, whose name is always the same, the next one overwrites.
func WriteFile(fsys FS, path string, data []byte, perm fs.FileMode) (err error) {
	dir, name := filepath.Split(path)
	temporary := filepath.Join(dir, "."+name+".tmp")
	f, err := fsys.Create(temporary, perm)
	if err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = fsys.RemoveAll(temporary) // it is in nobody's way
			err = fmt.Errorf("replace %s: %w", path, err)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	// The content must be on the medium before the name points to it: otherwise
	// a cut after the rename could leave the name on an empty file.
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := fsys.Rename(temporary, path); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Clean(dir))
}

// MakeDir makes a directory, and those above it, unless they are there; a power
// cut does not take it away again. It reports whether it made one.
func MakeDir(fsys FS, path string, perm fs.FileMode) (made bool, err error) {
	switch info, err := fsys.Stat(path); {
	case err == nil && info.IsDir():
		return false, nil
	case err == nil:
		return false, fmt.Errorf("make directory %s: it is a file", path)
	case !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("make directory: %w", err)
	}
	above := filepath.Dir(path)
	if above != path {
		if _, err := MakeDir(fsys, above, perm); err != nil {
			return false, err
		}
	}
	err = fsys.Mkdir(path, perm)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err == nil {
		err = fsys.SyncDir(above)
	}
	if err != nil {
		return false, fmt.Errorf("make directory: %w", err)
	}
	return true, nil
}
