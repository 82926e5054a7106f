// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// A local is a bundle in a file of this device, for example on a USB stick.
type local struct {
	path    string
	retry   Retry
	fetched atomic.Int64

	mu   sync.Mutex
	seen os.FileInfo
}

func openFile(c *Client, path string) (*local, error) {
	l := &local{path: path, retry: c.retry}
	f, info, err := l.open()
	if err != nil {
		return nil, err
	}
	l.seen = info
	return l, f.Close()
}

func (l *local) open() (*os.File, os.FileInfo, error) {
	// Asked before the file is opened, because opening a device may do something,
	// and again after it, because who may write to the directory may put
	// something else in the file's place; opening a FIFO must not wait then.
	info, err := os.Stat(l.path)
	if err != nil {
		return nil, nil, l.fail(final, err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, l.fail(final, errors.New("not a regular file"))
	}
	f, err := os.OpenFile(l.path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, l.fail(final, err)
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, nil, l.fail(final, err)
	}
	return f, info, nil
}

func (l *local) fail(k kind, err error) *Error {
	return &Error{Ref: l.path, kind: k, err: err}
}

func (l *local) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen.Size()
}

func (l *local) Fetched() int64 { return l.fetched.Load() }

func (l *local) Verified() {} // nobody answers in a file's place

func (l *local) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return newReader(ctx, l.retry, l.once, off, n)
}

func (l *local) Save(ctx context.Context, off, n int64, path string, have int64, report func(int64)) error {
	return save(ctx, l.retry, l.once, off, n, path, have, report)
}

func (l *local) once(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fetch: %w", context.Cause(ctx))
	}
	f, info, err := l.open()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	same := os.SameFile(info, l.seen) && info.Size() == l.seen.Size() && info.ModTime().Equal(l.seen.ModTime())
	l.seen = info
	l.mu.Unlock()
	switch {
	case !same:
		err = l.fail(changed, errors.New("the file was replaced"))
	case off < 0 || n < 0 || info.Size()-off < n:
		err = l.fail(truncated, fmt.Errorf("file ends at byte %d, want %d bytes from %d", info.Size(), n, off))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &section{ctx: ctx, l: l, f: f, r: io.NewSectionReader(f, off, n), left: n}, nil
}

// section reads a range of a file, and stops when the context does.
type section struct {
	ctx  context.Context
	l    *local
	f    *os.File
	r    io.Reader
	left int64
}

func (s *section) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, fmt.Errorf("fetch: %w", context.Cause(s.ctx))
	}
	n, err := s.r.Read(p)
	s.left -= int64(n)
	s.l.fetched.Add(int64(n))
	if err == io.EOF && s.left > 0 {
		err = s.l.fail(truncated, io.ErrUnexpectedEOF)
	} else if err != nil && err != io.EOF {
		// The file is here, and reading it again would not help: a stick that was
		// pulled out, a medium that is worn.
		err = s.l.fail(final, err)
	}
	return n, err
}

func (s *section) Close() error { return s.f.Close() }
