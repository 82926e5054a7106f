// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/fsmap"
	"github.com/updaterd/updaterd/bundle/fsmap/ext4super"
)

// The ids of findings.
const (
	FoundSame           = "same-image"
	FoundSize           = "size-differs"
	FoundFileSystem     = "file-system-differs"
	FoundUUID           = "uuid-differs"
	FoundHashSeed       = "hash-seed-differs"
	FoundFeatures       = "features-differ"
	FoundBlockSize      = "small-blocks"
	FoundResized        = "resized"
	FoundMounted        = "mounted"
	FoundUnusedData     = "data-in-unused-blocks"
	FoundTimes          = "times-differ"
	FoundOrder          = "files-moved"
	FoundInodes         = "inodes-renumbered"
	FoundCompressedFS   = "compressed-file-system"
	FoundCompressedFile = "compressed-files"
	FoundGzipTime       = "gzip-time"
	FoundRandom         = "random-data"
)

// findings looks for everything that is known to make deltas large.
func (c *comparison) findings(r *Report) []Finding {
	if r.Old.Digest == r.New.Digest {
		return []Finding{{ID: FoundSame, What: "both files are the same image, byte by byte", Cure: "check that NEW is the image that was just built"}}
	}
	found := []Finding{}
	add := func(f *Finding) {
		if f != nil {
			found = append(found, *f)
		}
	}
	for _, look := range []func(*Report) *Finding{
		c.foundFileSystem, c.foundSize, c.foundUUID, c.foundHashSeed, c.foundFeatures, c.foundBlockSize,
		c.foundResized, c.foundMounted, c.foundUnused, c.foundTimes, c.foundOrder, c.foundInodes,
		c.foundCompressedFS, c.foundCompressedFiles, c.foundGzipTime, c.foundRandom,
	} {
		add(look(r))
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(b.Cost, a.Cost) })
	return found
}

func (c *comparison) foundFileSystem(r *Report) *Finding {
	if r.Old.FileSystem == r.New.FileSystem {
		return nil
	}
	name := func(s string) string { return cmp.Or(s, "something unknown") }
	return &Finding{ID: FoundFileSystem, Cost: r.Delta,
		What: fmt.Sprintf("OLD is %s, NEW is %s", name(r.Old.FileSystem), name(r.New.FileSystem)),
		Cure: "keep one kind of file system; the first update to another one costs about the full recipe"}
}

func (c *comparison) foundSize(r *Report) *Finding {
	if r.Old.Size == r.New.Size {
		return nil
	}
	f := &Finding{ID: FoundSize,
		What: fmt.Sprintf("OLD has %d bytes, NEW has %d", r.Old.Size, r.New.Size),
		Cure: "give the file system a fixed size, that of the slot or less"}
	if c.ext4() == nil {
		f.What += "; with this kind of file system that alone costs nothing"
		f.Cure = "none is needed, as long as the slot is large enough"
	} else {
		f.What += "; ext4 lays files out by its size, so another size moves them"
	}
	return f
}

// ext4 is both superblocks, nil if not both images are ext4.
func (c *comparison) ext4() *[2]*ext4super.Superblock {
	if c.was.fs.Ext4 == nil || c.is.fs.Ext4 == nil {
		return nil
	}
	return &[2]*ext4super.Superblock{c.was.fs.Ext4, c.is.fs.Ext4}
}

// checksums: the UUID is part of every checksum of the metadata.
const checksums = 0x400

func (c *comparison) foundUUID(*Report) *Finding {
	was, is := c.was.fs, c.is.fs
	if was.Type != is.Type || was.UUID == is.UUID {
		return nil
	}
	f := &Finding{ID: FoundUUID, What: fmt.Sprintf("the UUID of the file system differs: %s, now %s", was.UUID, is.UUID),
		Cure: "give every build the same one: mkfs.erofs -U UUID"}
	if is.Ext4 != nil {
		f.Cure = "give every build the same one: mke2fs -U UUID -E hash_seed=UUID"
		if is.Ext4.Features[2]&checksums != 0 {
			f.What += "; with metadata_csum it changes the checksum of every inode, directory block and descriptor"
			f.Cost = c.areaCost(fsmap.Inodes) + c.areaCost(fsmap.Directory) + c.areaCost(fsmap.Super) + c.areaCost(fsmap.Tree)
		}
	}
	return f
}

func (c *comparison) foundHashSeed(*Report) *Finding {
	e := c.ext4()
	if e == nil || e[0].HashSeed == e[1].HashSeed {
		return nil
	}
	return &Finding{ID: FoundHashSeed, Cost: c.areaCost(fsmap.Directory),
		What: fmt.Sprintf("the hash seed of ext4 differs: %s, now %s; it orders the names in every large directory", e[0].HashSeed, e[1].HashSeed),
		Cure: "give every build the same one: mke2fs -E hash_seed=UUID -U UUID"}
}

func (c *comparison) foundFeatures(*Report) *Finding {
	e := c.ext4()
	if e == nil || e[0].Features == e[1].Features && e[0].InodeSize == e[1].InodeSize && e[0].Inodes == e[1].Inodes && c.was.fs.BlockSize == c.is.fs.BlockSize {
		return nil
	}
	return &Finding{ID: FoundFeatures,
		What: fmt.Sprintf("ext4 was made with other parameters: features %x, block size %d, %d inodes of %d bytes; now %x, %d, %d of %d",
			e[0].Features, c.was.fs.BlockSize, e[0].Inodes, e[0].InodeSize, e[1].Features, c.is.fs.BlockSize, e[1].Inodes, e[1].InodeSize),
		Cure: "name them all when you call mke2fs (-O, -b, -I, -N), so that another version of it, another mke2fs.conf or another size does not change them"}
}

