// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
)

// writeAlone makes, on all cores, those of the listed chunks that a delta makes of the
// source alone, and returns the others: they need chunks before them, or have to
// come from the full recipe.
func (w *applier) writeAlone(ctx context.Context, list []int) (left []int, err error) {
	g, ctx := errgroup.WithContext(ctx)
	todo := make(chan int)
	g.Go(func() error {
		defer close(todo)
		for _, i := range list {
			if w.table[i].Kind == Prefixed {
				continue
			}
			select {
			case todo <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	w.unfit = make(map[int]bool)
	var counting sync.Mutex
	for range min(runtime.GOMAXPROCS(0), len(list)) {
		g.Go(func() error {
			m, err := w.newMaker()
			if err != nil {
				return err
			}
			defer m.Close()
			for i := range todo {
				err := m.write(i)
				if err != nil && !errors.Is(err, ErrSource) {
					return fmt.Errorf("chunk %d: %w", i, err)
				}
				counting.Lock()
				if err != nil {
					w.unfit[i] = true
				} else {
					w.advance(w.img.ChunkLength(i))
					if w.table[i].Kind == Patch {
						w.Patched++
					}
				}
				counting.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, i := range list {
		if w.table[i].Kind == Prefixed || w.unfit[i] {
			left = append(left, i)
		}
	}
	return left, nil
}

// A maker makes chunks of the source on one goroutine.
type maker struct {
	*applier
	*Decoder
	enc, dst []byte
}

func (w *applier) newMaker() (*maker, error) {
	d, err := NewDecoder(w.Manifest)
	if err != nil {
		return nil, err
	}
	return &maker{applier: w, Decoder: d, dst: make([]byte, w.img.ChunkSize)}, nil
}

func (m *maker) write(i int) (err error) {
	e := m.table[i]
	if m.enc, err = m.File.read(m.enc, e.Offset, int64(e.Length)); err != nil {
		return err
	}
	dst := m.dst[:m.img.ChunkLength(i)]
	if err := m.Decode(dst, m.digests[i], e, m.enc, Basis{Source: m.source, SourceSize: m.source.size}); err != nil {
		return err
	}
	return m.put(i, dst)
}
