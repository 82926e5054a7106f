// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign"
)

func TestPayloadLongerThanCovered(t *testing.T) {
	dir := t.TempDir()
	good := readFile(t, buildTest(t, dir))
	_, ring := testKey(t, "alice")
	open := func(b []byte) error {
		f, err := Open(writeFile(t, dir, "edited", b), ring.Policy(1))
		if err == nil {
			f.Close()
		}
		return err
	}
	for n := 0; n < len(good); n += 1 + n/50 {
		if err := open(good[:n]); !errors.Is(err, ErrTruncated) || !errors.Is(err, ErrMalformed) {
			t.Fatalf("%d of %d bytes: Open: %v; want ErrTruncated", n, len(good), err)
		}
	}
	if err := open(good[:len(good)-1]); !errors.Is(err, ErrTruncated) {
		t.Errorf("without the last byte: Open: %v; want ErrTruncated", err)
	}
	for _, tail := range []string{"\x00", "\n", string(good)} {
		if err := open(append(bytes.Clone(good), tail...)); !errors.Is(err, ErrTrailing) || !errors.Is(err, ErrMalformed) || errors.Is(err, ErrTruncated) {
			t.Errorf("%d bytes more: Open: %v; want ErrTrailing", len(tail), err)
		}
	}
}

// No byte can change without an error, except hints around the signature, and
// those leave the manifest as it is.
func TestEveryByteCounts(t *testing.T) {
	dir := t.TempDir()
	path := buildTest(t, dir)
	good := readFile(t, path)
	genuine := openTest(t, path)
	_, ring := testKey(t, "alice")
	edited := filepath.Join(dir, "edited")
	if err := os.WriteFile(edited, good, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(edited, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	step := 1
	for at := 0; at < len(good); at += step {
		if int64(at) > genuine.PayloadOffset+genuine.Manifest.Images[0].Recipes[0].Data.Offset {
			step = 41 // the encoded chunks are long, and all alike in this
		}
		if _, err := w.WriteAt([]byte{good[at] ^ 0x40}, int64(at)); err != nil {
			t.Fatal(err)
		}
		f, err := Open(edited, ring.Policy(1))
		if err == nil {
			if f.Digest != genuine.Digest {
				t.Fatalf("byte %d: another manifest is verified", at)
			}
			_, err = f.Check(context.Background(), nil)
			f.Close()
			if int64(at) >= genuine.PayloadOffset && !errors.Is(err, ErrEncoded) {
				t.Fatalf("byte %d of the payload: Check: %v; want ErrEncoded", int64(at)-genuine.PayloadOffset, err)
			}
		}
		if _, err := w.WriteAt(good[at:at+1], int64(at)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUntrusted(t *testing.T) {
	path := buildTest(t, t.TempDir())
	_, alice := testKey(t, "alice")
	_, mallory := testKey(t, "mallory")
	for name, err := range map[string]error{
		"another key":    second(Open(path, mallory.Policy(1))),
		"threshold of 2": second(Open(path, alice.Policy(2))),
		"no keyring":     second(Open(path, nil)),
		"empty keyring":  second(Open(path, new(sign.Keyring).Policy(1))),
		"threshold of 0": second(Open(path, alice.Policy(0))),
	} {
		if err == nil || name != "threshold of 0" && !errors.Is(err, sign.ErrUntrusted) {
			t.Errorf("%s: Open: %v; want sign.ErrUntrusted", name, err)
		}
	}
}

func second(f *File, err error) error {
	if err == nil {
		f.Close()
	}
	return err
}

// A signed envelope of something else is no bundle.
func TestAnotherPayloadType(t *testing.T) {
	signer, ring := testKey(t, "alice")
	payload, err := testManifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := sign.Seal("application/json", payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	head, err := appendHead(nil, envelope)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(head, ring.Policy(1), time.Time{}); !errors.Is(err, sign.ErrPayloadType) {
		t.Errorf("Verify: %v; want sign.ErrPayloadType", err)
	}
	if _, err := unverified(head); !errors.Is(err, sign.ErrPayloadType) {
		t.Errorf("unverified: %v; want sign.ErrPayloadType", err)
	}
}

// Beyond 4 GiB nothing wraps. The file has holes, so it takes no room.
func TestBeyondFourGiB(t *testing.T) {
	const chunks = 5 << 30 / MaxChunkSize
	hole := Entry{Kind: Raw, Length: MaxChunkSize, Digest: Sum(make([]byte, MaxChunkSize))}
	content := noise(MaxChunkSize, 1)
	mark := Entry{Kind: Raw, Length: MaxChunkSize, Digest: Sum(content)}
	const marked = chunks - 1 // from 4.99 GiB on
	var table, digests []byte
	for i := range chunks {
		e := hole
		if i == marked {
			e = mark
		}
		table = appendEntry(table, e)
		digests = append(digests, e.Digest[:]...)
	}
	m := testManifest()
	m.Images = []Image{{
		Class: "rootfs", Size: chunks * MaxChunkSize, ChunkSize: MaxChunkSize,
		Chunks:  Table{Extent{Length: int64(len(digests))}, Sum(digests)},
		Recipes: []Recipe{{Kind: KindFull, Table: Table{Extent{Length: int64(len(table))}, Sum(table)}, Data: Extent{Length: chunks * MaxChunkSize}}},
	}}
	m.place()
	payload, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	signer, ring := testKey(t, "alice")
	envelope, err := sign.Seal(PayloadType, payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	head, err := appendHead(nil, envelope)
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, t.TempDir(), "large.upb", append(append(head, digests...), table...))
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	data := int64(len(head) + len(digests) + len(table))
	if err := w.Truncate(data + chunks*MaxChunkSize); err != nil {
		t.Fatal(err)
	}
	// Chunk 0 lies last, so the last chunk lies before it.
	if _, err := w.WriteAt(content, data+(chunks-2)*MaxChunkSize); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, ring.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img := &f.Manifest.Images[0]
	entries, err := f.Table(img, img.Full())
	if err != nil {
		t.Fatal(err)
	}
	want, err := f.Chunks(img)
	if err != nil {
		t.Fatal(err)
	}
	d := newTestDecoder(t)
	dst := make([]byte, MaxChunkSize)
	for _, i := range []int{marked, 1, 0, chunks / 2} {
		enc, err := f.read(nil, entries[i].Offset, int64(entries[i].Length))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Decode(dst, want[i], entries[i], enc, Basis{}); err != nil {
			t.Errorf("chunk %d: %v", i, err)
		}
	}
	if err := w.Truncate(data + chunks*MaxChunkSize - 4<<30); err != nil {
		t.Fatal(err)
	}
	if err := second(Open(path, ring.Policy(1))); !errors.Is(err, ErrTruncated) {
		t.Errorf("4 GiB shorter: Open: %v; want ErrTruncated", err)
	}
}

func TestResign(t *testing.T) {
	dir := t.TempDir()
	path := buildTest(t, dir)
	f := openTest(t, path)
	alice, aliceRing := testKey(t, "alice")
	bob, bobRing := testKey(t, "bob")
	payload := readFile(t, path)[f.PayloadOffset:]
	for name, tc := range map[string]struct {
		add           bool
		byAlice, keys int
	}{
		"add":     {true, 1, 2},
		"replace": {false, 0, 1},
	} {
		out := filepath.Join(dir, name)
		if err := f.Resign(out, tc.add, bob); err != nil {
			t.Fatal(err)
		}
		g, err := Open(out, bobRing.Policy(1))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if g.Digest != f.Digest || !bytes.Equal(readFile(t, out)[g.PayloadOffset:], payload) {
			t.Errorf("%s: the release is another one", name)
		}
		if _, err := g.Check(context.Background(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		g.Close()
		if err := second(Open(out, aliceRing.Policy(1))); (err == nil) != tc.add {
			t.Errorf("%s: the first key's signature: %v", name, err)
		}
	}
	if err := f.Resign(filepath.Join(dir, "none"), true); err == nil {
		t.Error("Resign without a key succeeds")
	}
	if err := f.Resign(filepath.Join(dir, "twice"), false, alice, alice); err == nil {
		t.Error("Resign with the same key twice succeeds")
	}
	// In place, while the file is open.
	if err := f.Resign(path, false, bob); err != nil {
		t.Fatal(err)
	}
	if err := second(Open(path, bobRing.Policy(1))); err != nil {
		t.Error(err)
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb", "add", "replace")
}

// What happens to the file after it was opened is noticed.
func TestSwappedFileBetweenVerifyAndWrite(t *testing.T) {
	dir := t.TempDir()
	path := buildTest(t, dir)
	f := openTest(t, path)
	b := readFile(t, path)
	clear(b[f.PayloadOffset:])
	if err := os.WriteFile(path, b, 0o600); err != nil { // the same inode
		t.Fatal(err)
	}
	if _, err := f.Check(context.Background(), nil); !errors.Is(err, ErrEncoded) {
		t.Errorf("Check: %v; want ErrEncoded", err)
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if _, err := f.Apply(context.Background(), "rootfs", nil, out, nil); !errors.Is(err, ErrTruncated) {
		t.Errorf("Apply: %v; want ErrTruncated", err)
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb")
}

// Signed, but built wrong: nothing of it is written.
func TestWrongContent(t *testing.T) {
	signer, ring := testKey(t, "alice")
	chunk := noise(testChunk, 1)
	other := noise(testChunk, 2)
	for name, tc := range map[string]struct {
		image, chunk Digest
	}{
		"chunk from another image": {Sum(chunk), Sum(other)},
		"image digest":             {Sum(other), Sum(chunk)},
	} {
		dir := t.TempDir()
		f, err := Open(writeFile(t, dir, "b", oneChunk(t, signer, chunk, tc.image, tc.chunk)), ring.Policy(1))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.Check(context.Background(), nil); !errors.Is(err, ErrContent) {
			t.Errorf("%s: Check: %v; want ErrContent", name, err)
		}
		if _, err := f.Apply(context.Background(), "rootfs", nil, filepath.Join(dir, "out"), nil); !errors.Is(err, ErrContent) {
			t.Errorf("%s: Apply: %v; want ErrContent", name, err)
		}
		checkNoLitter(t, dir, "b")
	}
}

func TestApplyFallsBack(t *testing.T) {
	dir := t.TempDir()
	f := openTest(t, buildTest(t, dir))
	img := f.Manifest.Image("rootfs")
	v1, v2 := testImage("20260101", 1), testImage("20260131", 2)
	full, err := f.Table(img, img.Full())
	if err != nil {
		t.Fatal(err)
	}
	touched := bytes.Clone(v1)
	touched[testChunk+2000] ^= 1 // chunk 1 alone is copied from there
	renamed := bytes.Replace(v1, []byte("BUILD_ID=20260101"), []byte("BUILD_ID=20269999"), 1)
	for name, tc := range map[string]struct {
		source     []byte
		recipe     int
		why        string
		atLeast    int
		fallbackOf func(a Applied) int64
	}{
		"no source":          {nil, 1, "no source", 0, func(Applied) int64 { return 0 }},
		"untouched":          {v1, 0, "exactly this source", 0, func(Applied) int64 { return 0 }},
		"a flipped bit":      {touched, 0, "build 20260101", 1, func(Applied) int64 { return img.Full().Table.Length + int64(full[1].Length) }},
		"build id lost":      {renamed, 0, "of this size", 1, nil},
		"unrelated, as long": {noise(len(v1), 77), 0, "of this size", 5, nil},
		"unrelated, shorter": {noise(100, 77), 1, "no delta", 0, func(Applied) int64 { return 0 }},
		"the image itself":   {v2, 0, "of this size", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			source := ""
			if tc.source != nil {
				source = writeFile(t, dir, "source", tc.source)
			}
			out := filepath.Join(t.TempDir(), "out")
			a, err := f.Apply(context.Background(), "rootfs", given(source), out, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(readFile(t, out), v2) {
				t.Error("another image")
			}
			if a.Recipe != tc.recipe || !strings.Contains(a.Why, tc.why) || a.Fallback < tc.atLeast {
				t.Errorf("Apply = %+v", a)
			}
			if tc.fallbackOf != nil && a.FallbackBytes != tc.fallbackOf(a) {
				t.Errorf("fallback of %d bytes; want %d", a.FallbackBytes, tc.fallbackOf(a))
			}
			if a.Fetched != img.Recipes[a.Recipe].Download(img)+a.FallbackBytes {
				t.Errorf("Apply = %+v; the parts do not add up", a)
			}
		})
	}
	if _, err := f.Apply(context.Background(), "kernel", nil, filepath.Join(dir, "out"), nil); err == nil || !strings.Contains(err.Error(), "rootfs, bootloader") {
		t.Errorf("Apply of an unknown class: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Apply(ctx, "rootfs", nil, filepath.Join(dir, "out"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Apply: %v; want context.Canceled", err)
	}
	if _, err := f.Check(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Check: %v; want context.Canceled", err)
	}
	checkNoLitter(t, dir, "v1", "v2", "boot", "test.upb", "source")
}
