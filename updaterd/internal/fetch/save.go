// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cavaliergopher/grab/v3"
)

const (
	reportEvery = 250 * time.Millisecond
	// syncEvery bounds what a power cut takes of a running download.
	syncEvery = 4 << 20
)

// save stores a range in a file. grab does the storing and the resuming; what
// grab does not check (status, Content-Range, validators) is checked in open,
// and what it does not do (sync, give up by policy) is done here.
func save(ctx context.Context, policy Retry, open once, off, n int64, path string, have int64, report func(int64)) error {
	f, err := prepare(path, have, n)
	if err != nil {
		return fmt.Errorf("save download: %w", err)
	}
	defer f.Close()
	pace := pacer{policy: policy}
	client := &grab.Client{HTTPClient: &window{open: open, off: off, n: n}}
	for have < n {
		err := transfer(ctx, client, f, n, func(done int64) {
			if done > have {
				pace.progress() // now, and not when the connection ends
			}
			report(done)
		})
		info, serr := f.Stat()
		if serr != nil {
			return fmt.Errorf("save download: %w", serr)
		}
		if info.Size() > have {
			pace.progress()
		}
		if have = info.Size(); err == nil {
			if have != n {
				return fmt.Errorf("internal error: %s has %d bytes after a complete download of %d", path, have, n)
			}
			break
		}
		if err := pace.wait(ctx, err); err != nil {
			return err
		}
	}
	report(have)
	if err := f.Sync(); err != nil {
		return fmt.Errorf("save download: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// prepare makes sure that path holds just the have bytes that are good. grab
// would otherwise believe whatever is there.
func prepare(path string, have, n int64) (*os.File, error) {
	if have < 0 || have > n {
		return nil, fmt.Errorf("internal error: %d of %d bytes", have, n)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < have {
		err = fmt.Errorf("%s has %d bytes, not the %d that were good", path, info.Size(), have)
	}
	if err == nil && info.Size() > have {
		err = f.Truncate(have)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// transfer lets grab append to f what is missing, over one connection.
func transfer(ctx context.Context, client *grab.Client, f *os.File, n int64, report func(int64)) error {
	req, err := grab.NewRequest(f.Name(), "http://bundle.invalid/")
	if err != nil {
		return err
	}
	req.Size = n
	req.NoCreateDirectories = true
	req.IgnoreRemoteTime = true
	resp := client.Do(req.WithContext(ctx))
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	synced := resp.BytesComplete()
	for {
		select {
		case <-resp.Done:
			return resp.Err()
		case <-tick.C:
			done := resp.BytesComplete()
			report(done)
			if done-synced >= syncEvery {
				synced = done
				if err := f.Sync(); err != nil {
					resp.Cancel()
					return fmt.Errorf("save download: %w", err)
				}
			}
		}
	}
}

// A window is a range of a bundle that grab takes for a whole file: "bytes N- of
// this file" becomes "bytes off+N to off+n-1 of the bundle".
type window struct {
	open   once
	off, n int64
}

func (w *window) Do(req *http.Request) (*http.Response, error) {
	resp := &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept-Ranges": {"bytes"}}, ContentLength: w.n, Body: http.NoBody, Request: req,
	}
	if req.Method == http.MethodHead {
		// grab asks whether it can resume. It can, and no one need be asked.
		return resp, nil
	}
	from, err := w.from(req.Header.Get("Range"))
	if err != nil {
		return nil, err
	}
	body, err := w.open(req.Context(), w.off+from, w.n-from)
	if err != nil {
		return nil, err
	}
	resp.StatusCode, resp.Status = http.StatusPartialContent, "206 Partial Content"
	resp.ContentLength = w.n - from
	resp.Body = body
	return resp, nil
}

func (w *window) from(header string) (int64, error) {
	if header == "" {
		return 0, nil
	}
	s, ok := strings.CutPrefix(header, "bytes=")
	s, ok2 := strings.CutSuffix(s, "-")
	n, err := strconv.ParseInt(s, 10, 64)
	if !ok || !ok2 || err != nil || n < 0 || n >= w.n {
		return 0, errors.New("internal error: unexpected range " + header)
	}
	return n, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("save download: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("save download: %w", err)
	}
	return nil
}
