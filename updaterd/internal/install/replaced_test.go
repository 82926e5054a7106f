// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// resigned is the same release with one more signature, so its payload lies elsewhere.
func resigned(t *testing.T, data []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	f, err := bundle.Open(write(t, filepath.Join(dir, "in.upb"), data), newKey().keyring.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := filepath.Join(dir, "out.upb")
	if err := f.Resign(out, true, strangeKey().signer); err != nil {
		t.Fatal(err)
	}
	b := must(os.ReadFile(out))
	if len(b) == len(data) {
		t.Fatal("the bundle that was signed again is not longer")
	}
	return b
}

// The file on the server is replaced mid-way: by the same release signed again,
// which costs nothing but its envelope and a chunk, or by another release.
func TestReplacedOnTheServer(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	again := resigned(t, data)
	other := build(t, func(s *bundle.Spec) { s.Version, s.Sequence = "3.0", 3 }, "rootfs", nil, v1)
	_, _, rec, _ := recipe(t, data, "full")
	for _, c := range []struct {
		name string
		data []byte
		etag string // after the change; before it is "1", or none if this is empty
		want string
	}{
		{"signed again", again, `"2"`, ""},
		{"signed again, no validator", again, "", ""},
		{"only another ETag", data, `"2"`, ""},
		{"with a signature less", data, `"2"`, ""},
		{"with a signature less, no validator", data, "", ""},
		{"another release", other, `"2"`, update.NameMalformedBundle},
		{"another release, no validator", other, "", update.NameMalformedBundle},
	} {
		for _, mode := range modes {
			t.Run(c.name+" "+mode, func(t *testing.T) {
				start := data
				if strings.Contains(c.name, "less") {
					start = again
				}
				r := newRig(t, start, v1, nil)
				if c.etag == "" {
					r.server.replace(start, "")
				}
				rel := r.inspect(mode)
				replaced, wasted := false, int64(0)
				r.server.cut = func(_ int, off, n int64) int64 {
					if n > 100_000 && !replaced {
						return 200_000
					}
					return n
				}
				r.server.broken = func(int) {
					replaced = true
					wasted = r.server.total()
					r.server.replace(c.data, c.etag)
				}
				stats, err := r.run(t.Context(), rel, quiet)
				if !replaced {
					t.Fatal("the file was not replaced")
				}
				if c.want != "" {
					wantName(t, err, c.want)
					if !strings.Contains(err.Error(), "replaced by another release, 3.0") {
						t.Errorf("error %q does not say what happened", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				r.holds(v2, nil)
				// A change that is not announced shows in a chunk that came twice.
				most := rel.Download.Expected + 2*int64(len(again)-len(data)) + int64(bundle.HeaderSize) + 4096 + chunkSize
				if c.etag == "" {
					most = rel.Download.Expected + rec.Data.Length + 4*chunkSize
				}
				if stats.Fetched > most {
					t.Errorf("%d bytes fetched, want at most %d (%d before the change)", stats.Fetched, most, wasted)
				}
			})
		}
	}
}

// A file that changes its mind all the time ends in an error, not in a loop.
func TestEverChangingFile(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	for _, mode := range modes {
		r := newRig(t, data, v1, nil)
		rel := r.inspect(mode)
		r.server.before = func(i int) { r.server.replace(data, string([]byte{'"', byte('a' + i%26), '"'})) }
		_, err := r.run(t.Context(), rel, quiet)
		wantName(t, err, update.NameNetwork)
		if n := len(r.server.log()); n > 30 {
			t.Errorf("%d requests", n)
		}
	}
}

// Reopen believes the stored envelope only as far as the keyring does today.
func TestReopenVerifiesAgain(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	r := newRig(t, data, v1, nil)
	rel := r.inspect(ModeStore)
	if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	reopen := func() (*update.Release, error) {
		r.restart()
		return r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
	}
	trusted := r.o.Policy
	r.o.Policy = strangePolicy
	_, err := reopen()
	wantName(t, err, update.NameUntrustedSignature)
	r.o.Policy = trusted
	// A damaged envelope is fetched again.
	for _, entry := range must(os.ReadDir(r.o.Dir)) {
		if !entry.IsDir() {
			spoil(t, filepath.Join(r.o.Dir, entry.Name()), 100)
		}
	}
	before := len(r.server.log())
	if _, err := reopen(); err != nil || len(r.server.log()) != before+2 {
		t.Errorf("Reopen = %v with %d requests, want header and envelope fetched", err, len(r.server.log())-before)
	}
	// Without one, another release on the server is not taken for ours.
	if err := r.engine.Clean(); err != nil {
		t.Fatal(err)
	}
	r.server.replace(build(t, func(s *bundle.Spec) { s.Version = "3.0" }, "rootfs", nil, v2), `"3"`)
	_, err = reopen()
	wantName(t, err, update.NameMalformedBundle)
	if _, err := r.engine.Reopen(t.Context(), r.url(), "nonsense/../../x", "b", update.InstallOptions{}); err == nil {
		t.Error("Reopen of a digest that is none succeeded")
	}
}

// A download that is stored is good for the same recipe under another envelope.
func TestStoredDataOutlivesTheEnvelope(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	r := newRig(t, data, v1, nil)
	if err := r.engine.Download(t.Context(), r.inspect(ModeStore), quiet); err != nil {
		t.Fatal(err)
	}
	newer := build(t, func(s *bundle.Spec) { s.Version, s.Sequence = "2.1", 3 }, "rootfs", nil, v2)
	r.server.replace(newer, `"2"`)
	r.restart()
	rel, stats := r.install(ModeStore)
	if stats.Fetched != rel.Download.Minimum {
		t.Errorf("%d bytes fetched, want the envelope only (%d)", stats.Fetched, rel.Download.Minimum)
	}
	r.holds(v2, nil)
	if n := len(must(os.ReadDir(r.o.Dir))); n != 2 {
		t.Errorf("%d entries in the store, want one envelope and one recipe", n)
	}
	if !bytes.Equal(must(os.ReadFile(r.o.Slots["rootfs"]["a"]))[:len(v1)], v1) {
		t.Error("the booted slot was touched")
	}
}
