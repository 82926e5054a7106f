// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
	"github.com/updaterd/updaterd/updaterd/internal/update"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ update.Engine = (*Engine)(nil)

const (
	chunkSize = 64 << 10
	slotSize  = 1 << 20
)

// noise is content that does not compress, different for each seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	c.Read(b)
	return b
}

// systems are an old and a new image: 12 chunks, the last one short and of odd
// length, some all zeros, one the same in both, the rest nearly the same. Half of
// each of chunks 8 to 10 is also in the chunk before the last one.
func systems() (v1, v2 []byte) {
	v1 = noise(1, 12*chunkSize-1234)
	clear(v1[3*chunkSize : 5*chunkSize])
	for i := 8; i <= 10; i++ {
		copy(v1[i*chunkSize+chunkSize/2:(i+1)*chunkSize], v1[(i-2)*chunkSize:])
	}
	v2 = bytes.Clone(v1)
	for i := 0; i < len(v2); i += 10_000 {
		if i/chunkSize != 7 && i/chunkSize != 3 {
			copy(v2[i:], noise(uint64(i), 300))
		}
	}
	return v1, v2
}

// A key signs, and is in a keyring.
type key struct {
	signer  sign.Signer
	keyring *sign.Keyring
	public  []byte
}

var newKey = sync.OnceValue(func() key { return makeKey() })
var strangeKey = sync.OnceValue(func() key { return makeKey() })

func makeKey() key {
	priv, pub, err := sign.GenerateKey("ed25519", nil)
	if err != nil {
		panic(err)
	}
	signer, err := sign.ParseSigner(priv, nil)
	if err != nil {
		panic(err)
	}
	public, err := sign.ParsePublicKey(pub)
	if err != nil {
		panic(err)
	}
	ring, err := sign.NewKeyring(public)
	if err != nil {
		panic(err)
	}
	return key{signer, ring, pub}
}

// build makes a bundle of images, given as class, old image (nil: no delta), new image.
func build(t testing.TB, change func(*bundle.Spec), images ...any) []byte {
	t.Helper()
	dir := t.TempDir()
	spec := bundle.Spec{
		Compatible: []string{"board-1"}, Version: "2.0", Sequence: 2, Created: time.Unix(1_700_000_000, 0),
		ChunkSize: chunkSize, Signers: []sign.Signer{newKey().signer},
	}
	for i := 0; i < len(images); i += 3 {
		class := images[i].(string)
		img := bundle.ImageSpec{Class: class, Path: write(t, filepath.Join(dir, class+".new"), images[i+2].([]byte)), BuildID: "new-build"}
		if old, _ := images[i+1].([]byte); old != nil {
			img.Deltas = []bundle.SourceSpec{{Path: write(t, filepath.Join(dir, class+".old"), old), BuildID: "old-build"}}
		}
		spec.Images = append(spec.Images, img)
	}
	if change != nil {
		change(&spec)
	}
	out := filepath.Join(dir, "f.upb")
	if err := bundle.Build(t.Context(), out, spec); err != nil {
		t.Fatal(err)
	}
	return must(os.ReadFile(out))
}

// plain does without prefixes, which make a large bundle slow to build.
func plain(s *bundle.Spec) { s.Prefix = -1 }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func write(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A server serves one bundle by single ranges, counts how often it sent each
// byte, and breaks connections on request.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	data     []byte
	etag     string
	sent     []int // per byte of data
	requests []string
	// cut tells after how many bytes answer i is broken off; nil or n means not at all.
	cut func(i int, off, n int64) int64
	// before is called before answer i, broken before its connection is broken off.
	before, broken func(i int)
}

func serve(t testing.TB, data []byte) *server {
	s := &server{}
	s.replace(data, `"1"`)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *server) replace(data []byte, etag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.etag, s.sent = data, etag, make([]int, len(data))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var off, last int64
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &last); err != nil {
		http.Error(w, "want one range", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	i, cut, before, broken := len(s.requests), s.cut, s.before, s.broken
	s.requests = append(s.requests, fmt.Sprintf("%d+%d", off, last-off+1))
	s.mu.Unlock()
	if before != nil {
		before(i)
	}
	s.mu.Lock()
	data, etag := s.data, s.etag
	s.mu.Unlock()
	size := int64(len(data))
	if off >= size {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	last = min(last, size-1)
	n := last - off + 1
	k := n
	if cut != nil {
		k = min(n, cut(i, off, n))
	}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, last, size))
	w.Header().Set("Content-Length", fmt.Sprint(n))
	w.WriteHeader(http.StatusPartialContent)
	s.send(w, data, off, k)
	if k < n {
		if broken != nil {
			broken(i)
		}
		panic(http.ErrAbortHandler)
	}
}

// send sends in small pieces, so that what was sent is near to what was received.
func (s *server) send(w http.ResponseWriter, data []byte, off, k int64) {
	for k > 0 {
		n := min(k, 4096)
		// Counted before, because the client may be done before Write returns.
		s.mu.Lock()
		for j := off; j < min(off+n, int64(len(s.sent))); j++ {
			s.sent[j]++
		}
		s.mu.Unlock()
		if _, err := w.Write(data[off : off+n]); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		off, k = off+n, k-n
	}
}

func (s *server) total() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sent {
		n += int64(c)
	}
	return n
}

