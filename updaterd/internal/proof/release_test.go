// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/install"
	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
)

const (
	chunkSize = 8 << 10
	page      = 4 << 10
	versions  = 4
)

// classes are the slot classes with the size of their slots.
var classes = []struct {
	name        string
	image, slot int
}{{"rootfs", 8*chunkSize - 1000, 80 << 10}, {"bootloader", 3*chunkSize - 512, 32 << 10}}

// product is what is updated: versions 0 to 3 of every class, and a bundle for
// each, with a delta from the version before.
type product struct {
	images  [versions]map[string][]byte
	bundles [versions][]byte
	keyring *sign.Keyring
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// theProduct is made once: the same in every run.
var theProduct = sync.OnceValue(func() *product {
	dir := must(os.MkdirTemp("", "updaterd-proof-"))
	defer os.RemoveAll(dir)
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))})
	p := &product{keyring: must(sign.NewKeyring(private.Public()))}
	file := func(class string, version int) string { return filepath.Join(dir, fmt.Sprint(class, version)) }
	for version := range versions {
		p.images[version] = map[string][]byte{}
		spec := bundle.Spec{
			Compatible: []string{"board"}, Version: fmt.Sprint(version), Sequence: uint64(10 * version), Floor: uint64(10 * version),
			// Long after the time at which the simulated clock begins.
			Created: time.Date(2030, 1, version+1, 0, 0, 0, 0, time.UTC), ChunkSize: chunkSize, Workers: 1,
			Signers: []sign.Signer{must(sign.ParseSigner(key, nil))},
		}
		for i, class := range classes {
			image := noise(uint64(i), class.image)
			clear(image[2*chunkSize : 2*chunkSize+chunkSize/2])
			for at := 0; at < len(image); at += 3000 { // something differs in nearly every chunk
				if at/chunkSize != 5 {
					copy(image[at:], noise(uint64(100*version+i), 100))
				}
			}
			p.images[version][class.name] = image
			if err := os.WriteFile(file(class.name, version), image, 0o600); err != nil {
				panic(err)
			}
			img := bundle.ImageSpec{Class: class.name, Path: file(class.name, version), BuildID: buildID(version)}
			if version > 0 {
				img.Deltas = []bundle.SourceSpec{{Path: file(class.name, version-1), BuildID: buildID(version - 1)}}
			}
			spec.Images = append(spec.Images, img)
		}
		out := filepath.Join(dir, "bundle")
		if err := bundle.Build(context.Background(), out, spec); err != nil {
			panic(err)
		}
		p.bundles[version] = must(os.ReadFile(out))
	}
	return p
})

func buildID(version int) string { return fmt.Sprint("build-", version) }

func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// A remote is a bundle behind a link that never fails. It stores as fetch does:
// in pieces, with a sync at the end.
type remote struct {
	m       *medium.Medium
	data    []byte
	fetched int64
}

var _ install.Remote = (*remote)(nil)

func (r *remote) Verified()      {}
func (r *remote) Size() int64    { return int64(len(r.data)) }
func (r *remote) Fetched() int64 { return r.fetched }

func (r *remote) Range(_ context.Context, off, n int64) (io.ReadCloser, error) {
	r.fetched += n
	return io.NopCloser(bytes.NewReader(r.data[off : off+n])), nil
}

func (r *remote) Save(ctx context.Context, off, n int64, name string, have int64, report func(int64)) error {
	f, err := r.m.Append(name)
	if err != nil {
		return err
	}
	if err := f.Truncate(int(have)); err != nil {
		return err
	}
	for have < n {
		step := min(n-have, 20_000)
		if _, err := f.Write(r.data[off+have : off+have+step]); err != nil {
			return err
		}
		have += step
		r.fetched += step
		if report(have); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return r.m.SyncDir(path.Dir(name))
}
