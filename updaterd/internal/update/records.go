// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// Bounds of the records, so that none grows for ever.
const (
	maxDenied  = 64
	maxHistory = 100
)

// slots is what the slots are known to hold.
type slots struct {
	Records []SlotRecord `json:"records"`
	// Confirmed lists the slots that ran, or run, without being on trial, and
	// were not overwritten since.
	Confirmed []bootctl.Slot `json:"confirmed"`
}

// without forgets a slot that is about to be overwritten.
func (s slots) without(slot bootctl.Slot) slots {
	return slots{
		Records: slices.DeleteFunc(slices.Clone(s.Records), func(r SlotRecord) bool { return r.Slot == slot }),
		Confirmed: slices.DeleteFunc(slices.Clone(s.Confirmed),
			func(c bootctl.Slot) bool { return c == slot }),
	}
}

// confirmed adds slot to the confirmed ones.
func (s slots) confirmed(slot bootctl.Slot) slots {
	if slices.Contains(s.Confirmed, slot) {
		return s
	}
	c := append(slices.Clone(s.Confirmed), slot)
	slices.Sort(c)
	return slots{Records: s.Records, Confirmed: c}
}

// origin has version and sequence of the release which put an image into a slot, if
// that is known.
func (s slots) origin(slot bootctl.Slot, img ReleaseImage) (version string, sequence uint64) {
	for _, r := range s.Records {
		if r.Slot == slot && r.Class == img.Class && r.Digest == img.Digest {
			return r.Version, r.Sequence
		}
	}
	return "", 0
}

// sequence is that of the newest release that is in a slot, 0 if none is known.
func (s slots) sequence(slot bootctl.Slot) (latest uint64) {
	for _, r := range s.Records {
		if r.Slot == slot {
			latest = max(latest, r.Sequence)
		}
	}
	return latest
}

// installed is what job put into its target slot, confirmed.
func (s slots) installed(job *Job) slots {
	if len(job.Images) > 0 {
		s = s.without(job.Target)
		for _, img := range job.Images {
			r := SlotRecord{Slot: job.Target, Class: img.Class, Digest: img.Digest,
				Size: img.Size, BuildID: img.BuildID, Version: job.Version, Sequence: job.Sequence, Verified: true}
			if img.Recipe == RecipeCarried {
				r.Version, r.Sequence = s.origin(job.Source, img)
			}
			s.Records = append(s.Records, r)
		}
	}
	return s.confirmed(job.Target)
}

