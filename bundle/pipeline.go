// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// An encodedChunk is what a recipe holds for one chunk.
type encodedChunk struct {
	// kind is Prefixed if that of any frame is.
	kind    Encoding
	bytes   []byte
	encoded Digest // of bytes
	decoded Digest // of the chunk
	// framed says that the chunk's part of the recipe table is table.
	framed bool
	table  []byte
}

// A chunkWorker encodes chunks. Each goroutine has its own.
type chunkWorker interface {
	// encode may keep its result in the job's scratch, for which it may leave a
	// larger one.
	encode(job *chunkJob) (encodedChunk, error)
	close()
}

// A pipeline encodes an image on several goroutines and keeps a bounded number
// of chunks in memory.
type pipeline struct {
	image     input
	chunkSize int64
	prefix    int64 // bytes before a chunk that its worker is given
	workers   int
	newWorker func() (chunkWorker, error)
	// seen, if set, is given the chunks in order.
	seen func(chunk []byte)
	// emit is given the results in order; they are not valid afterwards.
	emit func(i int, chunk int, e encodedChunk) error
}

// A chunkJob is one chunk on its way through a pipeline. It has its own copy of
// the prefix, so that workers share nothing and the image is read once.
type chunkJob struct {
	index                  int
	chunk, prefix, scratch []byte
	result                 chan encodedChunk
}

func (p *pipeline) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// An encoder is large, so a small image gets no more than it has chunks.
	workers := int(min(int64(p.workers), (p.image.size-1)/p.chunkSize+1))
	ahead := 2 * workers
	free := make(chan *chunkJob, ahead)
	for range ahead {
		free <- &chunkJob{result: make(chan encodedChunk, 1)}
	}
	todo := make(chan *chunkJob, ahead)
	pending := make(chan *chunkJob, ahead)

	g.Go(func() error {
		defer close(todo)
		defer close(pending)
		return p.read(ctx, free, todo, pending)
	})
	for range workers {
		g.Go(func() error { return p.work(ctx, todo) })
	}
	g.Go(func() error {
		for {
			job, err := receive(ctx, pending)
			if err != nil || job == nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case e := <-job.result:
				if err := p.emit(job.index, len(job.chunk), e); err != nil {
					return err
				}
			}
			free <- job // has room for all jobs
		}
	})
	return g.Wait()
}

func (p *pipeline) read(ctx context.Context, free <-chan *chunkJob, outs ...chan<- *chunkJob) error {
	var last []byte // the bytes before the chunk, from chunk 1 on
	for i, at := 0, int64(0); at < p.image.size; i++ {
		job, err := receive(ctx, free)
		if err != nil {
			return err
		}
		n := min(p.chunkSize, p.image.size-at)
		if int64(cap(job.chunk)) < n {
			job.chunk = make([]byte, n)
		}
		job.index, job.chunk = i, job.chunk[:n]
		if _, err := io.ReadFull(io.NewSectionReader(p.image, at, n), job.chunk); err != nil {
			return fmt.Errorf("read %s at %d: %w", p.image.Name(), at, err)
		}
		if p.seen != nil {
			p.seen(job.chunk)
		}
		job.prefix = append(job.prefix[:0], last...)
		if p.prefix > 0 && i > 0 {
			last = append(last, job.chunk...)
			last = append(last[:0], last[max(0, int64(len(last))-p.prefix):]...)
		}
		for _, out := range outs {
			out <- job // has room for all jobs
		}
		at += n
	}
	return nil
}

func (p *pipeline) work(ctx context.Context, todo <-chan *chunkJob) error {
	w, err := p.newWorker()
	if err != nil {
		return err
	}
	defer w.close()
	for {
		job, err := receive(ctx, todo)
		if err != nil || job == nil {
			return err
		}
		e, err := w.encode(job)
		if err != nil {
			return fmt.Errorf("encode chunk %d: %w", job.index, err)
		}
		job.result <- e
	}
}

// receive returns nil when c is closed.
func receive(ctx context.Context, c <-chan *chunkJob) (*chunkJob, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case job := <-c:
		return job, nil
	}
}
