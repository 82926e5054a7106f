// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

type planKey struct {
	ref, digest string
	target      bootctl.Slot
	mode        string
}

// A plan is a verified release and how this device installs it.
type plan struct {
	e        *Engine
	key      planKey
	target   bootctl.Slot
	head     []byte // header and envelope
	verified *bundle.Verified
	images   []*image
	cost     update.Cost

	remote Remote // nil until the network is needed
	base   int64  // where the payload begins in the remote file
	moves  int    // times the remote file was replaced since something was achieved
	tally  tally  // of the job in hand, as it was stored last
	before int64  // bytes that the job fetched before this plan
	heavy  bool   // has the tables of a blocks recipe, which may be large
	wasted int64  // bytes of the tables of blocks recipes that turned out to save nothing
}

// An image is one image of a plan.
type image struct {
	*bundle.Image
	slot    string // its name
	device  string
	recipe  *bundle.Recipe
	source  string // device that a delta reads
	origin  string // device that it is carried over from, if the release has no such image
	digests []bundle.Digest
	zeros   bundle.Digest  // of a chunk of ChunkSize zeros
	entries []bundle.Entry // nil in a blocks recipe
	frames  *frameUnits    // of a blocks recipe
	units   units          // the entries or the frames
	raw     [2][]byte      // both tables, until they are stored; the frames have theirs
	data    int64          // bytes of data that are expected to be fetched
	full    []bundle.Entry // of the full recipe, once a delta did not fit
}

// window is the memory that making the image takes, a fall-back to the full
// recipe included.
func (img *image) window() int64 { return bundle.WindowSize(img.Image, img.recipe, img.Full()) }

// maxMoves is how often the remote file may be replaced, one time after the
// other, without anything being achieved in between.
const maxMoves = 3

func (p *plan) release() *update.Release {
	m := p.verified.Manifest
	r := &update.Release{
		Ref:        p.key.ref,
		Digest:     p.key.digest,
		Version:    m.Version,
		Sequence:   m.Sequence,
		Floor:      m.Floor,
		Compatible: slices.Clone(m.Compatible),
		Created:    m.Created,
		KeyIDs:     slices.Clone(p.verified.KeyIDs),
		Target:     p.target,
		Mode:       p.key.mode,
		Download:   p.cost,
	}
	if p.verified.Timely {
		r.TimeFloor = m.Created
	}
	for _, img := range p.images {
		r.Images = append(r.Images, update.ReleaseImage{
			Class: img.Class, Size: img.Size, Digest: img.Digest.String(), BuildID: img.BuildID,
			Recipe: img.recipe.Kind, Download: img.expected(),
		})
	}
	return r
}

// size is the number of bytes of all images.
func (p *plan) size() (n int64) {
	for _, img := range p.images {
		n += img.Size
	}
	return n
}

func (p *plan) fetched() int64 {
	if p.remote == nil {
		return 0
	}
	return p.remote.Fetched()
}

func (p *plan) connect() error {
	if p.remote != nil {
		return nil
	}
	remote, err := p.e.o.Open(p.key.ref)
	if err != nil {
		return named(update.NameNetwork, err)
	}
	remote.Verified() // by whoever stored the envelope
	p.remote = remote
	return nil
}

// achieved tells that the remote file is of use.
func (p *plan) achieved() { p.moves = 0 }

// reread finds out what the remote file is now. It must be the same release;
// moved tells whether the payload lies elsewhere in it, as after signing again.
func (p *plan) reread(ctx context.Context) (moved bool, err error) {
	for {
		head, err := readHead(ctx, p.remote)
		if changed(err) && p.moves < maxMoves {
			p.moves++
			continue
		}
		if err != nil {
			return false, err
		}
		v, err := p.e.verify(head)
		if err != nil {
			return false, err
		}
		if v.Digest != p.verified.Digest {
			return false, fail(update.NameMalformedBundle, "%s was replaced by another release, %s; install that one as a new job", update.PublicRef(p.key.ref), v.Manifest.Version)
		}
		moved = v.PayloadOffset != p.base
		p.base = v.PayloadOffset
		return moved, nil
	}
}

// recover decides what to do about an error of the remote: nil means that the
// file was replaced by another copy of the same release, and to try again.
func (p *plan) recover(ctx context.Context, err error) error {
	if !changed(err) {
		return tooShort(err)
	}
	if p.moves++; p.moves > maxMoves {
		return named(update.NameNetwork, err)
	}
	_, err = p.reread(ctx)
	return err
}

// region reads an extent into b and has it checked. Bytes that are not what
// was signed are fetched once more; if that does not help, the file may have
// been replaced unnoticed; if it was not, it is damaged.
func (p *plan) region(ctx context.Context, off int64, b []byte, check func([]byte) error) error {
	if err := p.connect(); err != nil {
		return err
	}
	for try := 1; ; {
		if err := p.within(int64(len(b))); err != nil {
			return err
		}
		err := readRange(ctx, p.remote, p.base+off, b)
		if err != nil {
			if err := p.recover(ctx, err); err != nil {
				return err
			}
			continue
		}
		if err = check(b); err == nil {
			p.achieved()
			return nil
		}
		if !errors.Is(err, bundle.ErrEncoded) {
			return distrusted(err)
		}
		if try == 2 {
			moved, rerr := p.reread(ctx)
			if rerr != nil {
				return rerr
			}
			if !moved {
				return fail(update.NameMalformedBundle, "payload of %s is damaged: %w", update.PublicRef(p.key.ref), err)
			}
		}
		if try++; try > 3 {
			return fail(update.NameMalformedBundle, "payload of %s is damaged: %w", update.PublicRef(p.key.ref), err)
		}
	}
}

