// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A store keeps downloads in a directory:
//
//	<manifest digest>.<mode>     header and envelope of the release in hand
//	<manifest digest>.tally      what the job has cost so far
//	<image digest>.index         hashes of the blocks of a slot that has the image
//	<recipe table digest>/       what belongs to one recipe:
//	    chunks, table, full      its image's chunk table, its own, the full recipe's
//	    data                     its encoded chunks, as far as they were needed and came
//	    runs                     which ranges of the recipe's data these are
//	    first                    the first block of the image, until it is written
//
// Nothing in it is believed: all is checked against the manifest when it is
// read. Being keyed by the recipe, it outlives a change of signature or server.
type store struct {
	files   durable.FS
	dir     string
	reserve int64
	// avail is how many bytes the file system of a directory has for us.
	avail func(dir string) (int64, error)
}

const (
	fileChunks = "chunks"
	fileTable  = "table"
	fileFull   = "full"
	fileData   = "data"
	fileRuns   = "runs"
	fileFirst  = "first"
)

// reserve is what a download leaves free for others on the file system.
const reserve = 4 << 20

func openStore(files durable.FS, dir string) (store, error) {
	if _, err := durable.MakeDir(files, dir, 0o700); err != nil {
		return store{}, fmt.Errorf("downloads: %w", err)
	}
	return store{files, dir, reserve, files.Free}, nil
}

func storeKey(r *bundle.Recipe) string { return hex.EncodeToString(r.Table.Digest[:]) }

func (s store) path(key, file string) string { return filepath.Join(s.dir, key, file) }

// headName is the name of the file for an envelope; a digest that is none has none.
func headName(digest, mode string) string {
	d, err := bundle.ParseDigest(digest)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(d[:]) + "." + mode
}

// loadHead returns a release's head and the mode it was stored for, or nil.
func (s store) loadHead(digest string) (head []byte, mode string) {
	for _, mode := range []string{ModeStore, ModeStream} {
		name := headName(digest, mode)
		if name == "" {
			continue
		}
		if b := s.read(filepath.Join(s.dir, name), bundle.HeaderSize+bundle.MaxEnvelope); len(b) > 0 {
			return b, mode
		}
	}
	return nil, ""
}

func (s store) saveHead(p *plan) error {
	return durable.WriteFile(s.files, filepath.Join(s.dir, headName(p.key.digest, p.key.mode)), p.head, 0o600)
}

// load returns a file of exactly n bytes, or nil.
func (s store) load(key, file string, n int64) []byte {
	if b := s.read(s.path(key, file), n); int64(len(b)) == n {
		return b
	}
	return nil
}

// read returns a file of at most limit bytes, or nil.
func (s store) read(path string, limit int64) []byte {
	f, err := s.files.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > limit {
		return nil
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil
	}
	return b
}

func (s store) save(key, file string, b []byte) error {
	if _, err := durable.MakeDir(s.files, filepath.Join(s.dir, key), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(s.files, s.path(key, file), b, 0o600)
}

// prune removes all that belongs neither to p, which may be nil, nor to what is
// recorded of the slots.
func (s store) prune(p *plan, records []update.SlotRecord) error {
	keep := make(map[string]bool)
	for _, r := range records {
		keep[headName(r.Digest, indexName)] = true
	}
	if p != nil {
		keep[headName(p.key.digest, p.key.mode)] = true
		keep[headName(p.key.digest, tallyName)] = true
		for _, img := range p.images {
			keep[storeKey(img.recipe)] = true
		}
	}
	entries, err := s.files.ReadDir(s.dir)
	if err != nil {
		return err
	}
	removed := false
	for _, entry := range entries {
		if keep[entry.Name()] {
			continue
		}
		removed = true
		if err := s.files.RemoveAll(filepath.Join(s.dir, entry.Name())); err != nil {
			return err
		}
	}
	if !removed {
		return nil
	}
	return s.files.SyncDir(s.dir)
}

// free is what downloads may still take of the file system, but for a reserve.
func (s store) free() (int64, error) {
	n, err := s.avail(s.dir)
	return max(0, n-s.reserve), err
}

// room is how many bytes of downloads there may be: what is free, and what is
// stored already, which a new download replaces or continues.
func (s store) room() (int64, error) {
	free, err := s.free()
	if err != nil {
		return 0, err
	}
	used, err := s.used()
	return free + used, err
}

func (s store) used() (int64, error) { return s.size(s.dir) }

// size is the number of bytes in the files of a directory, but for temporary ones.
func (s store) size(dir string) (n int64, err error) {
	entries, err := s.files.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		var more int64
		if entry.IsDir() {
			more, err = s.size(filepath.Join(dir, entry.Name()))
		} else if info, ierr := entry.Info(); ierr != nil {
			err = ierr
		} else if !strings.HasPrefix(entry.Name(), ".") {
			more = info.Size()
		}
		if n += more; err != nil {
			return n, err
		}
	}
	return n, nil
}
