// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFileReplacesAndLeavesNoTemporary(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "journal.json")
	for _, content := range []string{"one", "", "three"} {
		if err := WriteFile(OS{}, path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("ReadFile(%s) = %q, %v; want %q", path, got, err, content)
		}
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Fatalf("directory holds %v, want the file alone", names)
	}
}

func TestWriteFileKeepsOldContentOnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "not-empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(OS{}, path, []byte("x"), 0o600); err == nil {
		t.Fatal("WriteFile over a directory succeeded")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Fatalf("a temporary file was left: %v", names)
	}
}

// A temporary file that a power cut left is overwritten, not kept beside another.
func TestWriteFileTakesOverATemporary(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".f.tmp"), []byte("longer than what comes"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(OS{}, filepath.Join(dir, "f"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "f"))
	if err != nil || string(got) != "new" {
		t.Fatalf("ReadFile = %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "f")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("directory holds %v, want the file alone", names)
	}
}

func TestMakeDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	for _, want := range []bool{true, false} {
		if made, err := MakeDir(OS{}, path, 0o700); err != nil || made != want {
			t.Fatalf("MakeDir = %v, %v; want %v", made, err, want)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := MakeDir(OS{}, filepath.Join(path, "f"), 0o700); err == nil {
		t.Error("MakeDir over a file succeeded")
	}
}
