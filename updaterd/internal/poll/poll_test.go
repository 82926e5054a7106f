// SPDX-License-Identifier: Apache-2.0

package poll_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
	"github.com/updaterd/updaterd/updaterd/internal/poll"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func signer(t *testing.T, name string) sign.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	s, err := sign.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func metadata(serial uint64) *channel.Metadata {
	return &channel.Metadata{
		Format: channel.Format, Channel: "stable", Serial: serial, Issued: noon, Expires: noon.AddDate(0, 0, 14),
		Releases: []channel.Release{
			{Compatible: []string{"demo"}, Version: "1.2", Sequence: 12, Digest: bundle.Sum([]byte("1.2")), URL: "1.2.upb"},
			{Compatible: []string{"demo"}, Version: "1.3", Sequence: 13, Digest: bundle.Sum([]byte("1.3")), URL: "../b/1.3.upb", Size: 5},
			{Compatible: []string{"other"}, Version: "9", Sequence: 99, Digest: bundle.Sum([]byte("9")), URL: "/nine.upb"},
		},
	}
}

func sealed(t *testing.T, m *channel.Metadata, who string) []byte {
	t.Helper()
	b, err := channel.Seal(m, signer(t, who))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// site is a plain web server with one file.
type site struct {
	mu     sync.Mutex
	b      []byte
	asked  int
	before func(asked int, w http.ResponseWriter) (done bool) // called at each request
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.before != nil && s.before(s.asked, w) {
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("%q", bundle.Sum(s.b)))
	http.ServeContent(w, r, "stable.channel", time.Time{}, bytes.NewReader(s.b))
}

// poller looks at s as a device does.
func poller(t *testing.T, s *site, change func(*poll.Options)) *poll.Poller {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	client, err := fetch.New(fetch.Options{Retry: fetch.Retry{First: time.Millisecond, Longest: time.Millisecond, Stall: 50 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	pub, err := signer(t, "release").PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := sign.NewKeyring(pub)
	if err != nil {
		t.Fatal(err)
	}
	o := poll.Options{
		Compatible: "demo", Channel: "stable", URL: server.URL + "/a/stable.channel?token=secret",
		Policy:    func() (*sign.Policy, error) { return keyring.Policy(1), nil },
		TimeFloor: func() time.Time { return time.Time{} },
		Open:      func(ref string) (poll.Remote, error) { return client.Open(ref) },
	}
	if change != nil {
		change(&o)
	}
	p, err := poll.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFetch(t *testing.T) {
	s := &site{b: sealed(t, metadata(7), "release")}
	m, err := poller(t, s, nil).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(m.Offer.Ref)
	if err != nil || at.Path != "/b/1.3.upb" || at.RawQuery != "" || m.Offer.Version != "1.3" || m.Offer.Sequence != 13 ||
		m.Offer.Digest != bundle.Sum([]byte("1.3")).String() || m.Offer.Size != 5 {
		t.Errorf("offer %+v", m.Offer)
	}
	payload, _ := channel.Marshal(metadata(7))
	if m.Serial != 7 || !m.Issued.Equal(noon) || !m.Expires.Equal(noon.AddDate(0, 0, 14)) || m.Digest != bundle.Sum(payload).String() {
		t.Errorf("%+v", m)
	}
	// Nothing is for this kind of device.
	m, err = poller(t, s, func(o *poll.Options) { o.Compatible = "third" }).Fetch(t.Context())
	if err != nil || m.Offer != nil {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestFetchRefuses(t *testing.T) {
	another := metadata(7)
	another.Channel = "nightly"
	good := sealed(t, metadata(7), "release")
	manifest, err := sign.Seal(bundle.PayloadType, []byte("{}"), signer(t, "release"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		b      []byte
		change func(*poll.Options)
		before func(int, http.ResponseWriter) bool
		want   string
		text   string
	}{
		"channel metadata for another channel": {b: sealed(t, another, "release"), want: update.NameNotCompatible, text: `channel "nightly"`},
		"channel metadata of a stranger":       {b: sealed(t, metadata(7), "mallory"), want: update.NameUntrustedSignature},
		"a manifest":                           {b: manifest, want: update.NameUntrustedSignature, text: "payload type"},
		"not an envelope":                      {b: []byte("{}"), want: update.NameMalformedBundle},
		"cut off":                              {b: good[:len(good)-1], want: update.NameMalformedBundle},
		"too long":                             {b: append(bytes.Clone(good), make([]byte, channel.MaxEnvelope)...), want: update.NameMalformedBundle, text: "65536"},
		"empty":                                {b: nil, want: update.NameNetwork},
		"no such file": {b: good, want: update.NameNetwork, text: "404", before: func(_ int, w http.ResponseWriter) bool {
			w.WriteHeader(404)
			return true
		}},
		"login page": {b: good, want: update.NameNetwork, text: "login page", before: func(_ int, w http.ResponseWriter) bool {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<html>")
			return true
		}},
		"no length": {b: good, want: update.NameMalformedBundle, text: "does not tell", before: func(_ int, w http.ResponseWriter) bool {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			w.Write(good)
			return true
		}},
		"server that fails": {b: good, want: update.NameNetwork, text: "503", before: func(_ int, w http.ResponseWriter) bool {
			w.WriteHeader(503)
			return true
		}},
		"no policy": {b: good, want: update.NameUntrustedSignature, change: func(o *poll.Options) {
			o.Policy = func() (*sign.Policy, error) { return nil, errors.New("the keyring is empty") }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := poller(t, &site{b: tc.b, before: tc.before}, tc.change).Fetch(t.Context())
			var n update.Named
			if m != nil || !errors.As(err, &n) || n.ErrorName() != tc.want || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%+v, %v; want %s and %q", m, err, tc.want, tc.text)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

// Metadata that are replaced between two requests are read once more, and a link
// that fails at first is tried again.
func TestFetchAgain(t *testing.T) {
	s := &site{b: sealed(t, metadata(7), "release")}
	s.before = func(asked int, w http.ResponseWriter) bool {
		if asked == 2 {
			s.b = sealed(t, metadata(800), "release")
		}
		return false
	}
	if m, err := poller(t, s, nil).Fetch(t.Context()); err != nil || m.Serial != 800 {
		t.Errorf("replaced while it was read: %+v, %v", m, err)
	}
	// A file that is another one each time is given up.
	s.before = func(asked int, w http.ResponseWriter) bool {
		s.b = append(sealed(t, metadata(7), "release"), bytes.Repeat([]byte("x"), asked)...)
		return false
	}
	s.asked = 0
	if m, err := poller(t, s, nil).Fetch(t.Context()); m != nil || err == nil || s.asked != 4 {
		t.Errorf("another file each time: %+v, %v, %d requests", m, err, s.asked)
	}
	s = &site{b: sealed(t, metadata(7), "release")}
	s.before = func(asked int, w http.ResponseWriter) bool {
		if asked == 1 {
			w.WriteHeader(503)
		}
		return asked == 1
	}
	if m, err := poller(t, s, nil).Fetch(t.Context()); err != nil || m.Serial != 7 {
		t.Errorf("after a failure: %+v, %v", m, err)
	}
}

// A server that says nothing costs no more than the time-out.
func TestFetchTimesOut(t *testing.T) {
	release := make(chan struct{})
	s := &site{before: func(int, http.ResponseWriter) bool { <-release; return true }}
	p := poller(t, s, func(o *poll.Options) { o.Timeout = 100 * time.Millisecond })
	defer close(release)
	began := time.Now()
	_, err := p.Fetch(t.Context())
	if err == nil || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

func TestRun(t *testing.T) {
	const interval = 6 * time.Hour
	looks := func(t *testing.T, last time.Time, during time.Duration, result error) []time.Duration {
		start := time.Now()
		var at []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		poll.Run(ctx, interval, func() time.Time { return last }, func(context.Context) error {
			at = append(at, time.Since(start))
			return result
		})
		return at
	}
	within := func(d, low, high time.Duration) bool { return d >= low && d <= high }
	synctest.Test(t, func(t *testing.T) {
		at := looks(t, time.Time{}, 60*time.Hour, nil)
		if len(at) < 9 || len(at) > 12 || !within(at[0], 0, 5*time.Minute) {
			t.Errorf("looked at %v", at)
		}
		pauses := map[time.Duration]bool{}
		for i := 1; i < len(at); i++ {
			pause := at[i] - at[i-1]
			if pauses[pause] = true; !within(pause, interval-interval/10, interval+interval/10) {
				t.Errorf("pause of %v", pause)
			}
		}
		if len(pauses) < 3 {
			t.Errorf("pauses are not spread: %v", pauses)
		}
		// Restarts do not make a device look more often.
		if at := looks(t, time.Now().Add(-time.Hour), interval, nil); len(at) != 1 || !within(at[0], 5*time.Hour, 5*time.Hour+5*time.Minute) {
			t.Errorf("looked at %v", at)
		}
		// The clock was wrong when it looked last.
		if at := looks(t, time.Now().AddDate(1, 0, 0), time.Hour, nil); len(at) != 1 {
			t.Errorf("looked at %v", at)
		}
		// What failed is tried sooner.
		at = looks(t, time.Time{}, interval, errors.New("the server is away"))
		if len(at) < 7 || len(at) > 9 || slices.ContainsFunc(at[1:], func(d time.Duration) bool { return d < 30*time.Minute }) {
			t.Errorf("after failures looked at %v", at)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := poll.New(poll.Options{URL: "http://a b"}); err == nil {
		t.Error("a URL that is none")
	}
}
