// SPDX-License-Identifier: Apache-2.0

package update

import (
	"errors"
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
