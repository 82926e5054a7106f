// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func saved(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("file has %d bytes (%v), want the %d bytes of the range", len(got), err, len(want))
	}
}

func TestSave(t *testing.T) {
	data := pattern(100_000)
	s := newServer(t, data)
	path := filepath.Join(t.TempDir(), "data")
	r := open(t, quick, s.URL)
	last := int64(-1)
	report := func(done int64) { last = done }
	if err := r.Save(t.Context(), 1000, 50_000, path, 0, report); err != nil {
		t.Fatal(err)
	}
	saved(t, path, data[1000:51_000])
	if last != 50_000 || !slices.Equal(s.log(), []string{"1000+50000"}) {
		t.Errorf("last report %d, requests %v; want 50000 and one request", last, s.log())
	}
	// Complete: nobody is asked.
	if err := r.Save(t.Context(), 1000, 50_000, path, 50_000, report); err != nil || len(s.log()) != 1 {
		t.Errorf("Save of a complete file = %v with requests %v", err, s.log())
	}
	// An empty range needs no server either, and leaves a file.
	empty := filepath.Join(t.TempDir(), "empty")
	if err := r.Save(t.Context(), 7, 0, empty, 0, report); err != nil || len(s.log()) != 1 {
		t.Errorf("Save of nothing = %v with requests %v", err, s.log())
	}
	saved(t, empty, nil)
}

func TestSaveResumesFromWhatTheCallerVouchesFor(t *testing.T) {
	data := pattern(100_000)
	s := newServer(t, data)
	path := filepath.Join(t.TempDir(), "data")
	stale := append(bytes.Clone(data[1000:4000]), pattern(77_777)...)
	if err := os.WriteFile(path, stale, 0o600); err != nil {
		t.Fatal(err)
	}
	r := open(t, quick, s.URL)
	if err := r.Save(t.Context(), 1000, 50_000, path, 3000, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	saved(t, path, data[1000:51_000])
	if !slices.Equal(s.log(), []string{"4000+47000"}) {
		t.Errorf("requests = %v, want the missing range only", s.log())
	}
	if err := r.Save(t.Context(), 0, 90_000, path, 80_000, func(int64) {}); err == nil {
		t.Error("Save believed in bytes that are not there")
	}
}

func TestSaveFetchesNoByteTwice(t *testing.T) {
	data := pattern(300_000)
	for _, cut := range []int64{0, 1, 32 << 10, 100_000, 299_999} {
		s := newServer(t, data)
		s.fault = func(s *server, i int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
			if i < 4 && n > cut {
				s.send(w, off, n, cut)
			}
			return i < 4 && n > cut
		}
		path := filepath.Join(t.TempDir(), "data")
		r := open(t, quick, s.URL)
		if err := r.Save(t.Context(), 0, 300_000, path, 0, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		saved(t, path, data)
		if s.total() != 300_000 {
			t.Errorf("cut after %d bytes: %d bytes served for 300000", cut, s.total())
		}
	}
}

// What grab alone would do wrong: splice a changed file, take a 200 for the
// rest of the file, believe a wrong Content-Range.
func TestSaveNeverSplices(t *testing.T) {
	data := pattern(100_000)
	for name, second := range map[string]func(s *server, w http.ResponseWriter, off, n int64){
		"changed": func(s *server, w http.ResponseWriter, off, n int64) {
			w.Header().Set("ETag", `"2"`)
			s.send(w, off, n, n)
		},
		"whole file": func(s *server, w http.ResponseWriter, _, _ int64) {
			w.WriteHeader(200)
			s.write(w, 0, int64(len(data)))
		},
		"other range": func(s *server, w http.ResponseWriter, off, n int64) {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off-1, off+n-2, len(data)))
			w.Header().Set("Content-Length", fmt.Sprint(n))
			w.WriteHeader(206)
			s.write(w, off-1, n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, data)
			s.fault = func(s *server, i int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
				if i == 0 {
					s.send(w, off, n, 40_000)
				}
				second(s, w, off, n)
				return true
			}
			path := filepath.Join(t.TempDir(), "data")
			r := open(t, quick, s.URL)
			err := r.Save(t.Context(), 0, 100_000, path, 0, func(int64) {})
			var e *Error
			if !errors.As(err, &e) || e.Changed() != (name == "changed") {
				t.Fatalf("Save = %v, want an error (changed: %v)", err, name == "changed")
			}
			saved(t, path, data[:40_000])
			s.fault = nil
			s.etag = `"2"`
			if err := r.Save(t.Context(), 0, 100_000, path, 40_000, func(int64) {}); name == "changed" && err != nil {
				t.Fatal(err)
			} else if name == "changed" {
				saved(t, path, data)
			}
		})
	}
}

func TestSaveCancelledKeepsWhatIsThere(t *testing.T) {
	data := pattern(100_000)
	s := newServer(t, data)
	ctx, cancel := context.WithCancel(t.Context())
	s.fault = func(s *server, i int, w http.ResponseWriter, r *http.Request, off, n int64) bool {
		if i > 0 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(data)))
		w.Header().Set("Content-Length", fmt.Sprint(n))
		w.WriteHeader(206)
		s.write(w, off, 60_000)
		cancel()
		<-r.Context().Done()
		return true
	}
	path := filepath.Join(t.TempDir(), "data")
	r := open(t, quick, s.URL)
	if err := r.Save(ctx, 0, 100_000, path, 0, func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Fatalf("Save = %v, want context.Canceled", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Save(t.Context(), 0, 100_000, path, info.Size(), func(int64) {}); err != nil {
		t.Fatal(err)
	}
	saved(t, path, data)
}

func TestSaveToAFullOrMissingPlace(t *testing.T) {
	s := newServer(t, pattern(1000))
	r := open(t, quick, s.URL)
	err := r.Save(t.Context(), 0, 1000, filepath.Join(t.TempDir(), "missing", "data"), 0, func(int64) {})
	var e *Error
	if !errors.Is(err, os.ErrNotExist) || errors.As(err, &e) {
		t.Errorf("Save into a missing directory = %v; want fs.ErrNotExist, not blamed on the network", err)
	}
	if len(s.log()) != 0 {
		t.Errorf("requests = %v, want none", s.log())
	}
}

func TestSaveFromLocalFile(t *testing.T) {
	data := pattern(10_000)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f.upb"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "data")
	r := open(t, quick, filepath.Join(dir, "f.upb"))
	if err := r.Save(t.Context(), 500, 9000, path, 0, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	saved(t, path, data[500:9500])
}
