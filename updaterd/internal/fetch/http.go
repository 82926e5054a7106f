// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A remote is a bundle on an HTTP server.
type remote struct {
	c       *Client
	url     *url.URL
	name    string // for messages: no credentials
	fetched atomic.Int64

	mu        sync.Mutex
	validator string // of the file that is being read; "" until an answer has one
	size      int64
	answered  bool // a range was served
	verified  bool // and was, now or earlier, of a bundle
}

func newRemote(c *Client, u *url.URL) *remote {
	return &remote{c: c, url: u, name: public(u), size: -1}
}

// public is a URL without what may be a secret in it.
func public(u *url.URL) string {
	name := *u
	name.User, name.RawQuery, name.Fragment = nil, "", ""
	return name.String()
}

func (r *remote) Fetched() int64 { return r.fetched.Load() }

func (r *remote) Verified() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.verified = true
}

func (r *remote) Size() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size
}

func (r *remote) Range(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	return newReader(ctx, r.c.retry, r.once, off, n)
}

func (r *remote) Save(ctx context.Context, off, n int64, path string, have int64, report func(int64)) error {
	return save(ctx, r.c.retry, r.once, off, n, path, have, report)
}

// once makes one request for n bytes from off and checks that the answer is
// just that. The body ends with io.EOF after n bytes and with another error before.
func (r *remote) once(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	body, err := r.request(ctx, off, n)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	timer := time.AfterFunc(r.c.idle, func() { cancel(ErrStalled) })
	timer.Stop()
	return &counted{
		rc: body, left: n, name: r.name, count: &r.fetched,
		idle: r.c.idle, timer: timer, ctx: ctx, cancel: func() { cancel(nil) },
	}, nil
}

