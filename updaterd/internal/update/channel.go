// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"slices"
	"time"
)

// A Channel is where updates come from.
type Channel struct {
	Name string
	// Ref is the URL of its metadata, for people.
	Ref string
	// RefuseExpired makes metadata past their end an error. Otherwise they are a
	// warning, and still offer what they offer.
	RefuseExpired bool
	// Fetch gets the metadata that the channel has now, and verifies them. Whether
	// they are new is judged here.
	Fetch func(ctx context.Context) (*ChannelMetadata, error)
}

// ChannelMetadata are the verified statement of a channel.
type ChannelMetadata struct {
	Serial          uint64
	Digest          string // of what was signed
	Issued, Expires time.Time
	Offer           *Offer // the latest release for this kind of device; nil: none
}

// An Offer is a release in the channel.
type Offer struct {
	Ref      string `json:"ref"`
	Digest   string `json:"digest"` // of the manifest
	Version  string `json:"version"`
	Sequence uint64 `json:"sequence"`
	Size     int64  `json:"size,omitempty"` // of the bundle; 0: not told
}

// Freshness tells whether the channel may be hiding releases.
type Freshness string

// What metadata can be.
const (
	Fresh   Freshness = "fresh"
	Expired Freshness = "expired"
	Never   Freshness = "never" // were never seen
)

// ChannelStatus is what is known of the channel.
type ChannelStatus struct {
	Name, Ref       string
	Freshness       Freshness
	Serial          uint64 // the highest that was seen
	Issued, Expires time.Time
	// Checked is when the channel last answered with metadata that are believed and
	// no replay; Error is why it did not at the last check.
	Checked time.Time
	Error   string
	Offer   *Offer // newer than what runs; nil: nothing is

	refuse bool
}

