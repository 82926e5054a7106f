// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newIdentity(t testing.TB) (*Identity, []byte) {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	text, err := MarshalIdentity(id)
	if err != nil {
		t.Fatal(err)
	}
	return id, text
}

func TestKeyComesBack(t *testing.T) {
	id, text := newIdentity(t)
	again, err := ParseIdentity(text)
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipient(MarshalRecipient(id.Recipient()))
	if err != nil {
		t.Fatal(err)
	}
	if to.ID() != again.Recipient().ID() || len(to.ID()) != 64 {
		t.Errorf("recipient %s, want %s", to.ID(), again.Recipient().ID())
	}
	key := NewKey()
	wrapped, err := Wrap(key, to)
	if err != nil || len(wrapped) != WrappedSize {
		t.Fatalf("%d bytes, %v; want %d", len(wrapped), err, WrappedSize)
	}
	if twice, err := Wrap(key, to); err != nil || bytes.Equal(twice, wrapped) {
		t.Errorf("wrapped twice to the same (%v)", err)
	}
	got, err := again.Unwrap(wrapped)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 100_000} {
		piece := bytes.Repeat([]byte{7}, n)
		sealed := Seal(key, []byte("before"), piece, 1<<40)
		if len(sealed) != len("before")+n+Overhead {
			t.Errorf("%d bytes sealed are %d", n, len(sealed))
		}
		sealed = sealed[len("before"):]
		opened, err := got.Open(nil, sealed, 1<<40)
		if err != nil || !bytes.Equal(opened, piece) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if _, err := got.Open(nil, sealed, 1<<40+1); !errors.Is(err, ErrSealed) {
			t.Errorf("at another place: %v", err)
		}
		if _, err := NewKey().Open(nil, sealed, 1<<40); !errors.Is(err, ErrSealed) {
			t.Errorf("with another key: %v", err)
		}
		if _, err := new(Key).Open(nil, sealed, 1<<40); !errors.Is(err, ErrLocked) {
			t.Errorf("without a key: %v", err)
		}
		if _, err := got.Open(sealed[:0], sealed, 1<<40); err != nil {
			t.Errorf("in place: %v", err)
		}
	}
	stranger, _ := newIdentity(t)
	if _, err := stranger.Unwrap(wrapped); err == nil {
		t.Error("a stranger unwraps the key")
	}
	for at := range wrapped {
		bad := bytes.Clone(wrapped)
		if bad[at] ^= 0x10; at%17 == 0 {
			if _, err := id.Unwrap(bad); err == nil {
				t.Fatalf("byte %d altered, and it is unwrapped", at)
			}
		}
	}
	if _, err := id.Unwrap(wrapped[:40]); err == nil {
		t.Error("a part of a wrapped key is unwrapped")
	}
}

func TestFiles(t *testing.T) {
	id, text := newIdentity(t)
	public := MarshalRecipient(id.Recipient())
	dir := t.TempDir()
	put := func(name string, b []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := LoadIdentity(put("good", text, 0o400)); err != nil || got.Recipient().ID() != id.Recipient().ID() {
		t.Errorf("LoadIdentity: %v", err)
	}
	if got, err := LoadRecipient(put("public", public, 0o644)); err != nil || got.ID() != id.Recipient().ID() {
		t.Errorf("LoadRecipient: %v", err)
	}
	secret := strings.Split(string(text), "\n")[1]
	for _, tc := range []struct {
		what string
		text []byte
		mode os.FileMode
		want string
	}{
		{"others can read it", text, 0o604, "chmod 600"},
		{"its group can read it", text, 0o640, "chmod 600"},
		{"it is the public half", public, 0o600, "UPDATERD RECIPIENT"},
		{"it is empty", nil, 0o600, "no PEM block"},
		{"it is cut off", text[:len(text)-10], 0o600, "no PEM block"},
		{"it is there twice", append(bytes.Clone(text), text...), 0o600, "more than one"},
		{"another length", bytes.Replace(text, []byte(secret), []byte("AAAA"), 1), 0o600, "3 bytes, want 32"},
		{"it has headers", bytes.Replace(text, []byte(secret), []byte("a: b\n\n"+secret), 1), 0o600, "without headers"},
	} {
		_, err := LoadIdentity(put("bad", tc.text, tc.mode))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), filepath.Join(dir, "bad")) {
			t.Errorf("%s: %v; want %q", tc.what, err, tc.want)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error tells the secret: %v", tc.what, err)
		}
	}
	if _, err := LoadIdentity(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadRecipient(put("bad", text, 0o644)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("an identity for a recipient: %v", err)
	}
}

// What is read is written again as the same.
func FuzzFiles(f *testing.F) {
	id, text := newIdentity(f)
	f.Add(text)
	f.Add(MarshalRecipient(id.Recipient()))
	f.Add([]byte("-----BEGIN UPDATERD IDENTITY-----\n-----END UPDATERD IDENTITY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := ParseIdentity(b); err == nil {
			text, err := MarshalIdentity(id)
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseIdentity(text)
			if err != nil || again.Recipient().ID() != id.Recipient().ID() {
				t.Fatalf("%q comes back as another identity (%v)", text, err)
			}
		}
		if r, err := ParseRecipient(b); err == nil {
			again, err := ParseRecipient(MarshalRecipient(r))
			if err != nil || again.ID() != r.ID() {
				t.Fatalf("recipient %s comes back as another one (%v)", r.ID(), err)
			}
			if _, err := Wrap(NewKey(), r); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// What is unwrapped and opened was wrapped and sealed: nothing else panics, or opens.
func FuzzOpen(f *testing.F) {
	id, _ := newIdentity(f)
	key := NewKey()
	wrapped, err := Wrap(key, id.Recipient())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped, Seal(key, nil, []byte("piece"), 5), int64(5))
	f.Add([]byte{}, []byte{}, int64(-1))
	f.Fuzz(func(t *testing.T, b, sealed []byte, at int64) {
		if _, err := id.Unwrap(b); (err == nil) != bytes.Equal(b, wrapped) {
			t.Errorf("Unwrap: %v", err)
		}
		if opened, err := key.Open(nil, sealed, at); err == nil && !bytes.Equal(Seal(key, nil, opened, at), sealed) {
			t.Error("what is opened is not what was sealed")
		}
	})
}