func (r *remote) request(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url.String(), nil)
	if err != nil {
		return nil, r.fail(final, 0, err)
	}
	req.Header.Set("User-Agent", r.c.agent)
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	resp, err := r.c.http.Do(req)
	if err != nil {
		return nil, r.broken(err)
	}
	if err := r.check(resp, off, n); err != nil {
		// Closed unread: whatever is in it, it is not what we asked for.
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// broken is the error for a request that got no answer.
func (r *remote) broken(err error) error {
	// net/http repeats the URL, which may hold a token; we have our own.
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	r.mu.Lock()
	answered, verified := r.answered, r.verified
	r.mu.Unlock()
	// A redirect that leads nowhere will not lead to a bundle, and a certificate
	// that was never good will not become good. Where there was a bundle, or a
	// server, before, they may well be a captive portal's.
	var redirect errRedirect
	if errors.As(err, &redirect) && !verified {
		return r.fail(final, 0, err)
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) && !answered && !verified {
		return r.fail(final, 0, err)
	}
	return r.fail(transient, 0, err)
}

// stranger is the error for an answer that is the whole of something else than
// a bundle; nil if it may be one.
func (r *remote) stranger(resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	r.mu.Lock()
	verified := r.verified
	same := r.answered && validatorOf(resp) == r.validator && resp.ContentLength == r.size
	r.mu.Unlock()
	e := r.fail(final, resp.StatusCode, fmt.Errorf("server answers with content type %q and length %d: %w", kind, resp.ContentLength, ErrNoBundle))
	if verified {
		e.kind = transient
	}
	// What was verified came by ranges, since no envelope begins a file. Who
	// now ignores them, and has another file, is not who served it.
	if kind == "text/html" || kind == "application/xhtml+xml" || verified && !same {
		return e
	}
	return nil
}

// check compares an answer with the range that was asked for.
func (r *remote) check(resp *http.Response, off, n int64) error {
	status := resp.StatusCode
	if status != http.StatusPartialContent && status != http.StatusOK {
		return r.refused(resp, off)
	}
	if status == http.StatusOK {
		if err := r.stranger(resp); err != nil {
			return err
		}
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return r.fail(final, status, fmt.Errorf("server answers with content encoding %q", enc))
	}
	total := int64(-1)
	if status == http.StatusOK {
		if total = resp.ContentLength; off != 0 {
			return r.fail(final, status, ErrNoRange)
		}
	} else {
		first, last, t, err := parseContentRange(resp.Header.Get("Content-Range"))
		switch {
		case err != nil:
			return r.fail(final, status, err)
		case first == off && t >= 0 && last == t-1 && last < off+n-1:
			// All there is, and too little: the reason is found out below.
		case first != off || last != off+n-1 || (resp.ContentLength >= 0 && resp.ContentLength != n):
			return r.fail(final, status, fmt.Errorf("asked for bytes %d-%d, server answers with Content-Range %q and length %d",
				off, off+n-1, resp.Header.Get("Content-Range"), resp.ContentLength))
		}
		total = t
	}
	if err := r.same(resp, total); err != nil {
		return err
	}
	if total >= 0 && total < off+n {
		return r.fail(truncated, status, fmt.Errorf("file ends at byte %d, want %d bytes from %d", total, n, off))
	}
	return nil
}

// same compares the answer's validator and size with those seen before, and
// takes over the new ones.
func (r *remote) same(resp *http.Response, total int64) error {
	validator := validatorOf(resp)
	r.mu.Lock()
	defer r.mu.Unlock()
	differs := (r.answered && validator != r.validator) || (r.size >= 0 && total >= 0 && total != r.size)
	r.validator, r.answered = validator, true
	if total >= 0 {
		r.size = total
	}
	if differs {
		return r.fail(changed, resp.StatusCode, errors.New("the file on the server was replaced, or another server answers with its own copy"))
	}
	return nil
}

func validatorOf(resp *http.Response) string {
	if tag := resp.Header.Get("ETag"); tag != "" {
		return tag
	}
	return resp.Header.Get("Last-Modified")
}

// refused is the error for a status that is not a success.
func (r *remote) refused(resp *http.Response, off int64) error {
	status := resp.StatusCode
	cause := fmt.Errorf("server answers %s", statusText(status))
	switch {
	case status == http.StatusRequestedRangeNotSatisfiable:
		return r.beyond(resp, off, cause)
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, status >= 500:
		e := r.fail(transient, status, cause)
		e.after = retryAfter(resp.Header.Get("Retry-After"), r.c.now())
		return e
	}
	return r.fail(final, status, cause)
}

// beyond is the error for a range behind the end of the file: of a file that
// ends too early, or of one that was replaced by a shorter one.
func (r *remote) beyond(resp *http.Response, off int64, cause error) error {
	total := int64(-1)
	if s, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */"); ok {
		if n, err := strconv.ParseUint(s, 10, 63); err == nil {
			total = int64(n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size > off && total != r.size {
		// An error answer has no validator; that of the next one is taken over.
		r.size, r.answered = total, false
		return r.fail(changed, resp.StatusCode, fmt.Errorf("the file on the server was replaced by a shorter one: %w", cause))
	}
	return r.fail(truncated, resp.StatusCode, fmt.Errorf("file ends before byte %d: %w", off, cause))
}

func (r *remote) fail(k kind, status int, err error) *Error {
	return &Error{Ref: r.name, Status: status, kind: k, err: err}
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// retryAfter reads a Retry-After header: seconds or a date.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// parseContentRange reads "bytes first-last/total"; total is -1 for "*".
func parseContentRange(s string) (first, last, total int64, err error) {
	bad := fmt.Errorf("server answers with Content-Range %q", s)
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, bad
	}
	total = -1
	for _, f := range []struct {
		s string
		v *int64
	}{{a, &first}, {b, &last}, {size, &total}} {
		if f.v == &total && f.s == "*" {
			continue
		}
		n, err := strconv.ParseUint(f.s, 10, 63)
		if err != nil {
			return 0, 0, 0, bad
		}
		*f.v = int64(n)
	}
	if first > last || (total >= 0 && last >= total) {
		return 0, 0, 0, bad
	}
	return first, last, total, nil
}
