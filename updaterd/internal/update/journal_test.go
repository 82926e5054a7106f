// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
)

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	b, err := encodeRecord(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// framed is a record with the right checksum around any body.
func framed(t testing.TB, n int, body string) []byte {
	t.Helper()
	b, err := json.Marshal(record{Schema: n, Sum: sumOf([]byte(body)), Body: json.RawMessage(body)})
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestDecodeJournal(t *testing.T) {
	good := encoded(t, Journal{State: StateTrial, LastID: 7, Job: testJob()})
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	body := string(encoded(t, Journal{State: StateIdle}))
	body = body[strings.Index(body, `"body":`)+7 : len(body)-2]
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"good":              {good, nil},
		"empty":             {nil, errCorrupt},
		"flipped bit":       {flipped, errCorrupt},
		"torn":              {good[:len(good)/2], errCorrupt},
		"trailing bytes":    {append(bytes.Clone(good), "{}"...), errCorrupt},
		"too large":         {bytes.Repeat([]byte{' '}, maxRecord+1), errCorrupt},
		"newer":             {framed(t, schema+1, `{"whatever":1}`), errNewer},
		"newer frame":       {[]byte(`{"schema":2,"crc":"00"}`), errNewer},
		"older than any":    {framed(t, 0, body), errCorrupt},
		"unknown state":     {framed(t, schema, `{"state":"dreaming","last_id":0}`), errCorrupt},
		"unknown field":     {framed(t, schema, `{"state":"idle","last_id":0,"mood":1}`), errCorrupt},
		"case-folded field": {framed(t, schema, `{"State":"idle","last_id":0}`), errCorrupt},
		"doubled field":     {framed(t, schema, `{"state":"trial","state":"idle","last_id":0}`), errCorrupt},
		"job in idle":       {encoded(t, Journal{State: StateIdle, LastID: 7, Job: testJob()}), errCorrupt},
		"trial without job": {encoded(t, Journal{State: StateTrial, LastID: 7}), errCorrupt},
		"job of the future": {encoded(t, Journal{State: StateTrial, LastID: 6, Job: testJob()}), errCorrupt},
	} {
		_, err := decodeJournal(tc.data)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
			t.Errorf("%s: decodeJournal = %v; want %v", name, err, tc.want)
		}
	}
}

func TestJournalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := genJournal(t)
		if j.Job != nil {
			j.Job.Reason = clip(rapid.String().Draw(t, "reason") + string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")))
		}
		b, err := encodeRecord(j)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeJournal(b)
		if j.validate() != nil {
			if err == nil {
				t.Fatalf("%s was accepted", b)
			}
			return
		}
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if diff := cmp.Diff(j, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add(encoded(f, Journal{State: StateIdle, LastID: 3, Last: &Result{Job: 3, Outcome: Success}}))
	f.Add(encoded(f, Journal{State: StateTrial, LastID: 7, Job: testJob()}))
	f.Add(framed(f, 2, `{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := decodeJournal(data)
		if err != nil {
			if !errors.Is(err, errCorrupt) && !errors.Is(err, errNewer) {
				t.Fatalf("decodeJournal = %v; want errCorrupt or errNewer", err)
			}
			return
		}
		if again := encoded(t, j); !bytes.Equal(again, data) {
			t.Fatalf("%q is read, but written as %q", data, again)
		}
		next(j, Event{Kind: EventCancel, Facts: Facts{Booted: "a"}})
		Reconcile(j, Facts{Booted: "a", Boot: bootctl.Status{Primary: "a"}})
	})
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte("{\"job\":1,\"outcome\":\"success\"}\n{\"job\":2,\"outc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := decodeHistory(data)
		b, err := encodeHistory(h)
		if err != nil {
			return // a time that JSON cannot say
		}
		if len(b) <= maxRecord && len(h) > 0 && len(decodeHistory(b)) == 0 {
			t.Fatalf("%q is lost", b)
		}
	})
}

// TestSetAside: whatever a file holds, the daemon starts, and the file is kept.
func TestSetAside(t *testing.T) {
	for name, tc := range map[string]struct {
		data []byte
		kept string
	}{
		"newer":   {framed(t, schema+1, `{}`), ".newer"},
		"corrupt": {[]byte("{"), ".corrupt"},
		"huge":    {bytes.Repeat([]byte("x"), maxRecord+1), ".corrupt"},
	} {
		for _, file := range []string{fileJournal, fileFloors, fileSlots, fileDeny} {
			d := t.TempDir()
			if err := os.WriteFile(filepath.Join(d, file), tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			s := store{files: dir{durable.OS{}, d}}
			if j := s.load(); j.State != StateIdle || len(s.problems) != 1 {
				t.Errorf("%s %s: journal %s, problems %q", name, file, describe(j), s.problems)
			}
			if got, err := os.ReadFile(filepath.Join(d, file+tc.kept)); err != nil || !bytes.Equal(got, tc.data) {
				t.Errorf("%s %s was not kept: %v", name, file, err)
			}
			again := store{files: dir{durable.OS{}, d}}
			if again.load(); len(again.problems) != 0 {
				t.Errorf("%s %s: reported again: %q", name, file, again.problems)
			}
		}
	}
}

// Every bit of every record is flipped: each time the record counts as damaged,
// or as newer, and never as another one.
func TestEveryFlippedBitIsFound(t *testing.T) {
	job := testJob()
	for _, state := range States() {
		j := Journal{State: state, LastID: 7, Job: job, Last: &Result{Job: 6, Outcome: RolledBack, Message: "why", Time: testNow}}
		if state == StateIdle {
			j.Job = nil
		}
		everyFlip(t, "journal: "+string(state), encoded(t, j), func(b []byte) error {
			_, err := decodeJournal(b)
			return err
		})
	}
	everyFlip(t, "floors", encoded(t, floors{}.raised(job)), func(b []byte) error { return decodeRecord(b, &floors{}) })
	everyFlip(t, "slots", encoded(t, slots{}.installed(job)), func(b []byte) error { return decodeRecord(b, &slots{}) })
	everyFlip(t, "deny", encoded(t, denyList{}.with(job, true, "why", testNow)), func(b []byte) error { return decodeRecord(b, &denyList{}) })
}

func everyFlip(t *testing.T, name string, data []byte, decode func([]byte) error) {
	t.Helper()
	if err := decode(data); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for bit := range len(data) * 8 {
		data[bit/8] ^= 1 << (bit % 8)
		if err := decode(data); !errors.Is(err, errCorrupt) && !errors.Is(err, errNewer) {
			t.Errorf("%s: bit %d: %v; %q", name, bit, err, data)
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
}

func TestStoreOnDisk(t *testing.T) {
	d := dir{durable.OS{}, t.TempDir()}
	s := store{files: d}
	s.load()
	job := testJob()
	want := Journal{State: StateInstalling, LastID: 7, Job: job}
	for _, err := range []error{
		s.saveJournal(want),
		s.putFloors(s.floors.raised(job), nil),
		put(s.files, fileSlots, &s.slots, s.slots.installed(job)),
		put(s.files, fileDeny, &s.deny, s.deny.with(job, true, "why", testNow)),
		s.report(Result{Job: 7, Outcome: Failed, Time: testNow}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := store{files: d}
	if diff := cmp.Diff(want, got.load()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(s, got, cmp.AllowUnexported(store{}, dir{}), cmp.AllowUnexported(floorPlace{}, floors{}, slots{}, denyList{}, denied{})); diff != "" {
		t.Error(diff)
	}
	if err := s.saveJournal(Journal{State: "dreaming"}); err == nil {
		t.Error("a journal that cannot be read back was written")
	}
}

func TestDenyListIsBounded(t *testing.T) {
	var d denyList
	for i := range 3 * maxDenied {
		job := testJob()
		job.ID, job.Digest = uint64(i), strings.Repeat("x", i)
		d = d.with(job, true, "why", testNow)
		d = d.with(job, true, "why", testNow) // twice, as after a cut
	}
	if len(d.Bundles) != maxDenied || d.Bundles[0].Failures != 1 {
		t.Errorf("%d entries, the first counts %d failures", len(d.Bundles), d.Bundles[0].Failures)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	var h []Result
	for i := range 3 * maxHistory {
		r := Result{Job: uint64(i + 1), Outcome: Failed, Message: clip(strings.Repeat("\x01", 600))}
		h = withResult(withResult(h, r), r)
	}
	b, err := encodeHistory(h)
	if err != nil || len(h) != maxHistory || len(b) > maxRecord {
		t.Fatalf("%d results in %d bytes, %v", len(h), len(b), err)
	}
	torn := decodeHistory(b[:len(b)-10])
	if got := decodeHistory(b); len(torn) != len(got)-1 || got[len(got)-1].Job != 3*maxHistory {
		t.Errorf("%d results, %d with a torn last line", len(got), len(torn))
	}
}

func TestFloorsOnlyRise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := floors{Sequence: rapid.Uint64().Draw(t, "sequence"), Time: testNow}
		job := &Job{Floor: rapid.Uint64().Draw(t, "floor"), Sequence: rapid.Uint64().Draw(t, "release"),
			TimeFloor: testNow.AddDate(0, 0, rapid.IntRange(-999, 999).Draw(t, "days"))}
		got := f.raised(job)
		if got.Sequence != max(f.Sequence, job.Floor) || got.Time.Before(f.Time) || got.Time.Before(job.TimeFloor) {
			t.Fatalf("%+v raised by %+v is %+v", f, job, got)
		}
	})
}

// An image that was carried over is of the version that it came with.
func TestCarriedImageKeepsItsVersion(t *testing.T) {
	s := slots{Records: []SlotRecord{
		{Slot: "a", Class: "bootloader", Digest: "sha256:1", Size: 5, Version: "1.0", Sequence: 10, Verified: true},
		{Slot: "b", Class: "bootloader", Digest: "sha256:0", Size: 5, Version: "0.9", Sequence: 9},
	}}
	job := &Job{Source: "a", Target: "b", Version: "2.0", Sequence: 20, Images: []ReleaseImage{
		{Class: "rootfs", Digest: "sha256:2", Size: 9, Recipe: "full"}, {Class: "bootloader", Digest: "sha256:1", Size: 5, Recipe: RecipeCarried}}}
	want := []SlotRecord{s.Records[0],
		{Slot: "b", Class: "rootfs", Digest: "sha256:2", Size: 9, Version: "2.0", Sequence: 20, Verified: true},
		{Slot: "b", Class: "bootloader", Digest: "sha256:1", Size: 5, Version: "1.0", Sequence: 10, Verified: true}}
	if got := s.installed(job).sequence("b"); got != 20 {
		t.Errorf("slot b has sequence %d", got)
	}
	if diff := cmp.Diff(want, s.installed(job).Records); diff != "" {
		t.Error(diff)
	}
	s.Records = nil // as it came from the factory
	if got := s.installed(job).Records[1].Version; got != "" {
		t.Errorf("version of a factory's bootloader is %q", got)
	}
}
