// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign"
)

// testKey makes the same key for the same name every time.
func testKey(t testing.TB, name string) (sign.Signer, *sign.Keyring) {
	t.Helper()
	seed := Sum([]byte(name))
	private := ed25519.NewKeyFromSeed(seed[:])
	signer, err := sign.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := sign.NewKeyring(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer, ring
}

func testPolicy(t testing.TB, name string, threshold int) *sign.Policy {
	t.Helper()
	_, ring := testKey(t, name)
	return ring.Policy(threshold)
}

// noise is n bytes that do not compress.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	r.Read(b)
	return b
}

// text is n bytes that compress.
func text(n int, seed uint64) []byte {
	words := strings.Fields("slot bundle chunk recipe delta manifest envelope keyring trial confirm journal")
	r := rand.New(rand.NewPCG(seed, 2))
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(" \n"[r.IntN(2)])
	}
	return b.Bytes()[:n]
}

func osRelease(build string) []byte {
	return fmt.Appendf(nil, "NAME=\"Demo\"\nID=demo\nBUILD_ID=%s\n", build)
}

const testChunk = 4 << 10

// testImage has chunks of every kind: text with an os-release, zeros, noise,
// and a short one at the end.
func testImage(build string, seed uint64) []byte {
	b := text(3*testChunk, 7)
	b = append(b, make([]byte, 2*testChunk)...)
	b = append(b, noise(3*testChunk, 3)...)
	b = append(b, text(777, 4)...)
	block := make([]byte, scanStep)
	copy(block, osRelease(build))
	copy(b[2*scanStep:], block)
	copy(b[testChunk+100:], fmt.Sprintf("edited %d", seed))
	copy(b[5*testChunk+100:], noise(50, seed))
	return b
}

func writeFile(t testing.TB, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var testTime = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// testSpec is a release of two images, one of them with a delta.
func testSpec(t testing.TB, dir string) Spec {
	t.Helper()
	signer, _ := testKey(t, "alice")
	return Spec{
		Compatible: []string{"demo-board"},
		Version:    "1.2.0",
		Sequence:   7,
		Floor:      5,
		Created:    testTime,
		ChunkSize:  testChunk,
		Signers:    []sign.Signer{signer},
		Images: []ImageSpec{{
			Class:  "rootfs",
			Path:   writeFile(t, dir, "v2", testImage("20260131", 2)),
			Deltas: []SourceSpec{{Path: writeFile(t, dir, "v1", testImage("20260101", 1))}},
		}, {
			Class: "bootloader",
			Path:  writeFile(t, dir, "boot", text(500, 9)),
		}},
	}
}

// buildTest builds testSpec, and returns the bundle's path in dir.
func buildTest(t testing.TB, dir string) string {
	t.Helper()
	out := filepath.Join(dir, "test.upb")
	if err := Build(context.Background(), out, testSpec(t, dir)); err != nil {
		t.Fatal(err)
	}
	return out
}

func openTest(t testing.TB, path string) *File {
	t.Helper()
	_, ring := testKey(t, "alice")
	f, err := Open(path, ring.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// testManifest is valid, and tables and data behind it do not exist.
func testManifest() *Manifest {
	m := &Manifest{
		Format: Format, Compatible: []string{"demo-board", "demo-board-2"}, Version: "1.2.0", Channel: "stable",
		Sequence: 7, Floor: 5, Created: testTime,
		Annotations: map[string]string{"notes": "first line\nsecond <line> & \"more\"", "a.b": "é"},
		Images: []Image{{
			Class: "rootfs", Size: 10*testChunk + 1, Digest: Sum([]byte("new")), BuildID: "20260131", ChunkSize: testChunk,
			Recipes: []Recipe{
				{Kind: KindDelta, Source: &Source{Digest: Sum([]byte("old")), Size: 10 * testChunk, BuildID: "20260101"}, Data: Extent{Length: 300}},
				{Kind: KindDelta, Source: &Source{Digest: Sum([]byte("older")), Size: 9 * testChunk}, Data: Extent{Length: 400}},
				{Kind: KindFull, Data: Extent{Length: 9000}},
			},
		}, {
			Class: "bootloader", Size: 1, Digest: Sum([]byte("boot")), ChunkSize: testChunk,
			Recipes: []Recipe{{Kind: KindFull, Data: Extent{Length: 1}}},
		}},
	}
	for i := range m.Images {
		m.Images[i].setTables()
	}
	m.place()
	return m
}

func (img *Image) setTables() {
	n := int64(img.ChunkCount())
	img.Chunks.Length = n * DigestSize
	for k := range img.Recipes {
		img.Recipes[k].Table.Length = n * EntrySize
		if img.Recipes[k].Kind == KindBlocks {
			img.Recipes[k].Table.Length = n * FrameEntrySize
		}
	}
}

// given is a list of one source, or of none.
func given(source string) []string {
	if source == "" {
		return nil
	}
	return []string{source}
}

// oneChunk is a signed bundle of an image of one chunk, with what its manifest says
// of both, and room for documents, which the caller appends.
func oneChunk(t *testing.T, signer sign.Signer, content []byte, image, chunk Digest, documents ...Document) []byte {
	t.Helper()
	table := appendEntry(nil, entryOf(Raw, content))
	m := testManifest()
	m.Images = []Image{{
		Class: "rootfs", Size: int64(len(content)), Digest: image, ChunkSize: testChunk,
		Chunks:  Table{Extent{Length: DigestSize}, Sum(chunk[:])},
		Recipes: []Recipe{{Kind: KindFull, Table: Table{Extent{Length: int64(len(table))}, Sum(table)}, Data: Extent{Length: int64(len(content))}}},
	}}
	m.Documents = documents
	m.place()
	payload, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := sign.Seal(PayloadType, payload, signer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := appendHead(nil, envelope)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(b, chunk[:], table, content)
}
