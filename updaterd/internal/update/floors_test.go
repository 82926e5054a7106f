// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// withFloors is a device with two stores, each with a floor.
func withFloors(t *testing.T, data, second uint64) *world {
	t.Helper()
	w := newWorld()
	w.second = map[string][]byte{}
	w.sure["2"] = true // it had been confirmed
	for place, n := range map[*map[string][]byte]uint64{&w.data: data, &w.second: second} {
		if n > 0 {
			(*place)[fileFloors] = encoded(t, floors{Sequence: n, Time: testNow})
		}
	}
	return w
}

// Whatever becomes of one place, the floor stays, and the place is mended.
func TestLosingAStoreLowersNoFloor(t *testing.T) {
	for name, lose := range map[string]func(w *world, place map[string][]byte){
		"gone":    func(_ *world, place map[string][]byte) { clear(place) },
		"damaged": func(_ *world, place map[string][]byte) { place[fileFloors][9] ^= 1 },
		"newer":   func(_ *world, place map[string][]byte) { place[fileFloors] = framed(t, schema+1, `{}`) },
		"an older copy": func(_ *world, place map[string][]byte) {
			place[fileFloors] = encoded(t, floors{Sequence: 3, Time: testNow.AddDate(-9, 0, 0)})
		},
	} {
		for _, which := range []string{FromDataDir, FromFloorStore} {
			bubble(t, name+", "+which, func(t *testing.T) {
				w := withFloors(t, 21, 21)
				place := w.data
				if which == FromFloorStore {
					place = w.second
				}
				lose(w, place)
				l := start(t, w, nil)
				defer l.end()
				f := l.Snapshot().Floors
				if f.Sequence != 21 || !f.Time.Equal(testNow) || !l.TimeFloor().Equal(testNow) {
					t.Errorf("floors are %+v", f)
				}
				_, err := l.Install(l.ctx, ref, InstallOptions{})
				wantName(t, "Install of sequence 20", err, NameBelowFloor)
				var mended floors
				if err := decodeRecord(place[fileFloors], &mended); err != nil || mended.Sequence != 21 || !mended.Time.Equal(testNow) {
					t.Errorf("the place was not mended: %+v, %v", mended, err)
				}
			})
		}
	}
}

// What is shown says where the floor comes from.
func TestFloorsAreShown(t *testing.T) {
	for name, tc := range map[string]struct {
		data, second, image uint64
		want                uint64
		places              []string
	}{
		"none":               {want: 0, places: []string{}},
		"image":              {data: 3, second: 3, image: 9, want: 9, places: []string{FromImage}},
		"both stores":        {data: 9, second: 9, image: 3, want: 9, places: []string{FromDataDir, FromFloorStore}},
		"all":                {data: 9, second: 9, image: 9, want: 9, places: []string{FromDataDir, FromFloorStore, FromImage}},
		"mended at start":    {second: 9, want: 9, places: []string{FromDataDir, FromFloorStore}},
		"image time is less": {data: 9, second: 9, want: 9, places: []string{FromDataDir, FromFloorStore}},
	} {
		bubble(t, name, func(t *testing.T) {
			l := start(t, withFloors(t, tc.data, tc.second), func(o *Options, _ *engine) {
				o.ImageFloor, o.ImageTime = tc.image, testNow.AddDate(-1, 0, 0)
			})
			defer l.end()
			f := l.Snapshot().Floors
			if f.Sequence != tc.want || !slices.Equal(f.Places, tc.places) {
				t.Errorf("floors are %+v; want %d of %q", f, tc.want, tc.places)
			}
			want := testNow
			if tc.data+tc.second == 0 {
				want = testNow.AddDate(-1, 0, 0)
			}
			if !f.Time.Equal(want) {
				t.Errorf("time floor is %v; want %v", f.Time, want)
			}
		})
	}
}

