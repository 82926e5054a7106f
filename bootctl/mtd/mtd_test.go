// SPDX-License-Identifier: Apache-2.0

package mtd_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/updaterd/updaterd/bootctl/mtd"
)

// What is no MTD device is told from what cannot be opened. The rest of the
// package is tested on chips, in qemu/flash.
func TestOpenOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{"/dev/null": mtd.ErrNotMTD, file: mtd.ErrNotMTD, file + "x": fs.ErrNotExist} {
		if d, err := mtd.Open(path, os.O_RDONLY); !errors.Is(err, want) || d != nil {
			t.Errorf("Open(%s) = %v; want %v", path, err, want)
		}
	}
}
