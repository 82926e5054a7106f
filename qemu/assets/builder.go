// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// epoch is the time stamp of everything that is built (SOURCE_DATE_EPOCH).
const epoch = 1_750_000_000

// Options for New. The zero value works inside the checkout.
type Options struct {
	// Cache is the directory of what was built; DefaultCache() if "".
	Cache string
	// Log gets a line for each thing that is built, and how long it took.
	Log io.Writer
}

// A Builder builds assets, or finds them in its cache. Its methods may be called at the same time.
type Builder struct {
	cache string
	log   io.Writer
}

// New opens the cache, and makes it if necessary.
func New(o Options) (*Builder, error) {
	if o.Cache == "" {
		dir, err := DefaultCache()
		if err != nil {
			return nil, err
		}
		o.Cache = dir
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	dir, err := filepath.Abs(o.Cache)
	if err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open cache: %w", err)
	}
	return &Builder{cache: dir, log: o.Log}, nil
}

// DefaultCache is $UPDATERD_CACHE, or updaterd in the user's cache directory.
func DefaultCache() (string, error) {
	if dir := os.Getenv("UPDATERD_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache: %w; set UPDATERD_CACHE to a directory", err)
	}
	return filepath.Join(dir, "updaterd"), nil
}

// key makes a short name of everything that a build depends on.
func key(parts ...any) string {
	h := sha256.New()
	for _, p := range parts {
		s := fmt.Sprint(p)
		fmt.Fprintf(h, "%d:%s,", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil))[:20]
}

// cached returns the directory name-key of the cache. If it is not there, build
// fills a new directory, which is renamed when it is complete; other processes wait.
func (b *Builder) cached(ctx context.Context, name, key string, build func(dir string) error) (string, error) {
	final := filepath.Join(b.cache, name+"-"+key)
	if _, err := os.Stat(final); err == nil {
		// The newest use is the time stamp, for whoever cleans up.
		now := time.Now()
		_ = os.Chtimes(final, now, now)
		return final, nil
	}
	unlock, err := lock(ctx, final+".lock")
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	work := final + ".new"
	if err := os.RemoveAll(work); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := os.Mkdir(work, 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	begin := time.Now()
	if err := build(work); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	if err := os.Rename(work, final); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	fmt.Fprintf(b.log, "built %s in %.1f s\n", name, time.Since(begin).Seconds())
	return final, nil
}

// lock takes a lock that ends with the process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// A command is a program to run on the host.
type command struct {
	dir   string
	env   []string
	stdin io.Reader
	argv  []string
}

// run runs a program and returns what it prints; its errors hold the end of what it said.
func run(ctx context.Context, c command) ([]byte, error) {
	program, err := lookPath(c.argv[0])
	if err != nil {
		return nil, fmt.Errorf("run %s: %w; .ci/setup installs it", c.argv[0], err)
	}
	cmd := exec.CommandContext(ctx, program, c.argv[1:]...)
	cmd.Dir, cmd.Stdin = c.dir, c.stdin
	// Messages are in English and times the same everywhere, whoever calls.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch),
		"PATH="+strings.Join(append([]string{os.Getenv("PATH")}, sbin...), ":"))
	cmd.Env = append(cmd.Env, c.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		return nil, fmt.Errorf("run %s: %w\n%s", strings.Join(c.argv, " "), err, said[max(0, len(said)-4000):])
	}
	return stdout.Bytes(), nil
}

// lookPath finds a program, also where Debian keeps those for root, which are not on everybody's PATH.
func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range sbin {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name), nil
		}
	}
	return "", err
}

var sbin = []string{"/usr/sbin", "/sbin"}

// guestBinary builds a program of this module for the guest.
func (b *Builder) guestBinary(ctx context.Context, pkg string) ([]byte, error) {
	out, err := os.CreateTemp(b.cache, "guest-binary-*")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", pkg, err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	_, err = run(ctx, command{
		env:  []string{"GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0"},
		argv: []string{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out.Name(), "github.com/updaterd/updaterd/qemu/" + pkg},
	})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(out.Name())
}
