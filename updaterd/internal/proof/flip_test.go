// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
)

// moments are the states after each step that is so, once each; and what was
// judged good by then.
func moments(start *medium.State, log []medium.Op, is func(medium.Op) bool) (points []point) {
	r := medium.NewReplay(start)
	seen := map[string]bool{}
	for i, o := range log {
		if r.Step(o); !is(o) {
			continue
		}
		s := r.Durable()
		if k := fmt.Sprint(s.Sum()); !seen[k] {
			seen[k] = true
			points = append(points, point{s, judgedIn(log[:i+1]), i + 1, o})
		}
	}
	return points
}

// TestEnvironmentFlips flips every bit of both copies of the environment, after
// each write of it. The checksum does not cover the flag, so that a flip there
// may bring the other copy into force; every other flip takes the copy out. From
// what is left the device goes on.
func TestEnvironmentFlips(t *testing.T) {
	t.Parallel()
	flips, different := 0, 0
	for _, sc := range scenarios[:3] {
		b := small
		b.lock = t.TempDir() + "/lock"
		sc.safe = true
		start, log := b.recorded(t, sc)
		var points []point
		for _, p := range moments(start, log, func(o medium.Op) bool { return o.Kind == medium.DiskSync && o.Path == envDisk }) {
			env := p.state.Disk(envDisk)
			written := [][]byte{bytes.Clone(env[5:b.envSize]), bytes.Clone(env[b.envSize+5:])}
			seen := map[string]bool{}
			for bit := range len(env) * 8 {
				flips++
				env[bit/8] ^= 1 << (bit % 8)
				i := int64(bit) / 8 / b.envSize
				copies := []uboot.Copy{uboot.DecodeCopy(env[:b.envSize], true), uboot.DecodeCopy(env[b.envSize:], true)}
				if c := copies[i]; c.Valid && !bytes.Equal(c.Data, written[i]) {
					t.Fatalf("bit %d: a copy is intact that nobody wrote", bit)
				}
				if first := uboot.Counter.Select(copies[0], copies[1]); first < 0 {
					t.Fatalf("bit %d: no copy is in force", bit)
				}
				s := p.state.Clone()
				if k := fmt.Sprint(copies[0].Valid, copies[1].Valid, env[4], env[b.envSize+4]); !seen[k] {
					seen[k] = true
					s.Patch(envDisk, 0, env)
					points = append(points, point{b.plain(s), p.judged, p.op, p.after})
				}
				env[bit/8] ^= 1 << (bit % 8)
			}
		}
		tr := trial{board: b, T: t, sc: sc}
		tr.try(points)
		report(t, tr.bad)
		different += len(points)
	}
	fmt.Printf("flipped bits of the environment: %d, which left %d different states\n", flips, different)
}

// TestRecordFlips flips bits of every file of the data directory, after each
// time that it was written: all bits of the journal and of the other records are
// flipped in package update, where they are decoded; here it is some of them,
// from which the device goes on.
func TestRecordFlips(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	flips := 0
	for _, sc := range scenarios[:3] {
		b := small
		b.lock = t.TempDir() + "/lock"
		sc.safe = true
		start, log := b.recorded(t, sc)
		var points []point
		for _, p := range moments(start, log, func(o medium.Op) bool { return o.Kind == medium.DirSync }) {
			files := p.state.Files()
			for _, path := range files {
				record := strings.HasSuffix(path, ".json") || strings.HasSuffix(path, ".jsonl")
				if path == formFile || rng.IntN(3) > 0 && !record { // the former is not ours
					continue
				}
				data, _ := p.state.File(path)
				if len(data) == 0 {
					continue
				}
				data = bytes.Clone(data)
				bit := rng.IntN(len(data) * 8)
				data[bit/8] ^= 1 << (bit % 8)
				s := p.state.Clone()
				s.SetFile(path, data)
				points = append(points, point{s, p.judged, p.op, medium.Op{Kind: "flip", Path: fmt.Sprintf("bit %d of %s", bit, path)}})
			}
		}
		flips += len(points)
		tr := trial{board: b, T: t, sc: sc}
		tr.try(points)
		report(t, tr.bad)
	}
	fmt.Printf("flipped bits of files: %d\n", flips)
}

// A journal that is damaged is set aside with a message, and the boot
// environment says what is.
func TestDamagedJournalIsReported(t *testing.T) {
	b := small
	b.lock = t.TempDir() + "/lock"
	sc := scenarios[0]
	sc.safe = true
	start, log := b.recorded(t, sc)
	const journal = dataDir + "/journal.json"
	for _, p := range moments(start, log, func(o medium.Op) bool { return o.Kind == medium.DirSync && o.Path == dataDir }) {
		data, ok := p.state.File(journal)
		if !ok {
			continue
		}
		s := p.state.Clone()
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
		s.SetFile(journal, data)
		d := b.newDevice(s, sc.good, p.judged, 1)
		d.settle(t, sc)
		kept, _ := d.m.State().File(journal + ".corrupt")
		if !slices.ContainsFunc(d.problems, func(p string) bool { return strings.Contains(p, "journal.json counts as absent") }) || !bytes.Equal(kept, data) {
			t.Errorf("after step %d: a damaged journal was not reported and kept: %q", p.op, d.problems)
		}
		if len(d.faults) > 0 {
			t.Errorf("after step %d: %q", p.op, d.faults)
		}
	}
}
