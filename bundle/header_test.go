// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign"
)

func TestHeader(t *testing.T) {
	head, err := appendHead(nil, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{0x89, 'U', 'P', 'B', '\r', '\n', 0x1a, '\n', 1, 0, 0, 0, 2, 0, 0, 0, '{', '}'}
	if !bytes.Equal(head, want) {
		t.Errorf("head = %q; want %q", head, want)
	}
	if n, err := ParseHeader(head); n != 2 || err != nil {
		t.Errorf("ParseHeader = %d, %v; want 2", n, err)
	}
	for name, edit := range map[string]func(b []byte) []byte{
		"empty":               func(b []byte) []byte { return nil },
		"short":               func(b []byte) []byte { return b[:HeaderSize-1] },
		"other magic":         func(b []byte) []byte { b[0] = 'X'; return b },
		"CR LF turned to LF":  func(b []byte) []byte { return append(append(b[:4:4], b[5:]...), 0) },
		"top bit lost":        func(b []byte) []byte { b[0] &= 0x7f; return b },
		"version 0":           func(b []byte) []byte { b[8] = 0; return b },
		"version 2":           func(b []byte) []byte { b[8] = 2; return b },
		"high byte of verion": func(b []byte) []byte { b[11] = 1; return b },
		"no envelope":         func(b []byte) []byte { clear(b[12:16]); return b },
		"envelope too long":   func(b []byte) []byte { copy(b[12:], []byte{1, 0, 0x10, 0}); return b },
		"envelope of 4 GiB":   func(b []byte) []byte { copy(b[12:], "\xff\xff\xff\xff"); return b },
	} {
		if n, err := ParseHeader(edit(bytes.Clone(head))); n != 0 || !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: ParseHeader = %d, %v; want ErrMalformed", name, n, err)
		}
	}
	for _, n := range []int{0, MaxEnvelope + 1} {
		if _, err := appendHead(nil, make([]byte, n)); err == nil {
			t.Errorf("appendHead takes an envelope of %d bytes", n)
		}
	}
}

func TestHeadIsExact(t *testing.T) {
	path := buildTest(t, t.TempDir())
	_, ring := testKey(t, "alice")
	file := readFile(t, path)
	head, err := ReadHead(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(head, ring.Policy(1), time.Time{}); err != nil {
		t.Fatal(err)
	}
	for n := range head {
		if _, err := Verify(head[:n], ring.Policy(1), time.Time{}); !errors.Is(err, ErrTruncated) {
			t.Fatalf("Verify of %d of %d bytes: %v; want ErrTruncated", n, len(head), err)
		}
		if _, err := ReadHead(bytes.NewReader(file[:n])); !errors.Is(err, ErrTruncated) {
			t.Fatalf("ReadHead of %d of %d bytes: %v; want ErrTruncated", n, len(head), err)
		}
	}
	if _, err := Verify(file[:len(head)+1], ring.Policy(1), time.Time{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("Verify of a byte more: %v; want ErrMalformed", err)
	}
}

// Whatever the first bytes of a file are, they are verified or refused.
func FuzzHead(f *testing.F) {
	signer, ring := testKey(f, "alice")
	payload, err := testManifest().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	envelope, err := sign.Seal(PayloadType, payload, signer)
	if err != nil {
		f.Fatal(err)
	}
	head, err := appendHead(nil, envelope)
	if err != nil {
		f.Fatal(err)
	}
	genuine, err := Verify(head, ring.Policy(1), time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Add(append(bytes.Clone(head), "payload"...))
	f.Add(head[:HeaderSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := ReadHead(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, head) {
			t.Fatalf("head %q is not from %q", head, b)
		}
		if d, err := unverified(head); (d == nil) == (err == nil) {
			t.Fatalf("unverified = %v, %v", d, err)
		}
		v, err := Verify(head, ring.Policy(1), time.Time{})
		if err != nil {
			if v != nil {
				t.Fatalf("Verify = %v, %v", v, err)
			}
			return
		}
		// Only the owner of the key can sign, so it is the one that was built.
		if v.Digest != genuine.Digest {
			t.Fatalf("accepted a forged manifest in %q", head)
		}
	})
}
