// SPDX-License-Identifier: Apache-2.0

package server

import (
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// values is a{sv}.
type values = map[string]dbus.Variant

func text[T ~string](s T) dbus.Variant { return dbus.MakeVariant(clean(string(s))) }

// clean makes a string one that D-Bus carries: a bus disconnects whoever sends
// it broken UTF-8 or a zero byte, and messages quote what strangers wrote.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func texts[T ~string](list []T) dbus.Variant {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, clean(string(s)))
	}
	return dbus.MakeVariant(out)
}

// count is a number that is never below zero on the bus.
func count(n int64) dbus.Variant { return dbus.MakeVariant(uint64(max(n, 0))) }

// seconds is a time as the bus carries it; 0 is "not known".
func seconds(t time.Time) dbus.Variant {
	if t.IsZero() {
		return count(0)
	}
	return count(t.Unix())
}

func managerValues(snap update.Snapshot) values {
	job := dbus.ObjectPath("/")
	if snap.Job != nil && !snap.Job.Finished {
		job = jobPath(snap.Job.ID)
	}
	last := values{}
	if snap.Last != nil {
		last = resultValues(snap.Last)
	}
	return values{
		"State":       text(snap.State),
		"Version":     text(snap.Version),
		"Compatible":  text(snap.Compatible),
		"BootedSlot":  text(snap.Booted),
		"PrimarySlot": text(snap.Primary),
		"TargetSlot":  text(snap.Target),
		"BadSlots":    texts(snap.Bad),
		"Trial":       dbus.MakeVariant(snap.Trial),
		"TriesLeft":   dbus.MakeVariant(uint32(max(snap.TriesLeft, 0))),
		"Slots":       dbus.MakeVariant(slotValues(snap)),
		"DeviceID":    text(snap.DeviceID),
		"Groups":      texts(snap.Groups),
		"Floor":       dbus.MakeVariant(snap.Floors.Sequence),
		"FloorPlaces": texts(snap.Floors.Places),
		"TimeFloor":   seconds(snap.Floors.Time),
		"Job":         dbus.MakeVariant(job),
		"LastResult":  dbus.MakeVariant(last),
		"Problems":    texts(snap.Problems),
		"Channel":     dbus.MakeVariant(channelValues(snap.Channel)),
	}
}

// channelValues is empty if there is no channel.
func channelValues(c *update.ChannelStatus) values {
	if c == nil {
		return values{}
	}
	offer := values{}
	if o := c.Offer; o != nil {
		offer = values{
			"Ref":      text(update.PublicRef(o.Ref)),
			"Digest":   text(o.Digest),
			"Version":  text(o.Version),
			"Sequence": dbus.MakeVariant(o.Sequence),
			"Size":     count(o.Size),
		}
	}
	return values{
		"Name":      text(c.Name),
		"Ref":       text(update.PublicRef(c.Ref)),
		"Freshness": text(c.Freshness),
		"Serial":    dbus.MakeVariant(c.Serial),
		"Issued":    seconds(c.Issued),
		"Expires":   seconds(c.Expires),
		"Checked":   seconds(c.Checked),
		"Error":     text(c.Error),
		"Offer":     dbus.MakeVariant(offer),
	}
}

// slotValues describes each slot, named as in "rootfs.a".
func slotValues(snap update.Snapshot) map[string]values {
	slots := make(map[string]values, len(snap.Slots))
	for i := range snap.Slots {
		r := &snap.Slots[i]
		slots[clean(r.Class+"."+string(r.Slot))] = values{
			"Digest":   text(r.Digest),
			"Size":     count(r.Size),
			"BuildID":  text(r.BuildID),
			"Version":  text(r.Version),
			"Verified": dbus.MakeVariant(r.Verified),
			"Booted":   dbus.MakeVariant(r.Slot == snap.Booted),
			"Primary":  dbus.MakeVariant(r.Slot == snap.Primary),
			"Bad":      dbus.MakeVariant(bootctl.Status{Bad: snap.Bad}.IsBad(r.Slot)),
		}
	}
	return slots
}

func jobValues(j *update.JobStatus) values {
	result := update.Result{Message: j.Waiting}
	if j.Finished {
		result = j.Result
	}
	left := j.TimeLeft.Round(time.Second)
	if j.TimeLeft > 0 && left == 0 {
		left = time.Second // 0 means that it is not known
	}
	return values{
		"Ref":      text(update.PublicRef(j.Ref)),
		"Version":  text(j.Version),
		"State":    text(j.State),
		"Stage":    text(j.Stage),
		"Done":     count(j.Done),
		"Total":    count(j.Total),
		"Fetched":  count(j.Fetched),
		"Rate":     count(j.Rate),
		"TimeLeft": count(int64(left / time.Second)),
		"Paused":   dbus.MakeVariant(j.Paused),
		"Result":   text(result.Outcome),
		"Error":    text(result.Error),
		"Message":  text(result.Message),
	}
}

func resultValues(r *update.Result) values {
	return values{
		"Result":        text(r.Outcome),
		"Error":         text(r.Error),
		"Message":       text(r.Message),
		"Version":       text(r.Version),
		"Digest":        text(r.Digest),
		"From":          text(r.From),
		"To":            text(r.To),
		"Time":          seconds(r.Time),
		"Override":      dbus.MakeVariant(r.Override),
		"Fetched":       count(r.Stats.Fetched),
		"Written":       count(r.Stats.Written),
		"BlocksWritten": count(r.Stats.Blocks),
		"Unchanged":     count(r.Stats.Unchanged),
		"Reused":        count(r.Stats.Reused),
	}
}

func releaseValues(r *update.Release) values {
	images := make([]values, 0, len(r.Images))
	for i := range r.Images {
		image := &r.Images[i]
		images = append(images, values{
			"Class":    text(image.Class),
			"Size":     count(image.Size),
			"Digest":   text(image.Digest),
			"BuildID":  text(image.BuildID),
			"Recipe":   text(image.Recipe),
			"Download": count(image.Download),
		})
	}
	return values{
		"Ref":        text(update.PublicRef(r.Ref)),
		"Version":    text(r.Version),
		"Sequence":   dbus.MakeVariant(r.Sequence),
		"Floor":      dbus.MakeVariant(r.Floor),
		"Digest":     text(r.Digest),
		"Compatible": texts(r.Compatible),
		"Created":    seconds(r.Created),
		"KeyIDs":     texts(r.KeyIDs),
		"Target":     text(r.Target),
		"Mode":       text(r.Mode),
		"Minimum":    count(r.Download.Minimum),
		"Expected":   count(r.Download.Expected),
		"Maximum":    count(r.Download.Maximum),
		"Images":     dbus.MakeVariant(images),
	}
}
