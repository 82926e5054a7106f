// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Request is what the server logs of one answer.
type Request struct {
	Path, Range string
	Status      int
	Sent        int64 // bytes of the body
	From        int64 // first byte of the file that was sent
}

// A Server serves the files of one directory.
type Server struct {
	listener net.Listener
	server   *http.Server
	scheme   string

	mu       sync.Mutex
	log      []*Request
	cutAfter []int64 // bytes after which the next connections die
	rate     int64   // bytes per second; 0 = as fast as it goes
	refuse   bool    // the link is down
}

// Start serves dir on a free port of loopback; with a certificate, over TLS.
func Start(dir string, certificate *tls.Certificate) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start origin: %w", err)
	}
	s := &Server{listener: l, scheme: "http"}
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*certificate}})
		s.scheme = "https"
	}
	files := http.FileServer(http.Dir(dir))
	s.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handle(files, w, r)
	})}
	go func() { _ = s.server.Serve(l) }() // ends with Close
	return s, nil
}

// Close ends the server and all its connections.
func (s *Server) Close() error { return s.server.Close() }

// Port is where the server listens.
func (s *Server) Port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// URL is the address of a file for a client that knows this machine as host.
func (s *Server) URL(host, file string) string {
	return fmt.Sprintf("%s://%s:%d/%s", s.scheme, host, s.Port(), file)
}

// CutAfter lets the next answers die after that many bytes of their bodies,
// one number for each answer.
func (s *Server) CutAfter(bytes ...int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAfter = append(s.cutAfter, bytes...)
}

// Limit sets the rate of each answer in bytes per second; 0 lifts it.
func (s *Server) Limit(rate int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate = rate
}

// Down takes the link down, or up again.
func (s *Server) Down(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = down
}

// Reset forgets the log and all plans.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log, s.cutAfter, s.rate, s.refuse = nil, nil, 0, false
}

// Requests returns the log.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := make([]Request, len(s.log))
	for i, r := range s.log {
		log[i] = *r
	}
	return log
}

// Sent is the number of body bytes sent since the last Reset.
func (s *Server) Sent() int64 {
	var n int64
	for _, r := range s.Requests() {
		n += r.Sent
	}
	return n
}

func (s *Server) handle(files http.Handler, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	entry := &Request{Path: r.URL.Path, Range: r.Header.Get("Range")}
	_, _ = fmt.Sscanf(entry.Range, "bytes=%d-", &entry.From) // no range: from 0
	s.log = append(s.log, entry)
	out := &body{ResponseWriter: w, server: s, entry: entry, rate: s.rate, left: -1}
	if len(s.cutAfter) > 0 && entry.Range != "" {
		out.left, s.cutAfter = s.cutAfter[0], s.cutAfter[1:]
	}
	down := s.refuse
	s.mu.Unlock()
	if down {
		panic(http.ErrAbortHandler)
	}
	files.ServeHTTP(out, r)
}

// A body counts, slows down and cuts what is sent.
type body struct {
	http.ResponseWriter
	server *Server
	entry  *Request
	rate   int64
	left   int64 // bytes until the connection dies; -1 = never
}

func (b *body) WriteHeader(status int) {
	b.server.mu.Lock()
	b.entry.Status = status
	b.server.mu.Unlock()
	b.ResponseWriter.WriteHeader(status)
}

func (b *body) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		piece := p
		if b.rate > 0 {
			piece = p[:min(int64(len(p)), max(b.rate/20, 1))]
			time.Sleep(time.Second * time.Duration(len(piece)) / time.Duration(b.rate))
		}
		if b.left >= 0 {
			piece = piece[:min(int64(len(piece)), b.left)]
		}
		n, err := b.ResponseWriter.Write(piece)
		b.count(int64(n))
		total += n
		if err != nil {
			return total, err
		}
		if b.rate > 0 {
			_ = http.NewResponseController(b.ResponseWriter).Flush()
		}
		if b.left >= 0 {
			if b.left -= int64(n); b.left == 0 {
				_ = http.NewResponseController(b.ResponseWriter).Flush()
				panic(http.ErrAbortHandler)
			}
		}
		b.server.mu.Lock()
		down := b.server.refuse
		b.server.mu.Unlock()
		if down {
			panic(http.ErrAbortHandler)
		}
		p = p[n:]
	}
	return total, nil
}

func (b *body) count(n int64) {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.entry.Sent += n
}
