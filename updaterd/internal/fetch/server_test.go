// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server serves data by single ranges and does to a request what its fault says.
type server struct {
	*httptest.Server
	data []byte

	mu       sync.Mutex
	etag     string
	requests []string // "off+n"
	served   int64
	// fault, unless it returns false, answers request i itself.
	fault func(s *server, i int, w http.ResponseWriter, r *http.Request, off, n int64) bool
}

func newServer(t *testing.T, data []byte) *server {
	s := &server{data: data, etag: `"1"`}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var off, last int64
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &last); err != nil || r.Method != http.MethodGet {
		http.Error(w, "want one range", http.StatusBadRequest)
		return
	}
	n := last - off + 1
	s.mu.Lock()
	i := len(s.requests)
	s.requests = append(s.requests, fmt.Sprintf("%d+%d", off, n))
	fault, etag := s.fault, s.etag
	s.mu.Unlock()
	w.Header().Set("ETag", etag)
	if fault != nil && fault(s, i, w, r, off, n) {
		return
	}
	s.send(w, off, n, n)
}

// send answers with n bytes from off, and breaks the connection after k of them.
func (s *server) send(w http.ResponseWriter, off, n, k int64) {
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(s.data)))
	w.Header().Set("Content-Length", fmt.Sprint(n))
	w.WriteHeader(http.StatusPartialContent)
	s.write(w, off, k)
	if k < n {
		panic(http.ErrAbortHandler)
	}
}

func (s *server) write(w http.ResponseWriter, off, n int64) {
	// Counted before, because the client may be done before Write returns.
	s.mu.Lock()
	s.served += n
	s.mu.Unlock()
	w.Write(s.data[off : off+n])
	w.(http.Flusher).Flush()
}

func (s *server) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func (s *server) total() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

func pattern(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// quick retries soon and gives up soon.
var quick = Options{
	Retry:    Retry{First: time.Millisecond, Longest: 5 * time.Millisecond, Stall: 5 * time.Second},
	Timeouts: Timeouts{Idle: 100 * time.Millisecond, Header: 200 * time.Millisecond},
}

func open(t *testing.T, o Options, ref string) Remote {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r, err := c.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(r Remote, off, n int64) ([]byte, error) {
	body, err := r.Range(context.Background(), off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func mustRead(t *testing.T, r Remote, want []byte, off, n int64) {
	t.Helper()
	got, err := read(r, off, n)
	if err != nil || !bytes.Equal(got, want[off:off+n]) {
		t.Fatalf("Range(%d, %d) = %d bytes, %v; want the %d bytes of the file", off, n, len(got), err, n)
	}
}
