// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/imagediff"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutDiff = `Usage: updater-bundle diff [--json] [--chunk-size BYTES] OLD NEW

Tells what the delta between two images will cost, and why, before anything is
shipped: the bytes a device downloads beside those of the full recipe, the
regions and the files that cost most, and findings with their cures. OLD and
NEW are raw images. Files are looked up in ext4 (ext2, ext3), and for other file
systems as far as docs/diff.md says.

The bytes of each chunk are exactly those that create would put into a bundle.
How they are split among the files in one chunk is an estimate.

It takes as long as create, and needs room for a bundle in the directory for
temporary files (TMPDIR).

  updater-bundle diff v1.1.ext4 v1.2.ext4
`

func (c *command) diff(ctx context.Context, args []string) error {
	f := c.Flags("diff", aboutDiff)
	asJSON := f.Bool("json", false, "print JSON")
	chunkSize := f.Int64("chunk-size", bundle.DefaultChunkSize, chunkSizeHelp)
	operands, err := c.Parse(f, args, "OLD", "NEW")
	if err != nil {
		return err
	}
	if err := checkChunkSize(*chunkSize); err != nil {
		return cli.Misuse("%v", err)
	}
	report, end := c.progress("comparing")
	r, err := imagediff.Compare(ctx, imagediff.Options{
		Old: operands[0], New: operands[1], ChunkSize: *chunkSize, Scratch: os.TempDir(), Progress: report,
	})
	end()
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(c.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	c.printDiff(r)
	return nil
}

// How many lines of a list are for people; --json has more.
const (
	shownRegions = 8
	shownFiles   = 20
)

func (c *command) printDiff(r *imagediff.Report) {
	w := tabwriter.NewWriter(c.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "old\t%s\n", describeSide(&r.Old))
	fmt.Fprintf(w, "new\t%s\n", describeSide(&r.New))
	fmt.Fprintf(w, "delta\t%s to download (%d bytes), %s of the full recipe\n", size(r.Delta), r.Delta, percent(r.Delta, r.Full))
	fmt.Fprintf(w, "full\t%s (%d bytes)\n", size(r.Full), r.Full)
	if r.Delta >= r.Full {
		fmt.Fprintf(w, "\tcreate would leave this delta out, because it does not pay\n")
	}
	n := &r.Chunks
	fmt.Fprintf(w, "chunks\t%d of %s: %d the same, %d zero, %d patched, %d as in the full recipe\n", n.All, size(r.ChunkSize), n.Same, n.Zero, n.Patched, n.Full)
	b := &r.Blocks
	fmt.Fprintf(w, "blocks\t%s the same, %s zero, %s elsewhere in OLD, %s new\n", size(b.Same), size(b.Zero), size(b.Moved), size(b.Changed))
	w.Flush()
	if len(r.Findings) > 0 {
		fmt.Fprintln(c.Stdout, "\nfindings:")
	}
	for _, f := range r.Findings {
		cost := ""
		if f.Cost > 0 {
			cost = fmt.Sprintf(" (about %s)", size(f.Cost))
		}
		fmt.Fprintf(c.Stdout, "  %s%s: %s\n", f.ID, cost, f.What)
		if len(f.Paths) > 0 {
			fmt.Fprintf(c.Stdout, "    such as: %s\n", strings.Join(f.Paths, ", "))
		}
		fmt.Fprintf(c.Stdout, "    cure: %s\n", f.Cure)
	}
	if len(r.Regions) == 0 {
		return
	}
	fmt.Fprintln(c.Stdout, "\nwhat it is for (within a chunk an estimate):")
	fmt.Fprintln(w, "  COST\tSHARE\tNEW BLOCKS\tMOVED\tAREA")
	for _, a := range r.Areas {
		if a.Cost > 0 {
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", size(a.Cost), percent(a.Cost, r.Delta), size(a.Blocks.Changed), size(a.Blocks.Moved), a.Area)
		}
	}
	w.Flush()
	fmt.Fprintln(c.Stdout, "\nchunks that cost most:")
	fmt.Fprintln(w, "  AT\tCOST\tFULL\tMOSTLY")
	for _, g := range r.Regions[:min(len(r.Regions), shownRegions)] {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", size(g.Offset), size(g.Cost), size(g.FullCost), strings.Join(g.Holds, ", "))
	}
	w.Flush()
	if len(r.Files) == 0 {
		return
	}
	fmt.Fprintln(c.Stdout, "\nfiles that cost most (within a chunk an estimate):")
	fmt.Fprintln(w, "  COST\tSHARE\tSIZE\tCHANGE\tFILE")
	for _, f := range r.Files[:min(len(r.Files), shownFiles)] {
		change := f.Change
		if f.Contents != "" {
			change += ", " + f.Contents
		}
		path := f.Path
		if f.From != "" {
			path += " (was " + f.From + ")"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%s\n", size(f.Cost), percent(f.Cost, r.Delta), size(f.Size), change, path)
	}
	w.Flush()
	if rest := r.Files[min(len(r.Files), shownFiles):]; len(rest) > 0 {
		var cost int64
		for _, f := range rest {
			cost += f.Cost
		}
		fmt.Fprintf(c.Stdout, "  and %d more for %s; --json has them all\n", len(rest), size(cost))
	}
}

func describeSide(s *imagediff.Side) string {
	text := fmt.Sprintf("%s: %s", s.Path, size(s.Size))
	if s.FileSystem != "" {
		text += fmt.Sprintf(", %s in blocks of %s", s.FileSystem, size(s.BlockSize))
	}
	if s.Compression != "" {
		text += ", compressed with " + s.Compression
	}
	if s.BuildID != "" {
		text += ", build " + s.BuildID
	}
	if s.Unread != "" {
		text += " (no files: " + s.Unread + ")"
	}
	return text
}

// percent is n of all for people.
func percent(n, all int64) string {
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(max(all, 1)))
}
