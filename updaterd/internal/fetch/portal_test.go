// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const loginPage = "<!doctype html><title>Welcome</title><form>Room number: <input name=room></form>"

// portals answer in the server's place, as hotels and airports do.
var portals = map[string]func(w http.ResponseWriter, r *http.Request){
	"login page": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, loginPage)
	},
	"login page with a validator, as long as the bundle": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "Text/HTML")
		w.Header().Set("ETag", `"1"`)
		_, _ = io.WriteString(w, loginPage+strings.Repeat(" ", portalSize-len(loginPage)))
	},
	"compressed login page": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, loginPage)
	},
	"page of no type": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, loginPage)
	},
	"text": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
		_, _ = io.WriteString(w, "OK")
	},
	"redirect": func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, loginPage)
			return
		}
		http.Redirect(w, r, "/login", http.StatusFound)
	},
	"redirect loop": func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"/again", http.StatusFound)
	},
}

const portalSize = 50_000

// inPlace lets a portal answer all requests before the one with number until.
func inPlace(portal func(http.ResponseWriter, *http.Request), until int) func(*server, int, http.ResponseWriter, *http.Request, int64, int64) bool {
	return func(_ *server, i int, w http.ResponseWriter, r *http.Request, _, _ int64) bool {
		if i < until {
			w.Header().Del("ETag")
			portal(w, r)
		}
		return i < until
	}
}

// patient retries soon, but a slow machine is no fault of the link.
var patient = Options{Retry: quick.Retry}

// waits records what a caller is told of the waiting.
type waits struct {
	mu  sync.Mutex
	why []error
}

func (w *waits) add(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.why = append(w.why, why)
}

func TestPortalIsABadLinkOnceABundleWasThere(t *testing.T) {
	data := pattern(portalSize)
	for name, portal := range portals {
		for _, answered := range []bool{false, true} { // false: as after a restart
			for _, off := range []int64{0, 16} {
				t.Run(name, func(t *testing.T) {
					s := newServer(t, data)
					var told waits
					o := patient
					o.Retry.Waiting = told.add
					r := open(t, o, s.URL+"/f.upb")
					if answered {
						mustRead(t, r, data, 0, 16)
					}
					r.Verified()
					s.fault = inPlace(portal, len(s.log())+8)
					path := filepath.Join(t.TempDir(), "data")
					if err := r.Save(t.Context(), off, 30_000, path, 0, func(int64) {}); err != nil {
						t.Fatal(err)
					}
					saved(t, path, data[off:off+30_000])
					mustRead(t, r, data, off, 30_000)
					if n := r.Fetched(); n > 60_016 || s.total() != n {
						t.Errorf("%d bytes taken, %d bytes of the bundle served", n, s.total())
					}
					told.mu.Lock()
					defer told.mu.Unlock()
					if n := len(told.why); n < 2 || told.why[0] == nil || told.why[n-1] != nil {
						t.Fatalf("told of the waiting: %v; want a reason first, and nil last", told.why)
					}
					if name != "redirect loop" && !errors.Is(told.why[0], ErrNoBundle) {
						t.Errorf("told %q, want a hint at a login page", told.why[0])
					}
				})
			}
		}
	}
}

// A person who mistyped the URL is not kept waiting.
func TestPortalIsAnErrorBeforeAnythingWasVerified(t *testing.T) {
	data := pattern(portalSize)
	for _, name := range []string{"login page", "login page with a validator, as long as the bundle", "compressed login page", "redirect"} {
		for _, off := range []int64{0, 16} {
			s := newServer(t, data)
			s.fault = inPlace(portals[name], 1000)
			_, err := read(open(t, patient, s.URL), off, 100)
			if !errors.Is(err, ErrNoBundle) || !strings.Contains(err.Error(), "login page") {
				t.Errorf("%s: Range(%d) = %v, want ErrNoBundle", name, off, err)
			}
			if n := len(s.log()); n > 2 {
				t.Errorf("%s: %d requests, want one, and its redirect", name, n)
			}
		}
	}
}

// What never serves anything else ends by the policy.
func TestGarbageForEverEndsWithTheStallPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{Retry: Retry{Stall: 10 * time.Minute}}
		r, s := scriptedRemote(t, o, func(int, *http.Request) (*http.Response, error) {
			resp := answer(200, "Content-Type", "text/html")
			resp.Body = io.NopCloser(bytes.NewReader([]byte(loginPage)))
			return resp, nil
		})
		r.Verified()
		start := time.Now()
		_, err := read(r, 16, 10)
		if took := time.Since(start); !errors.Is(err, ErrNoBundle) || took < 8*time.Minute || took > 10*time.Minute {
			t.Errorf("gave up after %v with %v, want ErrNoBundle shortly before 10m", took, err)
		}
		if n := len(s.times); n > 30 {
			t.Errorf("%d requests in 10 minutes, want the usual pauses between them", n)
		}
	})
}

// Behind a portal a certificate is not the server's. Before the first byte of
// this life that is told from a wrong configuration by what was verified before.
func TestForeignCertificateAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scriptedRemote(t, Options{}, func(i int, _ *http.Request) (*http.Response, error) {
			if i < 3 {
				return nil, foreignCertificate()
			}
			return ten(bytes.NewReader(make([]byte, 10))), nil
		})
		r.Verified()
		if _, err := read(r, 0, 10); err != nil {
			t.Errorf("Range = %v, want the bytes once the portal is gone", err)
		}
		r, s := scriptedRemote(t, Options{}, func(int, *http.Request) (*http.Response, error) { return nil, foreignCertificate() })
		if _, err := read(r, 0, 10); err == nil || len(s.times) != 1 {
			t.Errorf("Range = %v after %d requests, want an error after one", err, len(s.times))
		}
	})
}

// A server that merely stopped serving ranges is still told from a portal.
func TestRangesIgnoredAfterVerification(t *testing.T) {
	data := pattern(portalSize)
	s := newServer(t, data)
	r := open(t, patient, s.URL)
	mustRead(t, r, data, 0, 16)
	r.Verified()
	s.mu.Lock()
	s.fault = func(_ *server, _ int, w http.ResponseWriter, _ *http.Request, _, _ int64) bool {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", "50000")
		_, _ = w.Write(data)
		return true
	}
	s.mu.Unlock()
	if _, err := read(r, 16, 100); !errors.Is(err, ErrNoRange) {
		t.Errorf("Range = %v, want ErrNoRange", err)
	}
}

func foreignCertificate() error {
	return &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
}

// Whoever looks while a download goes on again is not told that it waits.
func TestWaitingIsOverWhenBytesCome(t *testing.T) {
	data := pattern(portalSize)
	over := make(chan struct{})
	o := patient
	o.Retry.Waiting = func(why error) {
		if why == nil {
			close(over)
		}
	}
	s := newServer(t, data)
	s.fault = func(s *server, i int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
		if i == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, portalSize))
		w.WriteHeader(http.StatusPartialContent)
		s.write(w, off, 20_000)
		select {
		case <-over:
		case <-time.After(10 * time.Second):
			t.Error("20000 bytes have come, and it is still said to wait")
		}
		s.write(w, off+20_000, n-20_000)
		return true
	}
	path := filepath.Join(t.TempDir(), "data")
	if err := open(t, o, s.URL).Save(t.Context(), 0, portalSize, path, 0, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	saved(t, path, data)
}
