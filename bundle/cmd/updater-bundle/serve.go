// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const aboutServe = `Usage: updater-bundle serve [--listen ADDRESS] DIR

Serves the files of a directory over plain HTTP with ranges, for trying things
out. Prints the URL of every bundle, and for every request the bytes served.
Only this machine can reach it unless --listen says otherwise. Ends with Ctrl-C.

  updater-bundle serve --listen 0.0.0.0:8080 out/
`

func (c *command) serve(ctx context.Context, args []string) error {
	f := c.Flags("serve", aboutServe)
	listen := f.String("listen", "127.0.0.1:8080", "`ADDRESS` to listen on; port 0 takes a free one")
	operands, err := c.Parse(f, args, "DIR")
	if err != nil {
		return err
	}
	// A root keeps links and dots from leading out of the directory.
	root, err := os.OpenRoot(operands[0])
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	defer root.Close()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("serve: %w; choose another address with --listen", err)
	}
	base := "http://" + reachable(l.Addr()) + "/"
	fmt.Fprintf(c.Stdout, "serving %s at %s\n", operands[0], base)
	bundles, err := filepath.Glob(filepath.Join(operands[0], "*.upb"))
	if err != nil {
		return err
	}
	for _, path := range bundles {
		fmt.Fprintf(c.Stdout, "%s%s\n", base, url.PathEscape(filepath.Base(path)))
	}
	server := &http.Server{
		Handler:           &logged{next: readOnly(http.FileServerFS(root.FS())), print: func(s string) { fmt.Fprintln(c.Stdout, s) }},
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// reachable is a form of addr that other machines can use: for all addresses of
// this machine, the first one that is not only its own.
func reachable(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	host := "localhost"
	if all, err := net.InterfaceAddrs(); err == nil {
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				host = n.IP.String()
				break
			}
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}

// readOnly refuses what is not a request for a file.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are served", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// logged prints one line for each request.
type logged struct {
	next  http.Handler
	mu    sync.Mutex
	print func(string)
}

func (l *logged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	counted := &countingWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		span := r.Header.Get("Range")
		if span == "" {
			span = "-"
		}
		l.print(fmt.Sprintf("%s %s %d %s %d bytes", r.Method, r.URL.EscapedPath(), counted.status, strings.Map(printable, span), counted.bytes))
	}()
	l.next.ServeHTTP(counted, r)
}

// printable keeps what a client sends from steering the terminal.
func printable(r rune) rune {
	if r < ' ' || r >= 0x7f {
		return '?'
	}
	return r
}

type countingWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}
