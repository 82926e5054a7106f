// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"
)

// once opens n bytes from offset off: one request, no retry.
type once func(ctx context.Context, off, n int64) (io.ReadCloser, error)

// A reader delivers one range, over as many connections as it takes.
type reader struct {
	ctx  context.Context
	open once
	pace pacer
	off  int64 // of the next byte
	left int64
	body io.ReadCloser
	lost error // why the last connection broke, if it did
	err  error // sticky
}

func newReader(ctx context.Context, policy Retry, open once, off, n int64) (io.ReadCloser, error) {
	r := &reader{ctx: ctx, open: open, pace: pacer{policy: policy}, off: off, left: n}
	if n > 0 {
		r.connect()
	}
	if r.err != nil {
		return nil, r.err
	}
	return r, nil
}

// connect opens a body at the next byte, or sets r.err.
func (r *reader) connect() {
	for r.body == nil && r.err == nil {
		if r.lost != nil {
			r.err, r.lost = r.pace.wait(r.ctx, r.lost), nil
			continue
		}
		r.body, r.lost = r.open(r.ctx, r.off, r.left)
	}
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.err == nil && r.left > 0 {
		if r.connect(); r.err != nil {
			break
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		if n > 0 {
			r.off += int64(n)
			r.left -= int64(n)
			r.pace.progress()
		}
		if err != nil || r.left == 0 {
			r.body.Close()
			r.body = nil
		}
		if r.left > 0 {
			r.lost = err // dealt with when the next byte is asked for
		}
		if n > 0 {
			return n, nil
		}
	}
	if r.err != nil {
		return 0, r.err
	}
	return 0, io.EOF
}

func (r *reader) Close() error {
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
	if r.err == nil {
		r.err = errors.New("fetch: read after close")
	}
	return nil
}

// counted is the body of one answer: it ends after exactly left bytes, counts
// them, and does not wait longer than idle for the next.
type counted struct {
	rc     io.ReadCloser
	left   int64
	name   string
	count  *atomic.Int64
	idle   time.Duration
	timer  *time.Timer
	ctx    context.Context
	cancel func()
}

func (c *counted) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	// The time is taken only while we wait for the network, not while the
	// caller writes what it got to a slow medium.
	c.timer.Reset(c.idle)
	n, err := c.rc.Read(p[:min(int64(len(p)), c.left)])
	c.timer.Stop()
	c.count.Add(int64(n))
	c.left -= int64(n)
	switch {
	case c.left == 0:
		return n, io.EOF
	case err == nil:
		return n, nil
	case errors.Is(context.Cause(c.ctx), ErrStalled):
		err = ErrStalled
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, &Error{Ref: c.name, kind: transient, err: err}
}

func (c *counted) Close() error {
	c.timer.Stop()
	err := c.rc.Close()
	c.cancel()
	return err
}