// chunk fetches the encoded bytes of one chunk.
func (p *plan) chunk(ctx context.Context, e bundle.Entry, b []byte) ([]byte, error) {
	return p.unit(ctx, chunkUnits{e}, 0, b)
}

// unit fetches the encoded bytes of one unit.
func (p *plan) unit(ctx context.Context, all units, u int, b []byte) ([]byte, error) {
	off, n := all.place(u)
	b = b[:n]
	err := p.region(ctx, off, b, func(b []byte) error {
		if !all.good(u, b) {
			return bundle.ErrEncoded
		}
		return nil
	})
	return b, err
}

// tables makes sure that an image's tables are there: from the store, or
// fetched, in one range if they are neighbours, and then stored.
func (p *plan) tables(ctx context.Context, img *image) error {
	if img.origin != "" {
		return nil
	}
	key := storeKey(img.recipe)
	if img.units != nil {
		if img.raw[0] == nil || p.key.mode == "" {
			return nil
		}
		// Inspect fetched them, which stores nothing.
		err := p.saveTables(img, img.raw[0], img.raw[1])
		if img.raw = [2][]byte{}; p.key.mode == ModeStream {
			return nil
		}
		return unstored(err)
	}
	chunks, table := p.e.store.load(key, fileChunks, img.Chunks.Length), p.e.store.load(key, fileTable, img.recipe.Table.Length)
	if chunks != nil && table != nil && img.parse(chunks, table) == nil {
		return nil
	}
	if p.key.mode == ModeStore {
		if err := p.fits(0, img.Chunks.Length+img.recipe.Table.Length); err != nil {
			return err
		}
	}
	chunks, table = make([]byte, img.Chunks.Length), make([]byte, img.recipe.Table.Length)
	parse := func([]byte) error { return img.parse(chunks, table) }
	if img.Chunks.Offset+img.Chunks.Length == img.recipe.Table.Offset {
		both := make([]byte, len(chunks)+len(table))
		chunks, table = both[:len(chunks)], both[len(chunks):]
		if err := p.region(ctx, img.Chunks.Offset, both, parse); err != nil {
			return err
		}
	} else {
		pin := func(t bundle.Table) func([]byte) error {
			return func(b []byte) error {
				if bundle.Sum(b) != t.Digest {
					return bundle.ErrEncoded
				}
				return nil
			}
		}
		if err := p.region(ctx, img.Chunks.Offset, chunks, pin(img.Chunks)); err != nil {
			return err
		}
		if err := p.region(ctx, img.recipe.Table.Offset, table, pin(img.recipe.Table)); err != nil {
			return err
		}
		if err := parse(nil); err != nil {
			return distrusted(err)
		}
	}
	if p.key.mode == "" {
		if img.raw = [2][]byte{chunks, table}; img.frames != nil {
			img.raw[1] = nil
		}
		return nil
	}
	err := p.saveTables(img, chunks, table)
	if p.key.mode == ModeStream {
		return nil // it was worth a try: a restart would have them at hand
	}
	return unstored(err)
}

// saveTables stores both tables as they were fetched. The frames have theirs; only
// one release at a time is downloaded or installed, so nobody else uses it now.
func (p *plan) saveTables(img *image, chunks, table []byte) error {
	key := storeKey(img.recipe)
	save := func(b []byte) error { return p.e.store.save(key, fileTable, b) }
	err := p.e.store.save(key, fileChunks, chunks)
	if img.frames != nil {
		return errors.Join(err, img.frames.Encoded(save))
	}
	return errors.Join(err, save(table))
}

// parse authenticates and takes over both tables.
func (img *image) parse(chunks, table []byte) error {
	digests, err := bundle.ParseChunks(img.Image, chunks)
	if err != nil {
		return err
	}
	if img.recipe.Kind == bundle.KindBlocks {
		t, err := bundle.ParseFrames(img.Image, img.recipe, digests, table)
		if err != nil {
			return err
		}
		img.frames = newFrameUnits(img.Image, img.recipe, t)
		img.units = img.frames
	} else {
		entries, err := bundle.ParseTable(img.Image, img.recipe, table)
		if err != nil {
			return err
		}
		img.entries, img.units = entries, chunkUnits(entries)
	}
	img.digests = digests
	img.zeros = bundle.Sum(make([]byte, img.ChunkSize))
	return nil
}

// is reports whether b is chunk i. A large image may be mostly zeros, and those
// are compared many times faster than hashed.
func (img *image) is(i int, b []byte) bool {
	if img.digests[i] == img.zeros && int64(len(b)) == img.ChunkSize {
		return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
	}
	return bundle.Sum(b) == img.digests[i]
}

// fullTable makes sure that the table of the full recipe is there.
func (p *plan) fullTable(ctx context.Context, img *image) (err error) {
	if img.full != nil {
		return nil
	}
	full := img.Full()
	parse := func(b []byte) error {
		img.full, err = bundle.ParseTable(img.Image, full, b)
		return err
	}
	if b := p.e.store.load(storeKey(img.recipe), fileFull, full.Table.Length); b != nil && parse(b) == nil {
		return nil
	}
	b := make([]byte, full.Table.Length)
	if err := p.region(ctx, full.Table.Offset, b, parse); err != nil {
		return fmt.Errorf("fetch table of the full recipe: %w", err)
	}
	// Best effort: without it a restart fetches the table again.
	_ = p.e.store.save(storeKey(img.recipe), fileFull, bytes.Clone(b))
	return nil
}
