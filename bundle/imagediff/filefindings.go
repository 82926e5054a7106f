// SPDX-License-Identifier: Apache-2.0

package imagediff

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bundle/fsmap"
)

// foundTimes compares the times of files that are otherwise equal.
func (c *comparison) foundTimes(*Report) *Finding {
	var equal, differ, m, ca, cr int
	for i := range c.files {
		fc := &c.files[i]
		a, b := fc.old, fc.new
		if a == nil || fc.Change == FileChanged || !sameOwner(a, b) || b.Partial {
			continue
		}
		equal++
		if a.MTime != b.MTime || a.CTime != b.CTime || a.ATime != b.ATime || a.CRTime != b.CRTime {
			differ++
		}
		if a.MTime != b.MTime {
			m++
		}
		if a.CTime != b.CTime || a.ATime != b.ATime {
			ca++
		}
		if a.CRTime != b.CRTime {
			cr++
		}
	}
	// One or two are what a build is about; a tenth of all is the build's clock.
	if differ == 0 || differ < equal/10 {
		return nil
	}
	var which []string
	for _, w := range []struct {
		n    int
		what string
	}{{m, "modification time"}, {ca, "change or access time"}, {cr, "creation time"}} {
		if w.n > 0 {
			which = append(which, fmt.Sprintf("%s of %d", w.what, w.n))
		}
	}
	f := &Finding{ID: FoundTimes, Cost: c.areaCost(fsmap.Inodes) + c.areaCost(fsmap.Metadata),
		What: fmt.Sprintf("%d of %d files that are otherwise equal have other times (%s)", differ, equal, strings.Join(which, ", ")),
		Cure: "set SOURCE_DATE_EPOCH, and give the files fixed times before the image is made (tar --mtime --clamp-mtime)"}
	if c.is.fs.Ext4 != nil {
		f.Cure += "; mke2fs heeds SOURCE_DATE_EPOCH from e2fsprogs 1.47.1 on (before, E2FSPROGS_FAKE_TIME fixes creation times only)"
	}
	return f
}

// foundOrder looks for files whose blocks are elsewhere though nothing in them changed.
func (c *comparison) foundOrder(r *Report) *Finding {
	if c.is.fs.Compression != "" {
		return nil
	}
	f := &Finding{ID: FoundOrder}
	var size, all int64
	n := 0
	var moved []*FileCost
	for i := range c.files {
		fc := &c.files[i]
		if !fc.new.IsRegular() || fc.old == nil || fc.Change == FileChanged {
			continue
		}
		all += fc.Size
		if slices.Equal(fc.old.Pieces, fc.new.Pieces) {
			continue
		}
		n++
		size += fc.Size
		f.Cost += fc.Cost
		moved = append(moved, fc)
	}
	if n == 0 || size < all/100 {
		return nil
	}
	slices.SortStableFunc(moved, func(a, b *FileCost) int { return cmp.Compare(b.Size, a.Size) })
	for _, fc := range moved[:min(len(moved), maxPaths)] {
		f.Paths = append(f.Paths, fc.Path)
	}
	f.Cost += c.areaCost(fsmap.Bitmaps)
	f.What = fmt.Sprintf("%d unchanged files (%d bytes) are at another place of the image", n, size)
	f.Cure = "fill the image in a fixed order (a tree unpacked from a sorted tar), with the same options; a delta finds moved blocks of 4 KiB, and where they went costs little"
	return f
}

// foundInodes looks for equal files with other inode numbers.
func (c *comparison) foundInodes(*Report) *Finding {
	if c.ext4() == nil {
		return nil
	}
	n, all := 0, 0
	for i := range c.files {
		if fc := &c.files[i]; fc.old != nil {
			all++
			if fc.old.Inode != fc.new.Inode {
				n++
			}
		}
	}
	if n == 0 || n < all/10 {
		return nil
	}
	return &Finding{ID: FoundInodes, Cost: c.areaCost(fsmap.Inodes) + c.areaCost(fsmap.Directory),
		What: fmt.Sprintf("%d of %d files have another inode number: files were taken in another order, or one early in the order came or went", n, all),
		Cure: "fill the image in a fixed order, which is that of the directories mke2fs -d reads: unpack a sorted tar into an empty directory first"}
}

func (c *comparison) foundCompressedFiles(r *Report) *Finding {
	f := &Finding{ID: FoundCompressedFile}
	seen, closed := make(map[string]int), make(map[string]int)
	for i := range c.files {
		fc := &c.files[i]
		switch fc.Contents {
		case "", contentsRandom:
			continue
		case "gzip", "zip or jar":
			seen[fc.Contents]++
		default:
			closed[fc.Contents]++
		}
		f.add(fc)
	}
	if len(f.Paths) == 0 {
		return nil
	}
	c.dearest(f)
	f.What = "new or changed files are compressed"
	f.Cure = "store them uncompressed, if they are dear: the bundle compresses them better"
	if len(closed) > 0 {
		f.What += fmt.Sprintf(": what follows a change in one is all new (%s)", counts(closed))
		f.Cure = "store them uncompressed, the bundle compresses them better; or with gzip, which patches look into; or zstd --rsyncable, an initrd without compression"
	}
	if len(seen) > 0 {
		f.What += fmt.Sprintf("; patches look into deflate, so what did not change in one costs little (%s)", counts(seen))
	}
	return f
}

// counts lists kinds and how many there are of each.
func counts(kinds map[string]int) string {
	var list []string
	for k, n := range kinds {
		list = append(list, fmt.Sprintf("%s: %d", k, n))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// dearest leaves the paths that cost most.
func (c *comparison) dearest(f *Finding) {
	cost := make(map[string]int64)
	for i := range c.files {
		cost[c.files[i].Path] = c.files[i].Cost
	}
	slices.SortStableFunc(f.Paths, func(a, b string) int { return cmp.Compare(cost[b], cost[a]) })
	f.Paths = f.Paths[:min(len(f.Paths), maxPaths)]
}

// maxGzip is the largest gzip file that is compared byte by byte.
const maxGzip = 64 << 20

func (c *comparison) foundGzipTime(*Report) *Finding {
	f := &Finding{ID: FoundGzipTime}
	only := 0
	for i := range c.files {
		fc := &c.files[i]
		if fc.Contents != "gzip" || fc.old == nil || fc.old.Compressed {
			continue
		}
		was, is := head(c.was, fc.old, 10), head(c.is, fc.new, 10)
		t1, ok1 := gzipTime(was)
		t2, ok2 := gzipTime(is)
		if !ok1 || !ok2 || t1 == t2 {
			continue
		}
		f.add(fc)
		if fc.old.Size == fc.new.Size && fc.new.Size <= maxGzip {
			was, is = head(c.was, fc.old, maxGzip), head(c.is, fc.new, maxGzip)
			if bytes.Equal(was[:4], is[:4]) && bytes.Equal(was[8:], is[8:]) {
				only++
			}
		}
	}
	n := len(f.Paths)
	if n == 0 {
		return nil
	}
	c.dearest(f)
	f.What = fmt.Sprintf("%d gzip files hold another time in their header, %d of them differ in nothing else", n, only)
	f.Cure = "gzip -n, or for Python and others a fixed SOURCE_DATE_EPOCH"
	return f
}
