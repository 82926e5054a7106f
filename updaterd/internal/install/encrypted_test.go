// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var ourIdentity = sync.OnceValue(func() *seal.Identity { return must(seal.NewIdentity()) })

// sealed encrypts a bundle for this device and for another one.
func sealed(s *bundle.Spec) {
	s.Recipients = []*seal.Recipient{must(seal.NewIdentity()).Recipient(), ourIdentity().Recipient()}
}

// newSealedRig is a device with an identity.
func newSealedRig(t testing.TB, data, booted, target []byte) *rig {
	t.Helper()
	r := newRig(t, data, booted, target)
	r.o.Identity = func() (*seal.Identity, error) { return ourIdentity(), nil }
	r.restart()
	return r
}

// hidden checks that nothing of an image is stored beside the slot.
func (r *rig) hidden(image []byte) {
	r.t.Helper()
	files := 0
	err := filepath.WalkDir(r.o.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for at := 0; at+32 <= len(image); at += 512 {
			if part := image[at:][:32]; !zero(part) && bytes.Contains(b, part) {
				r.t.Errorf("byte %d of the image is in %s", at, path)
				break
			}
		}
		return err
	})
	if err != nil || files == 0 {
		r.t.Errorf("%d files are stored, %v", files, err)
	}
}

// An encrypted bundle installs as any other, by every recipe and in both modes, and
// no byte of it comes twice. What lies on the data partition stays encrypted.
func TestInstallEncrypted(t *testing.T) {
	v1, v2 := systems()
	deltaBundle, fullBundle := build(t, sealed, "rootfs", v1, v2), build(t, sealed, "rootfs", nil, v2)
	blocksBundle := build(t, func(s *bundle.Spec) { sealed(s); s.Blocks = true }, "rootfs", nil, v2)
	for name, tc := range map[string]struct {
		data []byte
		kind string
	}{"delta": {deltaBundle, bundle.KindDelta}, "full": {fullBundle, bundle.KindFull}, "blocks": {blocksBundle, bundle.KindBlocks}} {
		for _, mode := range []string{ModeStore, ModeStream} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				r := newSealedRig(t, tc.data, v1, noise(9, slotSize))
				rel := r.inspect(mode)
				if rel.Images[0].Recipe != tc.kind {
					t.Errorf("by the %s recipe, want %s", rel.Images[0].Recipe, tc.kind)
				}
				if _, err := r.run(t.Context(), rel, quiet); err != nil {
					t.Fatal(err)
				}
				r.holds(v2, noise(9, slotSize))
				r.hidden(v2)
				if n := r.server.often(0, int64(len(tc.data))); n != 1 {
					t.Errorf("a byte was sent %d times", n)
				}
			})
		}
	}
}

// A link that dies within a sealed chunk, and a daemon that is killed, cost at most
// one chunk each.
func TestEncryptedResumes(t *testing.T) {
	v1, v2 := systems()
	for name, data := range map[string][]byte{
		"delta": build(t, sealed, "rootfs", v1, v2), "full": build(t, sealed, "rootfs", nil, v2),
	} {
		for _, mode := range []string{ModeStore, ModeStream} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				r := newSealedRig(t, data, v1, nil)
				before := make([]byte, slotSize)
				rel := r.inspect(mode)
				ctx, cancel := cancelAfter(t, 7)
				cuts := 0
				r.server.cut = func(_ int, _, n int64) int64 {
					if n < chunkSize/2 || cuts >= 4 {
						return n
					}
					cuts++
					return n/2 + 7 // not between two chunks
				}
				// The daemon is killed while the data come in.
				_, err := r.run(ctx, rel, func(p update.Progress) {
					if p.Stage != "compare" {
						cancel()
					}
				})
				if err == nil {
					t.Fatal("it was not interrupted")
				}
				r.restart()
				rel, err = r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{Mode: mode})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := r.run(t.Context(), rel, quiet); err != nil {
					t.Fatal(err)
				}
				r.holds(v2, before)
				r.hidden(v2)
				if limit := int64(len(data)) + int64(cuts+2)*(chunkSize+seal.Overhead); r.server.total() > limit {
					t.Errorf("%d bytes were sent for a bundle of %d and %d cuts", r.server.total(), len(data), cuts)
				}
			})
		}
	}
}

// A source that was touched costs its chunk, from the full recipe; a byte that is
// altered on its way costs its chunk once more.
func TestEncryptedFallsBack(t *testing.T) {
	v1, v2 := systems()
	data := build(t, sealed, "rootfs", v1, v2)
	touched := bytes.Clone(v1)
	touched[chunkSize+100] ^= 1
	touched[9*chunkSize+100] ^= 1
	for _, mode := range []string{ModeStore, ModeStream} {
		r := newSealedRig(t, data, touched, nil)
		r.install(mode)
		r.holds(v2, make([]byte, slotSize))
		r.hidden(v2)
	}
}

// What was altered is noticed by the digest of what was sent, before it is opened.
func TestEncryptedAltered(t *testing.T) {
	v1, v2 := systems()
	good := build(t, sealed, "rootfs", nil, v2)
	head := good[:bundle.HeaderSize+must(bundle.ParseHeader(good))]
	img := must(bundle.Verify(head, newKey().keyring.Policy(1), time.Time{})).Manifest.Images[0]
	for name, off := range map[string]int64{
		"chunk table": img.Chunks.Offset + 40, "recipe table": img.Full().Table.Offset + 5, "tag of a table": img.Chunks.Length - 1,
		"first chunk": img.Full().Data.Offset + 100, "tag of the last chunk": img.Full().Data.Offset + img.Full().Data.Length - 1,
	} {
		for _, mode := range modes {
			data, before := bytes.Clone(good), noise(3, slotSize)
			data[int64(len(head))+off] ^= 0x10
			r := newSealedRig(t, data, v1, before)
			_, err := r.run(t.Context(), r.inspect(mode), quiet)
			wantName(t, err, update.NameMalformedBundle)
			if !errors.Is(err, bundle.ErrEncoded) {
				t.Errorf("%s, %s: %v", name, mode, err)
			}
			if mode == ModeStore && !bytes.Equal(r.target(), before) {
				t.Errorf("%s: the slot was touched", name)
			}
		}
	}
}

// Who cannot read a bundle is told so before anything is stored or written.
func TestEncryptedRefusals(t *testing.T) {
	v1, v2 := systems()
	data := build(t, sealed, "rootfs", v1, v2)
	stranger := must(seal.NewIdentity())
	for name, tc := range map[string]struct {
		identity func() (*seal.Identity, error)
		want     string
	}{
		"no identity":          {nil, `"identity" in updaterd.toml`},
		"wrong identity":       {func() (*seal.Identity, error) { return stranger, nil }, stranger.Recipient().ID()},
		"identity not to read": {func() (*seal.Identity, error) { return nil, errors.New("mode 0644") }, "mode 0644"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newSealedRig(t, data, v1, noise(3, slotSize))
			r.o.Identity = tc.identity
			r.restart()
			_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
			wantName(t, err, update.NameNotARecipient)
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want %q", err, tc.want)
			}
			if got := r.target(); !bytes.Equal(got, noise(3, slotSize)) {
				t.Error("the slot was written")
			}
			if stored := must(os.ReadDir(r.o.Dir)); len(stored) != 0 {
				t.Errorf("%v is stored", stored)
			}
			if n := len(r.server.log()); n > 2 {
				t.Errorf("%d requests, want those for the envelope alone", n)
			}
		})
	}
}