// What lets a device go back, and how far the floor follows.
func TestPermits(t *testing.T) {
	for name, tc := range map[string]struct {
		floor, image uint64
		permit       func([]byte, uint64, time.Time) (*Permit, error)
		given        string
		want         string // name of the error
		after        uint64
		id           string
	}{
		"none":                         {floor: 21, want: NameBelowFloor},
		"none for the image":           {image: 21, want: NameBelowFloor},
		"for it, lower than its floor": {floor: 21, permit: permitTo(3), given: "x", after: 20, id: "7"},
		"for it alone":                 {floor: 21, permit: permitTo(20), given: "x", after: 20, id: "7"},
		"not needed":                   {floor: 5, permit: permitTo(3), given: "x", after: 20},
		"for another range":            {floor: 21, permit: permitTo(30), given: "x", want: NameNotPermitted},
		"for another range, unneeded":  {floor: 5, permit: permitTo(30), given: "x", want: NameNotPermitted},
		"for the image's floor":        {image: 21, floor: 4, permit: permitTo(20), given: "x", after: 20, id: "7"},
	} {
		bubble(t, name, func(t *testing.T) {
			w := withFloors(t, tc.floor, tc.floor)
			opt := InstallOptions{Reboot: true, Permit: []byte(tc.given)}
			change := func(o *Options, e *engine) { o.ImageFloor, e.permit = tc.image, tc.permit }
			l := start(t, w, change)
			_, err := l.Inspect(l.ctx, ref, opt)
			if tc.want != "" {
				wantName(t, "Inspect", err, tc.want)
				_, err = l.Install(l.ctx, ref, opt)
				wantName(t, "Install", err, tc.want)
				l.end()
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Install(l.ctx, ref, opt); err != nil {
				t.Fatal(err)
			}
			l.reach(StatePendingReboot)
			if got := l.j.Job.Permit; got != tc.id {
				t.Errorf("the journal says permit %q, want %q", got, tc.id)
			}
			if got := l.store.floors.Sequence; got != tc.floor {
				t.Errorf("floor %d before it is confirmed, want %d", got, tc.floor)
			}
			l.end()
			tc.image = 0 // that of the older image
			l = start(t, w, change)
			defer l.end()
			s := l.reach(StateIdle)
			if s.Floors.Sequence != tc.after || strings.Contains(s.Last.Message, "by permit 7") != (tc.id != "") {
				t.Errorf("floors %+v after %q; want %d", s.Floors, s.Last.Message, tc.after)
			}
		})
	}
}

// A permit that is over when the release is confirmed lowers nothing; the release
// stays all the same.
func TestPermitIsOverAtTheConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := withFloors(t, 21, 21)
		end := testNow.Add(time.Hour)
		change := func(_ *Options, e *engine) {
			e.permit = func(b []byte, sequence uint64, now time.Time) (*Permit, error) {
				if now.After(end) {
					return nil, errorf(NameNotPermitted, "it ended")
				}
				return permitTo(15)(b, sequence, now)
			}
		}
		l := start(t, w, change)
		if _, err := l.Install(l.ctx, ref, InstallOptions{Reboot: true, Permit: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		l.reach(StatePendingReboot)
		l.end()
		end = testNow.Add(-time.Hour)
		l = start(t, w, change)
		defer l.end()
		s := l.reach(StateIdle)
		if s.Last.Outcome != Success || s.Floors.Sequence != 21 || !strings.Contains(strings.Join(s.Problems, "\n"), "The floor stays at 21") {
			t.Errorf("%+v, floors %+v, problems %q", s.Last, s.Floors, s.Problems)
		}
	})
}