// channelRecord is what is durably known of a channel. What is offered is part of it,
// so nothing is offered before the serial that it came with is known for good.
type channelRecord struct {
	Channel string    `json:"channel"`
	Serial  uint64    `json:"serial"`
	Digest  string    `json:"digest"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Checked time.Time `json:"checked"`
	Offer   *Offer    `json:"offer,omitempty"`
}

// maxChannels bounds how many channels are remembered: a device that is moved from
// one to another and back still knows a replay.
const maxChannels = 8

type channels struct {
	Known []channelRecord `json:"known"` // the latest last
}

func (c channels) find(name string) channelRecord {
	for _, r := range c.Known {
		if r.Channel == name {
			return r
		}
	}
	return channelRecord{}
}

func (c channels) with(r channelRecord) channels {
	known := slices.DeleteFunc(slices.Clone(c.Known), func(o channelRecord) bool { return o.Channel == r.Channel })
	known = append(known, r)
	return channels{known[max(0, len(known)-maxChannels):]}
}

// or is c with what o knows better: a higher serial. So the loss of a place where
// serials are kept, or an older copy in it, does not let a replay pass.
func (c channels) or(o channels) channels {
	for _, r := range o.Known {
		if r.Serial > c.find(r.Channel).Serial {
			c = c.with(r)
		}
	}
	return c
}

// checkedEvery is how often a check that finds nothing new is written down: whoever
// may check must not wear out the flash.
const checkedEvery = time.Hour

// putChannel makes a record durable, in the second store first and there only if the
// metadata are new ones. A power cut between the two leaves the new ones in the second
// store, which then count. What fails there is told to note and holds nothing up.
func (s *store) putChannel(r channelRecord, note func(error)) error {
	if s.second != nil && s.spare.find(r.Channel).Serial != r.Serial {
		if err := put(s.second, fileChannel, &s.spare, s.spare.with(r)); err != nil {
			note(err)
		}
	}
	was, all := s.channels.find(r.Channel), s.channels.with(r)
	if since := r.Checked.Sub(s.checked); r.Serial == was.Serial && r.Digest == was.Digest && since >= 0 && since < checkedEvery {
		s.channels = all
		return nil
	}
	err := put(s.files, fileChannel, &s.channels, all)
	if err == nil {
		s.checked = r.Checked
	}
	return err
}

// Check asks the channel what it offers. If it fails, what is offered stays what it was.
func (u *Updater) Check(ctx context.Context) (*ChannelStatus, error) {
	if u.o.Channel == nil {
		return nil, errorf(NameBadState, "no channel is configured: set name and url of [channel] in updaterd.toml")
	}
	// One at a time: of two answers that overtake each other, one would be a replay.
	select {
	case u.checking <- struct{}{}:
		defer func() { <-u.checking }()
	case <-ctx.Done():
		return nil, &Error{Name: NameCancelled, Message: "request given up", Err: ctx.Err()}
	}
	m, err := u.o.Channel.Fetch(ctx)
	if asked := u.ask(context.WithoutCancel(ctx), func(context.Context) error {
		if err == nil {
			err = u.accept(m)
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.unchecked = ""
		if err != nil {
			u.unchecked = clip(err.Error())
		}
		return nil
	}); asked != nil {
		return nil, asked
	}
	if err != nil {
		u.o.Log.Warn("channel", "name", u.o.Channel.Name, "err", err)
		return nil, err
	}
	s := u.Snapshot().Channel
	if s.Freshness == Expired {
		u.o.Log.Warn("channel metadata have expired; somebody may be hiding releases", "name", s.Name, "serial", s.Serial, "expired", s.Expires)
	}
	return s, s.refused()
}

// accept records metadata that are no replay. The record is the commit point: before
// it, a power cut leaves the older serial and the older offer, after it the new ones,
// and metadata that were once acted on are never older than what is known.
func (u *Updater) accept(m *ChannelMetadata) error {
	name := u.o.Channel.Name
	switch was := u.store.channels.find(name); {
	case m.Serial < was.Serial:
		return errorf(NameReplayed, "the metadata of channel %s have serial %d, and serial %d was seen already: a replay, or a server that lags behind; publish the latest ones", name, m.Serial, was.Serial)
	case m.Serial == was.Serial && m.Digest != was.Digest:
		return errorf(NameReplayed, "the metadata of channel %s have serial %d as those seen before, and say something else: issue them again with a higher serial", name, m.Serial)
	}
	r := channelRecord{Channel: name, Serial: m.Serial, Digest: m.Digest, Issued: m.Issued.UTC(), Expires: m.Expires.UTC(), Checked: u.now(), Offer: m.Offer}
	return u.store.putChannel(r, func(err error) {
		u.alarm("The serial of channel %s could not be kept in %s: %v.", name, FromFloorStore, err)
	})
}

// channelStatus is nil without a channel. The time is looked at when it is shown.
func (u *Updater) channelStatus() *ChannelStatus {
	c := u.o.Channel
	if c == nil {
		return nil
	}
	r := u.store.channels.find(c.Name)
	s := &ChannelStatus{Name: c.Name, Ref: c.Ref, Serial: r.Serial, Issued: r.Issued, Expires: r.Expires, Checked: r.Checked, refuse: c.RefuseExpired}
	if r.Offer != nil && u.newer(r.Offer) {
		o := *r.Offer
		s.Offer = &o
	}
	return s
}

// newer reports whether a release is newer than what runs. Of a system that came
// with the device nothing is known but its label and its floor.
func (u *Updater) newer(o *Offer) bool {
	if runs := u.store.slots.sequence(u.booted); runs > 0 {
		return o.Sequence > runs
	}
	return o.Version != u.o.Version && o.Sequence >= u.effective().Sequence
}

// at is the status as it is now.
func (s *ChannelStatus) at(now time.Time, unchecked string) *ChannelStatus {
	c := *s
	c.Error = unchecked
	switch {
	case c.Serial == 0:
		c.Freshness = Never
	case now.Before(c.Expires):
		c.Freshness = Fresh
	default:
		c.Freshness = Expired
	}
	if c.refused() != nil {
		c.Offer = nil
	}
	return &c
}

// refused is the error for metadata past their end, if that is the policy.
func (s *ChannelStatus) refused() error {
	if !s.refuse || s.Freshness != Expired {
		return nil
	}
	return errorf(NameExpired, "the metadata of channel %s (serial %d) expired on %s: somebody may be hiding newer ones; if not, renew them", s.Name, s.Serial, s.Expires.Format(time.RFC3339))
}

// resolve turns no ref into what the channel offers, and the digest that it must have.
func (u *Updater) resolve(ref string) (where, pinned string, err error) {
	if ref != "" {
		return ref, "", nil
	}
	s := u.Snapshot().Channel
	switch {
	case s == nil:
		return "", "", errorf(NameBadArgument, "no bundle is given, and no channel is configured that could offer one")
	case s.refused() != nil:
		return "", "", s.refused()
	case s.Offer == nil:
		return "", "", errorf(NameNotOffered, "channel %s offers nothing newer than what runs (serial %d); check again, or give a bundle", s.Name, s.Serial)
	}
	return s.Offer.Ref, s.Offer.Digest, nil
}

// foresee has watchers look again when the metadata expire. A clock that is set
// meanwhile is noticed at the next change.
func (u *Updater) foresee(s *ChannelStatus, floor time.Time) {
	if u.stale != nil {
		u.stale.Stop()
		u.stale = nil
	}
	if s == nil {
		return
	}
	if left := s.Expires.Sub(later(time.Now(), floor)); left > 0 {
		u.stale = time.AfterFunc(left, u.notify)
	}
}
