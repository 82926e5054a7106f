// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A replacement is a file that appears under its name only once it is complete
// and on the disk. Until then it has a temporary name beside it.
type replacement struct {
	*os.File
	path string
}

func createReplacement(path string) (*replacement, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		var p *fs.PathError
		if errors.As(err, &p) {
			p.Path = path // nobody knows the temporary name
		}
		return nil, err
	}
	return &replacement{File: f, path: path}, nil
}

// commit makes the file durable and gives it its name.
func (r *replacement) commit() error {
	if err := r.Chmod(0o644); err != nil {
		return err
	}
	if err := r.Sync(); err != nil {
		return err
	}
	if err := r.Close(); err != nil {
		return err
	}
	if err := os.Rename(r.Name(), r.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(r.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// discard drops the file; after commit there is nothing under its temporary name.
func (r *replacement) discard() {
	r.Close()
	os.Remove(r.Name())
}

// WriteFile replaces the file at path by b, as a whole or not at all.
func WriteFile(path string, b []byte) error {
	f, err := createReplacement(path)
	if err != nil {
		return err
	}
	defer f.discard()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.commit()
}