func (c *comparison) foundBlockSize(r *Report) *Finding {
	if c.is.fs.Ext4 == nil || c.is.fs.BlockSize >= 4096 {
		return nil
	}
	return &Finding{ID: FoundBlockSize,
		What: fmt.Sprintf("NEW has blocks of %d bytes: files begin at any multiple of that, and each change moves more of them", c.is.fs.BlockSize),
		Cure: "mke2fs -b 4096 (below 512 MiB it takes 1024 by itself)"}
}

// sides says which images a test is true for.
func sides(old, new bool) string {
	switch {
	case old && new:
		return "OLD and NEW were"
	case old:
		return "OLD was"
	case new:
		return "NEW was"
	}
	return ""
}

func is(s *side, f func(*ext4super.Superblock) bool) bool { return s.fs.Ext4 != nil && f(s.fs.Ext4) }

func (c *comparison) foundResized(r *Report) *Finding {
	resized := func(e *ext4super.Superblock) bool { return e.Resized }
	who := sides(is(c.was, resized), is(c.is, resized))
	var why []string
	if who != "" {
		why = append(why, who+" made by mke2fs for another size and resized since: what is reserved for descriptors does not fit the size (unless -E resize= asked for that)")
	}
	for _, s := range []struct {
		*side
		name string
	}{{c.was, "OLD"}, {c.is, "NEW"}} {
		if e := s.fs; e.Type != "" && e.Size > 0 && (e.Size > s.size || e.Type == fsmap.Ext4 && s.size-e.Size >= e.BlockSize) {
			why = append(why, fmt.Sprintf("the file system in %s takes %d bytes, the file has %d", s.name, e.Size, s.size))
		}
	}
	if why == nil {
		return nil
	}
	return &Finding{ID: FoundResized, What: strings.Join(why, "; "),
		Cure: "let mke2fs make the file system with its final size, and bundle that file as it is"}
}

func (c *comparison) foundMounted(r *Report) *Finding {
	mounted := (*ext4super.Superblock).WasMounted
	who := sides(is(c.was, mounted), is(c.is, mounted))
	if who == "" {
		return nil
	}
	what := who + " mounted for writing since it was made"
	for _, s := range []*side{c.is, c.was} {
		if !is(s, mounted) {
			continue
		}
		e := s.fs.Ext4
		if !e.Mounted.IsZero() {
			what += fmt.Sprintf(", last on %s", e.Mounted.Format(time.RFC3339))
			if e.MountedOn != "" {
				what += " at " + e.MountedOn
			}
		}
		if e.Written.After(s.fs.Created) {
			what += fmt.Sprintf("; its superblock was written last on %s", e.Written.Format(time.RFC3339))
		}
		if len(e.Unfinished) > 0 {
			what += "; " + strings.Join(e.Unfinished, ", and ")
		}
		break
	}
	return &Finding{ID: FoundMounted, What: what,
		Cure: "fill the file system with mke2fs -d DIRECTORY instead of mounting it; never bundle an image that ran"}
}

// minUnused is what is not worth a word.
const minUnused = 64 << 10

func (c *comparison) foundUnused(*Report) *Finding {
	o := &c.owners[fsmap.Unused]
	if n := o.Blocks.Changed + o.Blocks.Moved; c.is.fs.Incomplete != "" || n < minUnused {
		return nil
	}
	return &Finding{ID: FoundUnusedData, Cost: int64(o.cost),
		What: fmt.Sprintf("%d bytes in blocks that no file uses differ from OLD: remains of deleted files", o.Blocks.Changed+o.Blocks.Moved),
		Cure: "build the image anew into an empty file, or run e2fsck -f -E discard on it"}
}

// areaCost is the estimate for an area, its files included.
func (c *comparison) areaCost(a fsmap.Area) int64 { return int64(c.owners[a].cost) }

// maxPaths is how many examples a finding has.
const maxPaths = 5

func (c *comparison) foundCompressedFS(r *Report) *Finding {
	if c.is.fs.Compression == "" {
		return nil
	}
	return &Finding{ID: FoundCompressedFS, Cost: r.Delta,
		What: fmt.Sprintf("NEW is %s compressed with %s: a small change to a file changes all that is compressed together with it", c.is.fs.Type, c.is.fs.Compression),
		Cure: "use a file system without compression (ext4, or EROFS without -z) where flash allows: the bundle compresses anyway; else use small compression units (mksquashfs -b 64K, mkfs.erofs -C 16384) and the same options, in the same order of files"}
}

func (c *comparison) foundRandom(r *Report) *Finding {
	f := &Finding{ID: FoundRandom}
	n := int64(0)
	for i := range c.files {
		if fc := &c.files[i]; fc.Contents == contentsRandom {
			f.add(fc)
			n += fc.Size
		}
	}
	if len(f.Paths) > 0 {
		c.dearest(f)
		f.What = fmt.Sprintf("%d bytes in new or changed files do not compress and have no known compressed format: random or encrypted data", n)
		f.Cure = "let the build make the same bytes every time, or make such files on the device (seeds, keys, caches)"
		return f
	}
	// Without files: chunks for which nothing helped.
	count := 0
	for i, e := range c.measured.Delta {
		if e.Kind == bundle.Raw && !c.chunks[i].same {
			count++
			f.Cost += int64(e.Length)
		}
	}
	if count == 0 {
		return nil
	}
	f.What = fmt.Sprintf("%d chunks hold what neither OLD has nor compression makes smaller: compressed, encrypted or random data", count)
	f.Cure = "bundle the image before it is compressed or encrypted"
	return f
}

// add counts a file in.
func (f *Finding) add(fc *FileCost) {
	f.Cost += fc.Cost
	f.Paths = append(f.Paths, fc.Path)
}
