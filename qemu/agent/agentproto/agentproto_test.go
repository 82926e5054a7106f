// SPDX-License-Identifier: Apache-2.0

package agentproto

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// talk starts an agent and a client that share a stream.
func talk(t *testing.T) *Client {
	t.Helper()
	host, guest := net.Pipe()
	c := NewClient(host)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = Serve(guest) // ends when the client closes
	}()
	t.Cleanup(func() {
		c.Close()
		<-served
	})
	return c
}

func TestExec(t *testing.T) {
	c := talk(t)
	ctx := t.Context()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", maxBlock)
	tests := []struct {
		name string
		cmd  Command
		want Result
	}{
		{"all of it", Command{Argv: []string{"sh", "-c", "cat; echo $V >&2; exit 3"}, Env: []string{"V=w"}, Stdin: []byte("in")},
			Result{Stdout: []byte("in"), Stderr: []byte("w\n"), Exit: 3}},
		{"signal", Command{Argv: []string{"sh", "-c", "kill -TERM $$"}}, Result{Exit: 128 + 15}},
		{"time-out ends the children too", Command{Argv: []string{"sh", "-c", "sleep 1000 & wait"}, Timeout: 50 * time.Millisecond},
			Result{Exit: 128 + 9, TimedOut: true}},
		{"long output", Command{Argv: []string{"sh", "-c", "cat; echo more"}, Stdin: []byte(long)}, Result{Stdout: []byte(long), Cut: true}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := c.Exec(ctx, test.cmd)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, argv := range [][]string{nil, {"/does/not/exist"}} {
		if r, err := c.Exec(ctx, Command{Argv: argv}); err == nil {
			t.Errorf("Exec(%q) = %+v; want an error", argv, r)
		}
	}
}

func TestAtTheSameTime(t *testing.T) {
	c := talk(t)
	var all sync.WaitGroup
	for _, word := range []string{"a", "b", "c", "d"} {
		all.Go(func() {
			for range 5 {
				if r, err := c.Exec(t.Context(), Command{Argv: []string{"echo", word}}); err != nil || string(r.Stdout) != word+"\n" {
					t.Errorf("echo %s = %q, %v", word, r.Stdout, err)
				}
			}
		})
	}
	all.Wait()
}

func TestFiles(t *testing.T) {
	c := talk(t)
	for name, size := range map[string]int{"empty": 0, "small": 10, "one block": maxBlock, "blocks": 2*maxBlock + 1} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "new", "file")
			want := bytes.Repeat([]byte{1, 2, 3, 4, 5}, size/5+1)[:size]
			if err := c.Put(t.Context(), path, 0o600, want); err != nil {
				t.Fatal(err)
			}
			got, err := c.Get(t.Context(), path, int64(size))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("Get = %d bytes, %v; want %d", len(got), err, size)
			}
			if size > 0 {
				if _, err := c.Get(t.Context(), path, int64(size)-1); err == nil {
					t.Error("Get of more than the limit = nil; want an error")
				}
			}
		})
	}
	if _, err := c.Get(t.Context(), "/does/not/exist", 1); err == nil {
		t.Error("Get of no file = nil; want an error")
	}
	if err := c.Put(t.Context(), "/dev/null/x", 0o600, nil); err == nil {
		t.Error("Put below a file = nil; want an error")
	}
}

// A guest that restarts takes half a request with it and leaves half an answer behind.
func TestFindsItsPlaceAgain(t *testing.T) {
	var stream bytes.Buffer
	if err := writeFrame(&stream, request{ID: 1, Cmd: "ping"}); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(stream.Bytes())
	for cut := range whole {
		dirty := append(append(append([]byte("noise\xff"), whole[:cut]...), whole...), "\xffup"...)
		r := bufio.NewReader(bytes.NewReader(dirty))
		var got request
		if err := readFrame(r, &got); err != nil || got.ID != 1 || got.Cmd != "ping" {
			t.Fatalf("after a frame cut at byte %d: %+v, %v", cut, got, err)
		}
		if err := readFrame(r, &got); err == nil {
			t.Fatalf("after a frame cut at byte %d: a frame out of nothing: %+v", cut, got)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	host, guest := net.Pipe()
	c := NewClient(host)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Ready(ctx); err == nil {
		t.Error("Ready = nil although nobody reads")
	}
	guest.Close()
	if _, err := c.Exec(t.Context(), Command{Argv: []string{"true"}}); err == nil {
		t.Error("Exec = nil although the stream has ended")
	}
}

// FuzzReadFrame: whatever comes, reading ends, stays within bounds, and what it yields can be written again.
func FuzzReadFrame(f *testing.F) {
	var good bytes.Buffer
	for _, req := range []request{{ID: 1, Cmd: "exec", Argv: []string{"true"}, Stdin: []byte{0xff}}, {ID: 2, Cmd: "put", Path: "/x", Data: []byte("y"), Last: true}} {
		if err := writeFrame(&good, req); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(good.Bytes())
	f.Add([]byte("\xffup\xfeffffffff{}"))
	f.Add([]byte("\xffup\xfe00000002{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for range len(data) {
			var req, again request
			if readFrame(r, &req) != nil {
				return
			}
			var b bytes.Buffer
			if err := writeFrame(&b, req); err != nil {
				t.Fatal(err)
			}
			if err := readFrame(bufio.NewReader(&b), &again); err != nil {
				t.Fatalf("read back %+v: %v", req, err)
			}
			if !cmp.Equal(req, again, cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })) {
				t.Fatalf("came back as %+v, want %+v", again, req)
			}
		}
	})
}
