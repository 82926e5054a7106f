// SPDX-License-Identifier: Apache-2.0

package update

import (
	"fmt"
	"slices"
	"time"
)

// floors change when a trial is confirmed, and only then. They rise, unless a permit
// lets the device go back.
type floors struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
}

// raised returns the floors after job was confirmed: the floor is what the
// signer says in the manifest, not the sequence of what is installed.
func (f floors) raised(job *Job) floors { return f.or(floors{job.Floor, job.TimeFloor}) }

// or is the higher one of each.
func (f floors) or(g floors) floors {
	return floors{max(f.Sequence, g.Sequence), later(f.Time, g.Time)}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// The places that floors come from, as people see them.
const (
	FromDataDir    = "data_dir"
	FromFloorStore = "floor_store"
	FromImage      = "image"
)

// Floors is what the device does not go back behind.
type Floors struct {
	// Sequence is the lowest that is accepted, and Places are those that say so.
	Sequence uint64
	Places   []string
	// Time is the earliest time that it can be now.
	Time time.Time
}

// A floorPlace is one place where the floors are kept, and what it holds.
type floorPlace struct {
	name  string
	files files
	held  floors
}

// loadFloors reads all places. The highest floor of them counts, so that losing
// a place, or putting an older copy into it, lowers nothing.
func (s *store) loadFloors() {
	places := []floorPlace{{name: FromDataDir, files: s.files}}
	if s.second != nil {
		// Before the data directory, whose journal says when it is done.
		places = slices.Insert(places, 0, floorPlace{name: FromFloorStore, files: s.second})
	}
	for i := range places {
		p := &places[i]
		if problem := loadInto(p.files, fileFloors, &p.held); problem != "" {
			s.problems = append(s.problems, fmt.Sprintf("In %s, %s.", p.name, problem))
		}
	}
	s.places = places
	s.floors = s.highest()
}

// highest is what counts of what the places hold.
func (s *store) highest() (f floors) {
	for i := range s.places {
		f = f.or(s.places[i].held)
	}
	return f
}

// putFloors writes f to every place that does not hold it yet. The data
// directory is last, and its failure is an error. One of the second store is told
// to note: a partition that is worn out must not keep a device from its updates.
//
// A power cut between the two leaves them different; the higher one counts. So a
// floor that was to rise has risen, and one that a permit lowers has not been
// lowered. The journal, which follows, is still that of the trial: the next start
// confirms again, and so writes the other.
func (s *store) putFloors(f floors, note func(error)) error {
	defer func() { s.floors = s.highest() }()
	for i := range s.places {
		p := &s.places[i]
		if err := put(p.files, fileFloors, &p.held, f); err != nil {
			err = fmt.Errorf("keep the floor in %s: %w", p.name, err)
			if p.name == FromDataDir {
				return err
			}
			note(err)
		}
	}
	return nil
}

// mendFloors gives every place what another one holds, so that the floor
// outlives the loss of the other place as well.
func (u *Updater) mendFloors() {
	note := func(err error) { u.alarm("%v.", err) }
	if err := u.store.putFloors(u.store.floors, note); err != nil {
		note(err)
	}
}

// allowed tells why r is too old for the floor, or which permit lets the device go
// back to it, "" if none is needed. A permit that is given must be one for r in any
// case: who gives it does not mean it to be passed over.
func (u *Updater) allowed(r *Release, opt InstallOptions, floor uint64) (permit string, err error) {
	if len(opt.Permit) > 0 {
		p, err := u.o.Engine.Permit(opt.Permit, r.Sequence, u.Now())
		if err != nil {
			return "", err
		}
		permit = p.ID
	}
	switch {
	case r.Sequence >= floor:
		return "", nil
	case permit == "":
		return "", errorf(NameBelowFloor, "version %s has sequence %d, below the floor of %d: take a newer release, or give a permit for it",
			r.Version, r.Sequence, floor)
	}
	return permit, nil
}

// floorsAfter is what the floors are once job is confirmed: they rise, or a permit
// lowers that of the versions to its own first sequence or to the release's floor,
// whichever is higher. The permit is verified again, because the journal, where it
// was kept, does not prove that it ever was. If it is over by now, the floor stays.
func (u *Updater) floorsAfter(job *Job) floors {
	f := u.store.floors.raised(job)
	if len(job.Options.Permit) == 0 || job.Sequence >= f.Sequence {
		return f
	}
	p, err := u.o.Engine.Permit(job.Options.Permit, job.Sequence, u.Now())
	if err != nil {
		u.alarm("The floor stays at %d, above the release that is confirmed: %v.", f.Sequence, err)
		return f
	}
	f.Sequence = max(p.First, job.Floor)
	return f
}

// effective is the highest floors of all places and of the running image.
func (u *Updater) effective() Floors {
	image := floors{u.o.ImageFloor, u.o.ImageTime}
	all := u.store.floors.or(image)
	e := Floors{Sequence: all.Sequence, Time: all.Time, Places: []string{}}
	if all.Sequence == 0 {
		return e // nothing says so
	}
	for _, p := range append(slices.Clone(u.store.places), floorPlace{name: FromImage, held: image}) {
		if p.held.Sequence == all.Sequence {
			e.Places = append(e.Places, p.name)
		}
	}
	slices.Sort(e.Places)
	return e
}