// A denied bundle has failed, and how often.
type denied struct {
	Digest   string `json:"digest"`
	Version  string `json:"version"`
	Failures int    `json:"failures"`
	// Bad tells that it failed in trial: once is enough.
	Bad    bool      `json:"bad"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
	// Job is the latest job that was counted, so that counting twice is harmless.
	Job uint64 `json:"job"`
}

type denyList struct {
	Bundles []denied `json:"bundles"`
}

func (d denyList) find(digest string) (denied, bool) {
	i := slices.IndexFunc(d.Bundles, func(x denied) bool { return x.Digest == digest })
	if i < 0 {
		return denied{}, false
	}
	return d.Bundles[i], true
}

// without takes a bundle off the list.
func (d denyList) without(digest string) denyList {
	return denyList{Bundles: slices.DeleteFunc(slices.Clone(d.Bundles), func(x denied) bool { return x.Digest == digest })}
}

// with counts a failure of job; the oldest entry makes room.
func (d denyList) with(job *Job, bad bool, reason string, now time.Time) denyList {
	e, known := d.find(job.Digest)
	if !known || e.Job != job.ID {
		e.Failures++
	}
	e.Digest, e.Version, e.Job = job.Digest, job.Version, job.ID
	e.Bad = e.Bad || bad
	e.Reason, e.Time = reason, now
	list := append(d.without(job.Digest).Bundles, e)
	return denyList{Bundles: list[max(0, len(list)-maxDenied):]}
}

// decodeHistory reads one result a line. The last line may be torn and any
// line may be from a version with other fields: what does not parse is left out.
func decodeHistory(data []byte) []Result {
	var out []Result
	for line := range bytes.Lines(data) {
		var r Result
		if json.Unmarshal(line, &r) == nil && r.Outcome != "" {
			out = append(out, r)
		}
	}
	return out[max(0, len(out)-maxHistory):]
}

// encodeHistory writes one result a line; the oldest make room.
func encodeHistory(h []Result) ([]byte, error) {
	var b []byte
	for _, r := range slices.Backward(h) {
		line, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encode history: %w", err)
		}
		if len(b)+len(line) >= maxRecord {
			break
		}
		b = append(append(line, '\n'), b...)
	}
	return b, nil
}

// withResult appends r unless it is there already (its job ended in this way
// before a power cut, and the journal did not say so yet).
func withResult(h []Result, r Result) []Result {
	if n := len(h); n > 0 && h[n-1].Job == r.Job && h[n-1].Digest == r.Digest {
		h = h[:n-1]
	}
	h = append(slices.Clone(h), r)
	return h[max(0, len(h)-maxHistory):]
}

// store is the data directory with what is in it.
type store struct {
	files    files
	second   files        // a second store of the floors and of what was seen of channels; nil: none
	places   []floorPlace // where the floors are kept, in the order of writing
	floors   floors       // the highest of all places
	slots    slots
	deny     denyList
	data     data
	channels channels  // what was seen last, wherever that is kept
	spare    channels  // what the second store has of it
	checked  time.Time // that of the channel record which was written last in this life
	history  []Result
	problems []string
}

// load reads everything and returns the journal; it never fails.
func (s *store) load() Journal {
	j := Journal{State: StateIdle}
	note := func(problem string) {
		if problem != "" {
			s.problems = append(s.problems, problem)
		}
	}
	note(loadRecord(s.files, fileJournal, func(b []byte) (err error) {
		got, err := decodeJournal(b)
		if err == nil {
			j = got
		}
		return err
	}))
	s.loadFloors()
	note(loadInto(s.files, fileSlots, &s.slots))
	note(loadInto(s.files, fileDeny, &s.deny))
	note(loadInto(s.files, fileData, &s.data))
	note(loadInto(s.files, fileChannel, &s.channels))
	if s.second != nil {
		if problem := loadInto(s.second, fileChannel, &s.spare); problem != "" {
			note(fmt.Sprintf("In %s, %s.", FromFloorStore, problem))
		}
		s.channels = s.channels.or(s.spare)
	}
	note(loadRecord(s.files, fileHistory, func(b []byte) error {
		s.history = decodeHistory(b)
		return nil
	}))
	// A lost journal must not number jobs anew: history tells them apart by it.
	for _, r := range s.history {
		j.LastID = max(j.LastID, r.Job)
	}
	return j
}

func loadInto[T any](f files, name string, into *T) string {
	return loadRecord(f, name, func(b []byte) error {
		var v T
		if err := decodeRecord(b, &v); err != nil {
			return err
		}
		*into = v
		return nil
	})
}

// put replaces a record file unless value equals the one in place.
func put[T any](f files, name string, place *T, value T) error {
	now, err := encodeRecord(value)
	if err != nil {
		return err
	}
	if old, err := encodeRecord(*place); err == nil && bytes.Equal(old, now) {
		return nil
	}
	if err := f.write(name, now); err != nil {
		return err
	}
	*place = value
	return nil
}

func (s *store) saveJournal(j Journal) error {
	if err := j.validate(); err != nil {
		return errors.Join(errors.New("internal error: journal"), err)
	}
	b, err := encodeRecord(j)
	if err != nil {
		return err
	}
	// A journal that could not be read back would be worse than none.
	if _, err := decodeJournal(b); err != nil {
		return fmt.Errorf("internal error: journal cannot be read back: %w", err)
	}
	return s.files.write(fileJournal, b)
}

func (s *store) report(r Result) error {
	h := withResult(s.history, r)
	b, err := encodeHistory(h)
	if err != nil {
		return err
	}
	if err := s.files.write(fileHistory, b); err != nil {
		return err
	}
	s.history = h
	return nil
}
