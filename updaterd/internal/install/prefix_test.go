// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// prefixed are the chunks of the full recipe that are made from those before them.
func prefixed(t *testing.T, data []byte) (chunks []int) {
	t.Helper()
	_, _, _, entries := recipe(t, data, "full")
	for i, e := range entries {
		if e.Kind == bundle.Prefixed {
			chunks = append(chunks, i)
		}
	}
	if !slices.Equal(chunks, []int{4, 8, 9, 10}) {
		t.Fatalf("chunks %v have a prefix; the test wants 4 and 8 to 10", chunks)
	}
	return chunks[1:] // 4 is mostly zeros
}

// small makes the prefix two chunks long.
func small(s *bundle.Spec) { s.Prefix = 2 * chunkSize }

// What comes before a chunk is at hand while chunks come one after the other.
// Otherwise it is read from the slot, and only as far as it is not.
func TestPrefixIsReadFromTheSlotOnlyIfItMust(t *testing.T) {
	t.Parallel()
	_, v2 := systems()
	data := build(t, small, "rootfs", nil, v2)
	prefixed(t, data)
	for name, c := range map[string]struct {
		missing []int
		want    []int // chunks that are read for the sake of another
	}{
		"all":                    {[]int{1, 2, 5, 6, 7, 8, 9, 10, 11}, nil},
		"from the middle on":     {[]int{9, 10, 11}, []int{7, 8}},
		"every other":            {[]int{8, 10}, []int{6, 7, 9}},
		"one that needs none":    {[]int{7}, nil},
		"one before a gap":       {[]int{6, 9}, []int{7, 8}},
		"one just before it":     {[]int{7, 8}, []int{6}},
		"the last of them":       {[]int{10}, []int{8, 9}},
		"none, and chunk 0 only": {[]int{0}, nil},
	} {
		for _, mode := range modes {
			t.Run(name+" "+mode, func(t *testing.T) {
				there := bytes.Clone(v2)
				for _, i := range c.missing {
					there[i*chunkSize+5000] ^= 1
				}
				r := newRig(t, data, nil, there)
				reads := make(map[int]int)
				m := &flash{corrupt: func(off int64, p []byte) {
					if off%chunkSize == 0 && len(p) > firstBlock {
						reads[int(off/chunkSize)]++
					}
				}}
				r.onMedium(m)
				r.install(mode)
				if !bytes.Equal(m.stable[:len(v2)], v2) {
					t.Fatal("the slot is not what was installed")
				}
				usual := 2
				if mode == ModeStore {
					usual = 3 // Download looks as well
				}
				var extra []int
				for i := 1; i < 12; i++ {
					if reads[i] > usual { // to find out what is there, and to read back
						extra = append(extra, i)
					}
				}
				if !slices.Equal(extra, c.want) {
					t.Errorf("chunks %v were read for others, want %v", extra, c.want)
				}
			})
		}
	}
}

// A chunk that a delta does not yield comes from the full recipe, where it has a
// prefix; what is before it comes from the delta.
func TestFallbackToAChunkWithPrefix(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, small, "rootfs", v1, v2)
	_, _, _, deltas := recipe(t, data, "delta")
	for _, i := range prefixed(t, data) {
		if deltas[i].Kind != bundle.Patch {
			t.Fatalf("the test needs a patch for chunk %d", i)
		}
		touched := bytes.Clone(v1)
		for k := range 8 {
			touched[i*chunkSize+k*3000+100] ^= 1
		}
		for _, mode := range modes {
			r := newRig(t, data, touched, nil)
			rel, stats := r.install(mode)
			r.holds(v2, nil)
			if stats.Fetched <= rel.Download.Expected {
				t.Errorf("chunk %d, %s: %d bytes fetched, %d expected: nothing fell back", i, mode, stats.Fetched, rel.Download.Expected)
			}
		}
	}
}

// A slot that gives back something else for a chunk that was found or written
// there never makes a wrong chunk out of it: the install says that the medium is
// bad, and mends it when it runs again.
func TestDamagedPrefix(t *testing.T) {
	t.Parallel()
	_, v2 := systems()
	data := build(t, small, "rootfs", nil, v2)
	prefixed(t, data)
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			there := bytes.Clone(v2)
			there[9*chunkSize+5000] ^= 1 // to be made from chunks 7 and 8
			r := newRig(t, data, nil, there)
			m := &flash{}
			// The damage comes between the look at the slot and the write.
			reads := 0
			m.corrupt = func(off int64, p []byte) {
				if off == 8*chunkSize {
					if reads++; reads == map[string]int{ModeStore: 3, ModeStream: 2}[mode] {
						m.stable[off+100] ^= 1
						p[100] ^= 1
					}
				}
			}
			r.onMedium(m)
			rel := r.inspect(mode)
			_, err := r.run(t.Context(), rel, quiet)
			wantName(t, err, update.NameMedium)
			if want := "chunk 9: read back at offset 524288"; !strings.Contains(err.Error(), want) {
				t.Errorf("error %q does not say %q", err, want)
			}
			if !bytes.Equal(m.current()[:firstBlock], make([]byte, firstBlock)) {
				t.Error("the slot has a first block")
			}
			if got := m.current()[9*chunkSize : 10*chunkSize]; !bytes.Equal(got, there[9*chunkSize:10*chunkSize]) {
				t.Error("chunk 9 was written")
			}
			if _, err := r.run(t.Context(), rel, quiet); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(m.stable[:len(v2)], v2) {
				t.Error("the second run did not mend the slot")
			}
		})
	}
}
