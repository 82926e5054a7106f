// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A delta that fits comes first; blocks that are nowhere are not worth it.
func TestChoiceOfBlocks(t *testing.T) {
	t.Parallel()
	v1, v2 := relatives()
	s1, s2 := systems()
	for name, c := range map[string]struct {
		data    []byte
		booted  []byte
		buildID string
		want    string
	}{
		"delta":             {build(t, withBlocks, "rootfs", s1, s2), s1, "old-build", bundle.KindDelta},
		"no delta for it":   {build(t, withBlocks, "rootfs", s1, s2), s1, "x", bundle.KindBlocks},
		"another system":    {build(t, withBlocks, "rootfs", nil, v2), v1, "", bundle.KindBlocks},
		"nothing in common": {build(t, withBlocks, "rootfs", nil, v2), noise(77, 12*chunkSize), "", bundle.KindFull},
		"no such recipe":    {build(t, nil, "rootfs", nil, v2), v1, "", bundle.KindFull},
	} {
		r := newRig(t, c.data, c.booted, nil)
		r.o.BuildID = c.buildID
		r.restart()
		rel, stats := r.install(ModeStream)
		if got := rel.Images[0].Recipe; got != c.want {
			t.Errorf("%s: recipe %s, want %s", name, got, c.want)
		}
		if d := rel.Download; stats.Fetched > d.Maximum || d.Minimum > d.Expected || d.Expected > d.Maximum {
			t.Errorf("%s: %d bytes fetched, inspect said %+v", name, stats.Fetched, d)
		}
	}
}

// Who looks at a release again fetches its envelope and no more; with something
// new on record about a slot all is looked at anew.
func TestBlocksAreLookedAtOnce(t *testing.T) {
	t.Parallel()
	v1, v2 := relatives()
	for _, booted := range [][]byte{v1, noise(77, 12*chunkSize)} {
		r := newRig(t, build(t, withBlocks, "rootfs", nil, v2), booted, nil)
		var records []update.SlotRecord
		r.o.BuildID, r.o.Records = "", func() []update.SlotRecord { return records }
		r.restart()
		first := r.inspect(ModeStream)
		tables := r.server.total()
		again := r.inspect(ModeStore)
		second := r.server.total() - tables
		if again.Images[0].Recipe != first.Images[0].Recipe || again.Download.Expected != first.Download.Expected || second > first.Download.Expected || second*2 > tables+second {
			t.Errorf("first %+v for %d bytes, then %+v for %d", first, tables, again, second)
		}
		records = []update.SlotRecord{{Slot: "b", Class: "rootfs", BuildID: "x"}}
		before := r.server.total()
		r.inspect(ModeStream)
		if third := r.server.total() - before; third != tables {
			t.Errorf("with a new record %d bytes are fetched, want %d", third, tables)
		}
		stats, err := r.run(t.Context(), again, quiet)
		if err != nil || stats.Fetched > again.Download.Expected+tables {
			t.Errorf("%+v, %v", stats, err)
		}
		r.holds(v2, nil)
	}
}

// A job for which the full recipe was better goes on with it.
func TestChoiceOfBlocksIsKept(t *testing.T) {
	_, v2 := relatives()
	data := build(t, withBlocks, "rootfs", nil, v2)
	for _, booted := range [][]byte{noise(77, 12*chunkSize), v2[2*chunkSize:]} {
		r := newRig(t, data, booted, nil)
		rel := r.inspect(ModeStore)
		if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
			t.Fatal(err)
		}
		r.server.Close()
		r.restart()
		again, err := r.engine.Reopen(t.Context(), r.url(), rel.Digest, "b", update.InstallOptions{})
		if err != nil || again.Images[0].Recipe != rel.Images[0].Recipe {
			t.Fatalf("%+v, %v; want recipe %s again", again, err, rel.Images[0].Recipe)
		}
		if stats, err := r.run(t.Context(), again, quiet); err != nil || stats.Fetched > 0 {
			t.Fatalf("%+v, %v", stats, err)
		}
		r.holds(v2, nil)
	}
}

