// SPDX-License-Identifier: Apache-2.0

package client

import (
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// dict is a{sv}. What is missing, or of a type that is not known, reads as the
// zero value, so that an older client can talk to a newer daemon.
type dict map[string]dbus.Variant

func get[T any](d dict, name string) T {
	v, _ := d[name].Value().(T)
	return v
}

// list never returns nil: a list that is empty is [] in JSON, not null.
func list(d dict, name string) []string {
	if l := get[[]string](d, name); l != nil {
		return l
	}
	return []string{}
}

func when(d dict, name string) time.Time {
	if s := get[uint64](d, name); s != 0 {
		return time.Unix(int64(s), 0).UTC()
	}
	return time.Time{}
}

func (d dict) status() *Status {
	s := &Status{
		State:       State(get[string](d, "State")),
		Version:     get[string](d, "Version"),
		Compatible:  get[string](d, "Compatible"),
		BootedSlot:  get[string](d, "BootedSlot"),
		PrimarySlot: get[string](d, "PrimarySlot"),
		TargetSlot:  get[string](d, "TargetSlot"),
		BadSlots:    list(d, "BadSlots"),
		Trial:       get[bool](d, "Trial"),
		TriesLeft:   int(get[uint32](d, "TriesLeft")),
		Slots:       map[string]Slot{},
		DeviceID:    get[string](d, "DeviceID"),
		Groups:      list(d, "Groups"),
		Floor:       get[uint64](d, "Floor"),
		FloorPlaces: list(d, "FloorPlaces"),
		TimeFloor:   when(d, "TimeFloor"),
		Problems:    list(d, "Problems"),
	}
	for name, slot := range get[map[string]map[string]dbus.Variant](d, "Slots") {
		s.Slots[name] = dict(slot).slot()
	}
	if last := dict(get[map[string]dbus.Variant](d, "LastResult")); len(last) > 0 {
		result := last.result()
		s.LastResult = &result
	}
	s.Channel = dict(get[map[string]dbus.Variant](d, "Channel")).channel()
	return s
}

// channel is nil if none is configured.
func (d dict) channel() *Channel {
	if len(d) == 0 {
		return nil
	}
	c := &Channel{
		Name:      get[string](d, "Name"),
		Ref:       get[string](d, "Ref"),
		Freshness: Freshness(get[string](d, "Freshness")),
		Serial:    get[uint64](d, "Serial"),
		Issued:    when(d, "Issued"),
		Expires:   when(d, "Expires"),
		Checked:   when(d, "Checked"),
		Error:     get[string](d, "Error"),
	}
	if o := dict(get[map[string]dbus.Variant](d, "Offer")); len(o) > 0 {
		c.Offer = &Offer{
			Ref:      get[string](o, "Ref"),
			Digest:   get[string](o, "Digest"),
			Version:  get[string](o, "Version"),
			Sequence: get[uint64](o, "Sequence"),
			Size:     get[uint64](o, "Size"),
		}
	}
	return c
}

func (d dict) slot() Slot {
	return Slot{
		Digest:   get[string](d, "Digest"),
		Size:     get[uint64](d, "Size"),
		BuildID:  get[string](d, "BuildID"),
		Version:  get[string](d, "Version"),
		Verified: get[bool](d, "Verified"),
		Booted:   get[bool](d, "Booted"),
		Primary:  get[bool](d, "Primary"),
		Bad:      get[bool](d, "Bad"),
	}
}

func (d dict) job(path dbus.ObjectPath) *JobStatus {
	number := string(path)[strings.LastIndex(string(path), "/")+1:]
	id, _ := strconv.ParseUint(number, 10, 64)
	return &JobStatus{
		Job:      id,
		Ref:      get[string](d, "Ref"),
		Version:  get[string](d, "Version"),
		State:    State(get[string](d, "State")),
		Stage:    get[string](d, "Stage"),
		Done:     get[uint64](d, "Done"),
		Total:    get[uint64](d, "Total"),
		Fetched:  get[uint64](d, "Fetched"),
		Rate:     get[uint64](d, "Rate"),
		TimeLeft: get[uint64](d, "TimeLeft"),
		Paused:   get[bool](d, "Paused"),
		Outcome:  Outcome(get[string](d, "Result")),
		Error:    ErrorName(get[string](d, "Error")),
		Message:  get[string](d, "Message"),
	}
}

func (d dict) result() Result {
	return Result{
		Outcome:   Outcome(get[string](d, "Result")),
		Error:     ErrorName(get[string](d, "Error")),
		Message:   get[string](d, "Message"),
		Version:   get[string](d, "Version"),
		Digest:    get[string](d, "Digest"),
		From:      get[string](d, "From"),
		To:        get[string](d, "To"),
		Time:      when(d, "Time"),
		Override:  get[bool](d, "Override"),
		Fetched:   get[uint64](d, "Fetched"),
		Written:   get[uint64](d, "Written"),
		Blocks:    get[uint64](d, "BlocksWritten"),
		Unchanged: get[uint64](d, "Unchanged"),
		Reused:    get[uint64](d, "Reused"),
	}
}

func (d dict) release() *Release {
	r := &Release{
		Ref:        get[string](d, "Ref"),
		Version:    get[string](d, "Version"),
		Sequence:   get[uint64](d, "Sequence"),
		Floor:      get[uint64](d, "Floor"),
		Digest:     get[string](d, "Digest"),
		Compatible: list(d, "Compatible"),
		Created:    when(d, "Created"),
		KeyIDs:     list(d, "KeyIDs"),
		Target:     get[string](d, "Target"),
		Mode:       get[string](d, "Mode"),
		Minimum:    get[uint64](d, "Minimum"),
		Expected:   get[uint64](d, "Expected"),
		Maximum:    get[uint64](d, "Maximum"),
		Images:     []Image{},
	}
	for _, image := range get[[]map[string]dbus.Variant](d, "Images") {
		i := dict(image)
		r.Images = append(r.Images, Image{
			Class:    get[string](i, "Class"),
			Size:     get[uint64](i, "Size"),
			Digest:   get[string](i, "Digest"),
			BuildID:  get[string](i, "BuildID"),
			Recipe:   get[string](i, "Recipe"),
			Download: get[uint64](i, "Download"),
		})
	}
	return r
}
