// SPDX-License-Identifier: Apache-2.0

package install

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// behindPortal is the rig's server on a network whose login page answers the
// next so many requests.
func behindPortal(r *rig) (url string, pages *atomic.Int64) {
	pages = new(atomic.Int64)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if pages.Add(-1) >= 0 {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html><form>Your room number, please")
			return
		}
		r.server.ServeHTTP(w, req)
	}))
	r.t.Cleanup(front.Close)
	return front.URL + "/f.upb", pages
}

// A login page in the server's place fails what a person asks for, and holds up
// a job in hand at any of its requests, also after a restart without a word of
// the bundle stored.
func TestPortal(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	for _, mode := range modes {
		r := newRig(t, data, v1, nil)
		url, pages := behindPortal(r)
		opt := update.InstallOptions{Mode: mode}
		pages.Store(1 << 40)
		_, err := r.engine.Inspect(t.Context(), url, "b", opt)
		wantName(t, err, update.NameNetwork)
		if left := 1<<40 - pages.Load(); !strings.Contains(err.Error(), "login page") || left != 1 {
			t.Errorf("Inspect = %v after %d requests, want a hint at the login page after one", err, left)
		}
		pages.Store(0)
		rel, err := r.engine.Inspect(t.Context(), url, "b", opt)
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		r.server.cut = func(_ int, _, n int64) int64 {
			asked++
			pages.Store(3) // before each next request
			return min(n, 150_000)
		}
		pages.Store(3)
		if mode == ModeStore {
			if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
				t.Fatal(err)
			}
		}
		heads, _ := filepath.Glob(filepath.Join(r.o.Dir, "*."+mode))
		for _, head := range heads {
			if err := os.Remove(head); err != nil {
				t.Fatal(err)
			}
		}
		r.restart()
		pages.Store(3)
		again, err := r.engine.Reopen(t.Context(), url, rel.Digest, "b", opt)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.run(t.Context(), again, quiet); err != nil {
			t.Fatal(err)
		}
		r.holds(v2, nil)
		if asked < 5 {
			t.Errorf("mode %s: %d requests were held up, want several", mode, asked)
		}
	}
}