func (s *server) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// often is the highest number of times that a byte of a range was sent.
func (s *server) often(off, n int64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == 0 {
		return 0
	}
	return slices.Max(s.sent[off : off+n])
}

// A rig is a device: two slots of class rootfs in files, slot a booted.
type rig struct {
	t      testing.TB
	o      Options
	server *server
	engine *Engine
}

func newRig(t testing.TB, data []byte, booted, target []byte) *rig {
	t.Helper()
	dir := t.TempDir()
	slot := func(name string, content []byte) string {
		b := make([]byte, slotSize)
		copy(b, content)
		return write(t, filepath.Join(dir, name), b)
	}
	r := &rig{t: t, server: serve(t, data)}
	r.o = Options{
		Compatible: "board-1",
		Slots: map[string]map[bootctl.Slot]string{"rootfs": {
			"a": slot("rootfs.a", booted), "b": slot("rootfs.b", target),
		}},
		Booted:      func() (bootctl.Slot, error) { return "a", nil },
		Policy:      func() (*sign.Policy, error) { return newKey().keyring.Policy(1), nil },
		Dir:         filepath.Join(dir, "downloads"),
		StoreBudget: 64 << 20,
		BuildID:     "old-build",
	}
	r.restart()
	return r
}

// restart is what a killed daemon does.
func (r *rig) restart() {
	r.t.Helper()
	client, err := fetch.New(fetch.Options{
		Retry:    fetch.Retry{First: time.Millisecond, Longest: 5 * time.Millisecond, Stall: 10 * time.Second},
		Timeouts: fetch.Timeouts{Idle: 5 * time.Second},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(client.Close)
	r.o.Open = func(ref string) (Remote, error) { return client.Open(ref) }
	if r.engine, err = New(r.o); err != nil {
		r.t.Fatal(err)
	}
}

// url carries its right in its query, as signed URLs do.
func (r *rig) url() string { return r.server.URL + "/f.upb?token=secret" }

func (r *rig) inspect(mode string) *update.Release {
	r.t.Helper()
	rel, err := r.engine.Inspect(r.t.Context(), r.url(), "b", update.InstallOptions{Mode: mode})
	if err != nil {
		r.t.Fatal(err)
	}
	return rel
}

func quiet(update.Progress) {}

// run downloads and installs.
func (r *rig) run(ctx context.Context, rel *update.Release, report func(update.Progress)) (update.InstallStats, error) {
	if err := r.engine.Download(ctx, rel, report); err != nil {
		return update.InstallStats{}, err
	}
	return r.engine.Install(ctx, rel, report)
}

func (r *rig) install(mode string) (*update.Release, update.InstallStats) {
	r.t.Helper()
	rel := r.inspect(mode)
	stats, err := r.run(r.t.Context(), rel, quiet)
	if err != nil {
		r.t.Fatal(err)
	}
	return rel, stats
}

func (r *rig) target() []byte { return must(os.ReadFile(r.o.Slots["rootfs"]["b"])) }

// holds checks that the target has image and, behind it, what was there before.
func (r *rig) holds(image, before []byte) {
	r.t.Helper()
	want := make([]byte, slotSize)
	copy(want, before)
	copy(want, image)
	if got := r.target(); !bytes.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		r.t.Fatalf("slot differs from what is wanted at byte %d (chunk %d)", at, at/chunkSize)
	}
}

func wantName(t testing.TB, err error, name string) {
	t.Helper()
	var n update.Named
	if !errors.As(err, &n) || n.ErrorName() != name {
		t.Fatalf("error = %v, want one named %s", err, name)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("error %q tells everybody the secret of the URL", err)
	}
}

// recipe is the manifest's image and recipe of a kind, and its table.
func recipe(t testing.TB, data []byte, kind string) (*bundle.Verified, *bundle.Image, *bundle.Recipe, []bundle.Entry) {
	t.Helper()
	n := must(bundle.ParseHeader(data))
	v := must(bundle.Verify(data[:bundle.HeaderSize+n], newKey().keyring.Policy(1), time.Time{}))
	img := &v.Manifest.Images[0]
	for i := range img.Recipes {
		if r := &img.Recipes[i]; r.Kind == kind {
			off := v.PayloadOffset + r.Table.Offset
			return v, img, r, must(bundle.ParseTable(img, r, data[off:off+r.Table.Length]))
		}
	}
	t.Fatalf("bundle has no %s recipe", kind)
	return nil, nil, nil, nil
}

func strangePolicy() (*sign.Policy, error) { return strangeKey().keyring.Policy(1), nil }

// cancelAfter is a context, and a function that cancels it when it is called for the n-th time.
func cancelAfter(t testing.TB, n int) (context.Context, func()) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, func() {
		if n--; n == 0 {
			cancel()
		}
	}
}

// fill gives both slots n bytes: their content, then zeros.
func (r *rig) fill(booted, target []byte, n int) {
	r.t.Helper()
	for slot, content := range map[bootctl.Slot][]byte{"a": booted, "b": target} {
		b := make([]byte, n)
		copy(b, content)
		write(r.t, r.o.Slots["rootfs"][slot], b)
	}
}

// remove drops what is stored of a recipe.
func (s store) remove(rec *bundle.Recipe) error {
	return os.RemoveAll(filepath.Join(s.dir, storeKey(rec)))
}