// Inspecting one bundle after the other does not add up their tables, and a job
// goes on whose own are no longer kept.
func TestOneLargePlanIsKept(t *testing.T) {
	v1, v2 := relatives()
	r := relativeRig(t, build(t, withBlocks, "rootfs", nil, v2), v1, nil)
	other := serve(t, build(t, func(s *bundle.Spec) { s.Blocks, s.Version = true, "3.0" }, "rootfs", nil, append(v2[:8*chunkSize:8*chunkSize], noise(1, 4*chunkSize)...)))
	rel := r.inspect(ModeStore)
	inspect := func() {
		t.Helper()
		if _, err := r.engine.Inspect(t.Context(), other.URL+"/x.upb", "b", update.InstallOptions{}); err != nil {
			t.Fatal(err)
		}
		if n := len(r.engine.plans); n != 1 {
			t.Errorf("%d plans are kept, want one", n)
		}
	}
	inspect()
	if err := r.engine.Download(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	inspect()
	r.server.Close()
	if _, err := r.engine.Install(t.Context(), rel, quiet); err != nil {
		t.Fatal(err)
	}
	r.holds(v2, nil)
}

// mistaken is a bundle whose signer says of frames that their content is that of
// others: the hash of frame from becomes that of frame to.
func mistaken(t testing.TB, data []byte, from, to int) []byte {
	t.Helper()
	n := must(bundle.ParseHeader(data))
	v := must(bundle.Verify(data[:bundle.HeaderSize+n], newKey().keyring.Policy(1), time.Time{}))
	payload := bytes.Clone(data[v.PayloadOffset:])
	r := v.Manifest.Images[0].Blocks()
	table := payload[r.Table.Offset:][:r.Table.Length]
	copy(table[from*bundle.FrameEntrySize+4:][:8], table[to*bundle.FrameEntrySize+4:][:8])
	r.Table.Digest = bundle.Sum(table)
	envelope := must(sign.Seal(bundle.PayloadType, must(v.Manifest.Marshal()), newKey().signer))
	out := bytes.Clone(data[:bundle.HeaderSize])
	binary.LittleEndian.PutUint32(out[12:], uint32(len(envelope)))
	return append(append(out, envelope...), payload...)
}

// A frame that is taken for another, as only two contents with one hash could
// be, makes no wrong chunk: it comes from the full recipe, by policy.
func TestFramesTakenForOthers(t *testing.T) {
	v1, v2 := relatives()
	good := build(t, withBlocks, "rootfs", nil, v2)
	img := framesOf(t, good)
	per := img.frames.per
	if !img.frames.Zero(4) {
		t.Fatal("chunk 4 is not zeros")
	}
	// Frame 3 of chunk 6 is one that the old system has; these are not. Chunk 10 is
	// text, so that the frames after its first one have a prefix that is wrong.
	for _, from := range []int{3*per + 7, 10 * per} {
		entry := from
		if from > 4*per {
			entry -= per // zeros have no entries
		}
		data := mistaken(t, good, entry, 5*per+3)
		if got, want := framesOf(t, data).frames.frame(from).Content, img.frames.frame(6*per+3).Content; got != want {
			t.Fatalf("the hash of the frame is %x, want %x", got, want)
		}
		for _, c := range []struct{ fallback, want string }{{FallbackFull, ""}, {FallbackWait, update.NameOverBudget}, {FallbackFail, update.NameSourceChanged}} {
			r := relativeRig(t, data, v1, nil)
			r.o.Fallback = c.fallback
			r.restart()
			rel := r.inspect(ModeStream)
			stats, err := r.run(t.Context(), rel, quiet)
			if c.want != "" {
				wantName(t, err, c.want)
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			r.holds(v2, nil)
			if stats.Fetched <= rel.Download.Expected || stats.Fetched > rel.Download.Maximum {
				t.Errorf("%d bytes fetched, inspect said %+v", stats.Fetched, rel.Download)
			}
		}
	}
}
