// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// A job is what a tool is asked to do: to bring a device from the old image to the new one.
type job struct {
	old, new string
	// dir is where the tool works; it is empty, and on the disk. ram is empty too, and in memory if possible.
	dir, ram string
	bin      string // where the programs of this project are
}

func (j job) path(name string) string { return filepath.Join(j.dir, name) }

// A tool makes updates in one or more ways.
type tool struct {
	name string
	// pkg is its Debian package; "" is this project.
	pkg string
	// effort is the least effort that a run must be willing to make.
	effort  effort
	measure func(context.Context, job) ([]result, error)
}

// effort orders the runs.
type effort int

const (
	quick   effort = iota // under a minute for each pair on an idle machine
	regular               // some minutes
	all                   // hours
)

// tools are the peers; what is ours is in ours.go.
func tools() []tool {
	return append(ours(),
		tool{"zstd", "zstd", regular, file(full, "zstd -19, the whole image", func(j job) []string {
			return []string{"zstd", "-q", "-19", j.new, "-o", j.path("out")}
		}, nil)},
		tool{"zstd-patch", "zstd", regular, file(known, "zstd -19 --patch-from", func(j job) []string {
			return []string{"zstd", "-q", "-19", "--long=31", "--patch-from=" + j.old, j.new, "-o", j.path("out")}
		}, func(j job, out string) []string {
			return []string{"zstd", "-q", "-d", "--long=31", "--patch-from=" + j.old, j.path("out"), "-o", out}
		})},
		tool{"xdelta3-djw", "xdelta3", regular, xdelta("djw")},
		tool{"xdelta3-lzma", "xdelta3", quick, xdelta("lzma")},
		tool{"bsdiff", "bsdiff", all, file(known, "bsdiff", func(j job) []string {
			return []string{"bsdiff", j.old, j.new, j.path("out")}
		}, func(j job, out string) []string { return []string{"bspatch", j.old, out, j.path("out")} })},
		tool{"casync", "casync", regular, casync},
		tool{"zchunk", "zchunk", quick, zchunk},
		tool{"rauc", "rauc", quick, rauc},
	)
}

// file measures a tool that writes one file.
func file(kind kind, label string, create func(job) []string, apply func(j job, out string) []string) func(context.Context, job) ([]result, error) {
	return func(ctx context.Context, j job) ([]result, error) {
		_, u, err := measure(ctx, j.dir, create(j)...)
		if err != nil {
			return nil, err
		}
		r := result{Label: label, Kind: kind, usage: u}
		if r.Bytes, err = fileSize(j.path("out")); err != nil {
			return nil, err
		}
		if apply != nil {
			if _, r.Apply, err = applied(ctx, j, func(out string) []string { return apply(j, out) }); err != nil {
				return nil, err
			}
		}
		return []result{r}, nil
	}
}

// applied measures how an image is made on a file system in memory, and checks
// that it is the right one. It returns what the command said.
func applied(ctx context.Context, j job, argv func(out string) []string) ([]byte, *usage, error) {
	out := filepath.Join(j.ram, "image")
	said, u, err := measure(ctx, j.dir, argv(out)...)
	if err != nil {
		return nil, nil, err
	}
	if equal, err := same(j.new, out); err != nil || !equal {
		return nil, nil, errors.Join(err, fmt.Errorf("run %s: what it made is not the new image", argv(out)[0]))
	}
	return said, &u, os.Remove(out)
}

func xdelta(secondary string) func(context.Context, job) ([]result, error) {
	// The window on the source is the whole image: a power of two, so that xdelta3 does not round it down.
	window := func(j job) string {
		size, n := int64(1<<20), int64(0)
		if info, err := os.Stat(j.old); err == nil {
			n = info.Size()
		}
		for size < n {
			size *= 2
		}
		return strconv.FormatInt(size, 10)
	}
	return file(known, "xdelta3 -9 -S "+secondary, func(j job) []string {
		return []string{"xdelta3", "-e", "-9", "-S", secondary, "-B", window(j), "-s", j.old, j.new, j.path("out")}
	}, func(j job, out string) []string {
		return []string{"xdelta3", "-d", "-B", window(j), "-s", j.old, j.path("out"), out}
	})
}

