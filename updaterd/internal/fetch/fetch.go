// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// maxHeader bounds the header of an answer.
const maxHeader = 64 << 10

// maxRedirects is how many times one request may be sent elsewhere.
const maxRedirects = 5

// Options configure a Client; the zero value works.
type Options struct {
	// CAFile names a PEM file with certificates of authorities that are trusted
	// in addition to the system's, or instead of them if CAOnly is set.
	CAFile string
	CAOnly bool
	// Now is the time against which certificates are checked; nil means
	// time.Now. A device without a battery-backed clock passes a function that
	// never answers with less than its time floor.
	Now func() time.Time
	// Retry is what to do about a link that fails.
	Retry Retry
	// Timeouts bound each step of a request.
	Timeouts Timeouts
	// UserAgent is sent with each request; "" means "updaterd".
	UserAgent string
}

// Timeouts bound the steps of a request; a zero field means its default.
type Timeouts struct {
	Connect time.Duration // TCP connection, default 15 s
	TLS     time.Duration // TLS handshake, default 15 s
	Header  time.Duration // from the request to the response's header, default 30 s
	Idle    time.Duration // between two reads of the body, default 30 s
}

// A Remote reads byte ranges of one bundle.
type Remote interface {
	// Range reads n bytes from offset off. A link that breaks is made anew at
	// the next byte, by the client's Retry policy, so an error from the reader
	// is the end of that policy, or an answer that no retry would change.
	Range(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// Save stores n bytes from offset off in the file at path, of which the
	// first have bytes are there already and what follows them is dropped. It
	// calls report with the number of bytes stored, and syncs the file.
	Save(ctx context.Context, off, n int64, path string, have int64, report func(done int64)) error
	// Verified tells that the file was found to be what it should be, now or in
	// an earlier life: from here on an answer that is no bundle is a fault of the
	// link, not of the reference.
	Verified()
	// Size is the size of the whole file, or -1 as long as it is unknown.
	Size() int64
	// Fetched counts the bytes of bundle read so far, wasted ones included.
	Fetched() int64
}

// A Client opens bundles. It is safe for concurrent use.
type Client struct {
	http  *http.Client
	agent string
	idle  time.Duration
	retry Retry
	now   func() time.Time
}

// New makes a client.
func New(o Options) (*Client, error) {
	roots, err := o.roots()
	if err != nil {
		return nil, err
	}
	o.Timeouts.defaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.UserAgent == "" {
		o.UserAgent = "updaterd"
	}
	var protocols http.Protocols
	// One connection per request: with HTTP/2 every retry would go through the
	// same connection, also when that is the one that died.
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: o.Timeouts.Connect}).DialContext,
		TLSHandshakeTimeout:   o.Timeouts.TLS,
		ResponseHeaderTimeout: o.Timeouts.Header,
		TLSClientConfig:       &tls.Config{RootCAs: roots, Time: o.Now, MinVersion: tls.VersionTLS12},
		// The default of 10 MiB is a third of what an installation may use.
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // a range of a compressed body is not a range of the bundle
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
		Protocols:              &protocols,
	}
	return &Client{
		http:  &http.Client{Transport: transport, CheckRedirect: checkRedirect},
		agent: o.UserAgent,
		idle:  o.Timeouts.Idle,
		retry: o.Retry.withDefaults(),
		now:   o.Now,
	}, nil
}

// Close closes the connections that no request uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Open prepares to read a bundle: an http or https URL, or the absolute path of
// a file. It does not touch the network yet.
func (c *Client) Open(ref string) (Remote, error) {
	if filepath.IsAbs(ref) {
		return openFile(c, ref)
	}
	u, err := url.Parse(ref)
	if err != nil {
		return nil, fmt.Errorf("open bundle: not a URL: %v", errors.Unwrap(err))
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("open bundle %q: give an http:// or https:// URL, or an absolute path", public(u))
	}
	return newRemote(c, u), nil
}

func (o *Options) roots() (*x509.CertPool, error) {
	if o.CAFile == "" {
		if o.CAOnly {
			return nil, errors.New("configure fetch: CAOnly without a CAFile trusts nobody")
		}
		return nil, nil // the system's
	}
	data, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read certificates of authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !o.CAOnly {
		// A device that has a private authority may well have no other.
		if system, err := x509.SystemCertPool(); err == nil {
			pool = system
		}
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("read certificates of authorities: %s holds no PEM certificate", o.CAFile)
	}
	return pool, nil
}

func (t *Timeouts) defaults() {
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&t.Connect, 15 * time.Second}, {&t.TLS, 15 * time.Second},
		{&t.Header, 30 * time.Second}, {&t.Idle, 30 * time.Second},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
}

// errRedirect marks a redirect that must not be followed.
type errRedirect string

func (e errRedirect) Error() string { return string(e) }

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errRedirect(fmt.Sprintf("more than %d redirects", maxRedirects))
	}
	from := via[len(via)-1].URL
	switch to := req.URL; {
	case to.Scheme != "http" && to.Scheme != "https":
		return errRedirect("redirect to a " + to.Scheme + " URL")
	case from.Scheme == "https" && to.Scheme == "http":
		return errRedirect("redirect from https to http")
	}
	// The URL itself may be a credential, and net/http would pass an
	// Authorization header on to subdomains.
	req.Header.Del("Referer")
	if req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
		req.Header.Del("Authorization")
	}
	return nil
}
