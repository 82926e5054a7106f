// SPDX-License-Identifier: Apache-2.0

package install

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// maxRounds is how often a stored download is verified before the medium that
// it is stored on is given up.
const maxRounds = 4

// Download fetches and authenticates all that a release in store mode needs.
func (e *Engine) Download(ctx context.Context, r *update.Release, report func(update.Progress)) error {
	p, err := e.planOf(ctx, r)
	if err == nil && p.key.mode == ModeStore {
		err = p.download(ctx, report)
	}
	if err != nil {
		return fmt.Errorf("download bundle: %w", err)
	}
	return nil
}

func (p *plan) download(ctx context.Context, report func(update.Progress)) error {
	if err := p.e.store.prune(p); err != nil {
		return unstored(err)
	}
	if err := p.e.store.saveHead(p); err != nil {
		return unstored(err)
	}
	total := p.cost.Expected - int64(len(p.head))
	var done int64
	tell := func(done int64) {
		report(update.Progress{Stage: "download", Done: done, Total: total, Fetched: p.fetched()})
	}
	for _, img := range p.images {
		if err := p.tables(ctx, img); err != nil {
			return fmt.Errorf("slot %s: tables: %w", img.slot, err)
		}
		done += img.Chunks.Length + img.recipe.Table.Length
		tell(done)
	}
	for _, img := range p.images {
		if err := p.downloadData(ctx, img, func(n int64) { tell(done + n) }); err != nil {
			return fmt.Errorf("slot %s: data: %w", img.slot, err)
		}
		done += img.recipe.Data.Length
		tell(done)
	}
	return nil
}

// downloadData stores the encoded chunks of an image. It ends only after every
// one of them was read back from the file and found to be what was signed.
func (p *plan) downloadData(ctx context.Context, img *image, tell func(int64)) error {
	if err := p.e.store.mkdir(storeKey(img.recipe)); err != nil {
		return unstored(err)
	}
	path := p.e.store.path(storeKey(img.recipe), fileData)
	data := img.recipe.Data
	for round := 0; round < maxRounds; {
		have, bad, err := img.scan(ctx, path)
		if err != nil {
			return err
		}
		tell(have)
		if have < data.Length {
			if err := p.connect(); err != nil {
				return err
			}
			before := p.remote.Fetched()
			err := p.remote.Save(ctx, p.base+data.Offset, data.Length, path, have, tell)
			if p.remote.Fetched() > before {
				p.achieved()
			}
			if err != nil {
				if err := p.lost(ctx, err); err != nil {
					return err
				}
			}
			continue // what came is verified before it counts
		}
		if len(bad) == 0 {
			return nil
		}
		if err := p.mend(ctx, img, path, bad); err != nil {
			return err
		}
		round++
	}
	return fail(update.NameMedium, "%s does not hold what is written to it", path)
}

// lost tells the network's faults, which may be recovered from, from those of the data directory.
func (p *plan) lost(ctx context.Context, err error) error {
	if changed(err) || truncated(err) {
		return p.recover(ctx, err)
	}
	return unstored(err)
}

// scan verifies what is stored. have is the end of the last chunk that is there
// in full; bad lists chunks before it that are not what was signed. Whatever
// follows is part of a chunk and not worth keeping.
func (img *image) scan(ctx context.Context, path string) (have int64, bad []int, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return 0, nil, unstored(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, nil, unstored(err)
	}
	buf := make([]byte, img.ChunkSize)
	for i := range bundle.Order(len(img.entries)) {
		if ctx.Err() != nil {
			return 0, nil, context.Cause(ctx)
		}
		e := img.entries[i]
		end := e.Offset - img.recipe.Data.Offset + int64(e.Length)
		if end > info.Size() {
			break
		}
		if !img.stored(f, e, buf) {
			bad = append(bad, i)
		}
		have = end
	}
	return have, bad, nil
}

// stored reads one encoded chunk into buf; a medium that cannot give it back is
// as good as one that gives back something else.
func (img *image) stored(f io.ReaderAt, e bundle.Entry, buf []byte) bool {
	b := buf[:e.Length]
	if _, err := f.ReadAt(b, e.Offset-img.recipe.Data.Offset); err != nil {
		return false
	}
	return bundle.Sum(b) == e.Digest
}

// mend fetches the bad chunks again, and only them.
func (p *plan) mend(ctx context.Context, img *image, path string, bad []int) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return unstored(err)
	}
	defer f.Close()
	buf := make([]byte, img.ChunkSize)
	for _, i := range bad {
		e := img.entries[i]
		b, err := p.chunk(ctx, e, buf)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", i, err)
		}
		if _, err := f.WriteAt(b, e.Offset-img.recipe.Data.Offset); err != nil {
			return unstored(err)
		}
	}
	return unstored(f.Sync())
}