// casync counts the chunks that a device lacks, compressed, and the index.
func casync(ctx context.Context, j job) ([]result, error) {
	var u usage
	for _, image := range []struct{ store, index, path string }{{"old.castr", "old.caibx", j.old}, {"new.castr", "new.caibx", j.new}} {
		var err error
		if _, u, err = measure(ctx, j.dir, "casync", "make", "--chunk-size=65536", "--store="+image.store, image.index, image.path); err != nil {
			return nil, err
		}
	}
	n, err := fileSize(j.path("new.caibx"))
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(j.path("new.castr"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		chunk, err := filepath.Rel(j.path("new.castr"), path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(j.path("old.castr"), chunk)); err == nil {
			return nil
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return []result{{Label: "casync, 64 KiB chunks", Kind: unknown, Bytes: n, usage: u}}, err
}

var wouldDownload = regexp.MustCompile(`Would download (\d+) of (\d+) bytes`)

// zchunk counts the header and the chunks that a device lacks, as zchunk's own tool does.
func zchunk(ctx context.Context, j job) ([]result, error) {
	var u usage
	for _, image := range []struct{ out, path string }{{"old.zck", j.old}, {"new.zck", j.new}} {
		var err error
		if _, u, err = measure(ctx, j.dir, "zck", "-o", image.out, image.path); err != nil {
			return nil, err
		}
	}
	out, _, err := measure(ctx, j.dir, "zck_delta_size", "old.zck", "new.zck")
	if err != nil {
		return nil, err
	}
	n, err := zchunkDownload(string(out))
	return []result{{Label: "zchunk", Kind: unknown, Bytes: n, usage: u}}, err
}

func zchunkDownload(said string) (int64, error) {
	m := wouldDownload.FindStringSubmatch(said)
	if m == nil {
		return 0, fmt.Errorf("zck_delta_size says %q, which tells no size", said)
	}
	return strconv.ParseInt(m[1], 10, 64)
}

// rauc measures the bundle, and counts what its block-hash-index saves.
func rauc(ctx context.Context, j job) ([]result, error) {
	u, err := raucBundle(ctx, j, raucManifest)
	if err != nil {
		return nil, err
	}
	size, err := fileSize(j.path("out.raucb"))
	if err != nil {
		return nil, err
	}
	cost, err := missingBlocks(j.old, j.new)
	if err != nil {
		return nil, err
	}
	return []result{
		{Label: "RAUC bundle", Kind: full, Bytes: size, usage: u},
		{Label: "RAUC block-hash-index, 4 KiB blocks*", Kind: unknown, Bytes: cost.Index + cost.Raw, usage: u},
		{Label: "RAUC block-hash-index, squashfs blocks*", Kind: unknown, Bytes: cost.Index + cost.Squashed, usage: u},
	}, nil
}

const raucManifest = `[update]
compatible=bench
version=2
[bundle]
format=verity
[image.rootfs]
filename=rootfs.img
adaptive=block-hash-index
`

// raucBundle makes out.raucb, signed with a new key: cert.pem.
func raucBundle(ctx context.Context, j job, manifest string) (usage, error) {
	if err := command(ctx, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7300", "-subj", "/CN=bench",
		"-keyout", j.path("key.pem"), "-out", j.path("cert.pem")); err != nil {
		return usage{}, err
	}
	if err := os.Mkdir(j.path("content"), 0o755); err != nil {
		return usage{}, err
	}
	if err := os.Link(j.new, j.path("content/rootfs.img")); err != nil {
		return usage{}, err
	}
	if err := os.WriteFile(j.path("content/manifest.raucm"), []byte(manifest), 0o644); err != nil {
		return usage{}, err
	}
	_, u, err := measure(ctx, j.dir, "rauc", "bundle", "--cert=cert.pem", "--key=key.pem", "content", "out.raucb")
	return u, err
}
