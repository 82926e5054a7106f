// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle/fsmap"
)

// contents tells by the first bytes what a file is, in however many pieces it lies.
func TestContents(t *testing.T) {
	noise := make([]byte, 9000)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	prose := strings.Repeat("the slot and the trial\n", 500)
	for name, tc := range map[string]struct{ text, want string }{
		"gzip":              {"\x1f\x8b\x08\x00" + string(noise), "gzip"},
		"xz":                {"\xfd7zXZ\x00" + string(noise), "xz"},
		"zstd":              {"\x28\xb5\x2f\xfd" + string(noise), "zstd"},
		"jar":               {"PK\x03\x04" + string(noise), "zip or jar"},
		"initrd":            {"070701" + strings.Repeat("0", 8000) + "TRAILER!!!" + strings.Repeat("\x00", 300) + "\x28\xb5\x2f\xfd" + string(noise), "initrd, zstd"},
		"initrd without":    {"070701" + strings.Repeat("0", 8000) + "TRAILER!!!" + strings.Repeat("\x00", 300), ""},
		"random":            {string(noise), contentsRandom},
		"too short to tell": {string(noise[:1000]), ""},
		"prose":             {prose, ""},
		"magic later":       {prose + "\x1f\x8b\x08", ""},
		"nothing":           {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			// The image has the file's second half first.
			half := len(tc.text) / 2
			image := append([]byte(tc.text[half:]), tc.text[:half]...)
			path := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			s := &side{File: file, size: int64(len(image))}
			f := &fsmap.File{Size: int64(len(image))}
			if len(image) > 0 {
				f.Pieces = []fsmap.Piece{{Offset: int64(len(tc.text) - half), Length: int64(half)}, {Offset: 0, Length: int64(len(tc.text) - half)}}
			}
			if got := contents(s, f, 1); got != tc.want {
				t.Errorf("contents = %q; want %q", got, tc.want)
			}
			if got := head(s, f, 10000); !bytes.Equal(got, []byte(tc.text[:min(len(tc.text), 10000)])) {
				t.Errorf("head = %d other bytes", len(got))
			}
		})
	}
}

func TestGzipTime(t *testing.T) {
	if at, ok := gzipTime([]byte("\x1f\x8b\x08\x00\x01\x02\x00\x00\x00\x03")); !ok || at != 0x201 {
		t.Errorf("gzipTime = %d, %v", at, ok)
	}
	if _, ok := gzipTime([]byte("\x1f\x8b\x08")); ok {
		t.Error("three bytes have a time")
	}
}