// Whoever can write the journal must not be able to have an older release
// installed, nor the floor lowered.
func TestForgedJournal(t *testing.T) {
	forged := Job{ID: 1, Ref: ref, Digest: "sha256:2", Version: "2", Sequence: 20, Floor: 20, TimeFloor: testNow, Mode: "store",
		Images: []ReleaseImage{{Class: "rootfs", Size: 4, Digest: "sha256:img", Recipe: "full"}},
		Source: "a", Target: "b", SourceConfirmed: true, Attempts: 1, Options: InstallOptions{Permit: []byte("forged")}, Permit: "7"}
	for _, permit := range [][]byte{nil, []byte("forged")} {
		bubble(t, fmt.Sprintf("download, permit %q", permit), func(t *testing.T) {
			w := withFloors(t, 21, 21)
			job := forged
			job.Options.Permit = permit
			w.data[fileJournal] = encoded(t, Journal{State: StateDownloading, LastID: 1, Job: &job})
			l := start(t, w, nil) // whose engine believes no permit
			defer l.end()
			s := l.reach(StateIdle)
			if s.Last == nil || s.Last.Outcome != Failed || !w.slots["b"].is("0") || s.Floors.Sequence != 21 {
				t.Errorf("last result %+v, slot b %q, floors %+v", s.Last, w.slots["b"].chunks, s.Floors)
			}
		})
	}
	bubble(t, "trial that was never one", func(t *testing.T) {
		w := withFloors(t, 21, 21)
		job := forged
		job.Source, job.Target = "b", "a" // which runs, and is confirmed
		w.data[fileJournal] = encoded(t, Journal{State: StateTrial, LastID: 1, Job: &job})
		l := start(t, w, nil)
		defer l.end()
		if s := l.reach(StateIdle); s.Floors.Sequence != 21 {
			t.Errorf("floors are %+v", s.Floors)
		}
	})
}

// brokenStore is a partition that was worn out, or is not mounted.
type brokenStore struct{}

func (brokenStore) read(string, int) ([]byte, error) { return nil, errors.New("input/output error") }
func (brokenStore) write(string, []byte) error       { return errors.New("read-only file system") }
func (brokenStore) keep(string, string) error        { return errors.New("read-only file system") }

// A second store that fails keeps no update from its end, and people are told.
func TestSecondStoreFails(t *testing.T) {
	w := newWorld()
	s := store{files: w, second: brokenStore{}}
	s.load()
	if len(s.problems) != 2 || !strings.Contains(s.problems[0], "floor_store") || !strings.Contains(s.problems[1], "floor_store") { // floors, channels
		t.Errorf("problems are %q", s.problems)
	}
	w.sure["2"] = true
	var told error
	err := s.putFloors(floors{Sequence: 20, Time: testNow}, func(err error) { told = err })
	if err != nil || told == nil || !strings.Contains(told.Error(), "floor_store: read-only") {
		t.Errorf("putFloors = %v, and told %v", err, told)
	}
	again := store{files: w, second: brokenStore{}}
	if again.load(); again.floors.Sequence != 20 {
		t.Errorf("floors are %+v", again.floors)
	}
	// What a place holds that cannot be written to is not lowered, now or later.
	high := floors{Sequence: 30, Time: testNow}
	again.places[0].held = high
	if err := again.putFloors(floors{Sequence: 10, Time: testNow}, func(error) {}); err != nil || again.floors != high {
		t.Errorf("putFloors = %v, floors are %+v", err, again.floors)
	}
}

// The clock is behind what is known of the time on a device without a battery.
func TestNowIsNeverBeforeTheTimeFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock begins in the year 2000
		later := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
		w := withFloors(t, 1, 1)
		l := start(t, w, func(o *Options, _ *engine) { o.ImageTime = later })
		if got := l.Now(); !got.Equal(later) {
			t.Errorf("Now() = %v; want the image's time", got)
		}
		l.end()
		l = start(t, w, nil)
		if got := l.Now(); !got.Equal(testNow) {
			t.Errorf("Now() = %v; want the floor of the stores", got)
		}
		l.end()
		w.data[fileFloors] = encoded(t, floors{Sequence: 1, Time: time.Unix(0, 0).UTC()})
		clear(w.second)
		l = start(t, w, nil)
		if got := l.Now(); !got.Equal(time.Now()) {
			t.Errorf("Now() = %v; want the clock, %v", got, time.Now())
		}
		l.end()
	})
}
