// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// served is a channel of which the test says what it has.
type served struct {
	metadata *ChannelMetadata
	err      error
	fetches  int
	hold     chan struct{} // not nil: an answer waits for it
}

func (s *served) fetch(ctx context.Context) (*ChannelMetadata, error) {
	s.fetches++
	m, err := s.metadata, s.err
	if s.hold != nil {
		<-s.hold
	}
	return m, err
}

// configure has a device look at the channel.
func (s *served) configure(refuse bool) func(*Options, *engine) {
	return func(o *Options, _ *engine) {
		o.Channel = &Channel{Name: "stable", Ref: "https://updates.example/stable.channel", RefuseExpired: refuse, Fetch: s.fetch}
	}
}

// edition is metadata that hold for ten days and offer what the engine has.
func edition(serial uint64) *ChannelMetadata {
	now := time.Now().UTC().Truncate(time.Second)
	return &ChannelMetadata{Serial: serial, Digest: fmt.Sprintf("sha256:edition %d", serial), Issued: now, Expires: now.AddDate(0, 0, 10),
		Offer: &Offer{Ref: ref, Digest: "sha256:2", Version: "2", Sequence: 20, Size: 5}}
}

func TestReplayedChannelMetadata(t *testing.T) {
	bubble(t, "replayed channel metadata", func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		l := start(t, w, s.configure(false))
		if c := l.Snapshot().Channel; c.Freshness != Never || c.Offer != nil {
			t.Errorf("before the first check: %+v", c)
		}
		_, err := l.Install(l.ctx, "", InstallOptions{})
		wantName(t, "Install before the first check", err, NameNotOffered)
		old := edition(6)
		old.Offer = &Offer{Ref: ref, Digest: "sha256:old", Version: "1.9", Sequence: 19}
		c, err := l.Check(l.ctx)
		if err != nil || c.Serial != 7 || c.Freshness != Fresh || c.Offer == nil || c.Offer.Version != "2" || c.Error != "" {
			t.Fatalf("%+v, %v", c, err)
		}
		refuse := func(l *life, why string, m *ChannelMetadata, say ...string) {
			t.Helper()
			before, steps := *l.Snapshot().Channel, w.steps
			s.metadata = m
			_, err := l.Check(l.ctx)
			wantName(t, why, err, NameReplayed)
			for _, text := range say {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("%s: %v does not say %q", why, err, text)
				}
			}
			after := *l.Snapshot().Channel
			if after.Error == "" || after.Serial != before.Serial || *after.Offer != *before.Offer || !after.Checked.Equal(before.Checked) || w.steps != steps {
				t.Errorf("%s: changed %+v to %+v, %d steps", why, before, after, w.steps-steps)
			}
		}
		refuse(l, "a lower serial", old, "serial 6", "serial 7")
		other := edition(7)
		other.Digest = "sha256:another 7"
		refuse(l, "the same serial with another content", other, "serial 7")
		l.end()

		// The device knows that after a restart, too.
		time.Sleep(time.Hour)
		l = start(t, w, s.configure(false))
		if c := l.Snapshot().Channel; c.Serial != 7 || c.Offer == nil || c.Freshness != Fresh {
			t.Errorf("after a restart: %+v", c)
		}
		refuse(l, "a lower serial after a restart", old, "serial 6")
		same := edition(7)
		s.metadata = same
		if c, err := l.Check(l.ctx); err != nil || c.Error != "" || !c.Checked.Equal(time.Now()) {
			t.Errorf("the same again: %+v, %v", c, err)
		}
		l.end()

		// In another channel serials begin anew, and the old ones are not forgotten.
		l = start(t, w, func(o *Options, e *engine) { s.configure(false)(o, e); o.Channel.Name = "beta" })
		s.metadata = edition(2)
		if c, err := l.Check(l.ctx); err != nil || c.Serial != 2 {
			t.Errorf("in another channel: %+v, %v", c, err)
		}
		l.end()
		l = start(t, w, s.configure(false))
		defer l.end()
		refuse(l, "back in the first channel", old, "serial 6")
	})
}

func TestFrozenChannel(t *testing.T) {
	for name, refuse := range map[string]bool{"frozen channel (expired metadata)": true, "frozen channel, and the policy is to warn": false} {
		bubble(t, name, func(t *testing.T) {
			w, s := newWorld(), &served{metadata: edition(7)}
			l := start(t, w, s.configure(refuse))
			defer l.end()
			if _, err := l.Check(l.ctx); err != nil {
				t.Fatal(err)
			}
			changes := l.Watch(l.ctx)
			synctest.Wait()
			for len(changes) > 0 {
				<-changes
			}
			// That they end is announced without a check.
			began := time.Now()
			<-changes
			if went := time.Since(began); went != 10*24*time.Hour {
				t.Errorf("announced after %v", went)
			}
			frozen := func() {
				t.Helper()
				c := l.Snapshot().Channel
				if c.Freshness != Expired || (c.Offer == nil) != refuse {
					t.Errorf("%+v", c)
				}
				if problems := strings.Join(l.Snapshot().Problems, "\n"); strings.Contains(problems, "expired on 2000-01-11") != refuse {
					t.Errorf("problems: %s", problems)
				}
				_, err := l.Inspect(l.ctx, "", InstallOptions{})
				if refuse {
					wantName(t, "Inspect", err, NameExpired)
				} else if err != nil {
					t.Errorf("Inspect: %v", err)
				}
			}
			frozen()
			// The same again, from a server that answers.
			time.Sleep(time.Hour)
			c, err := l.Check(l.ctx)
			if refuse {
				wantName(t, "Check", err, NameExpired)
			} else if err != nil || c.Freshness != Expired {
				t.Errorf("Check: %+v, %v", c, err)
			}
			if got := l.Snapshot().Channel.Checked; !got.Equal(time.Now()) {
				t.Errorf("last answer at %v, now it is %v", got, time.Now())
			}
			frozen()
			// Renewed.
			s.metadata = edition(8)
			if c, err := l.Check(l.ctx); err != nil || c.Freshness != Fresh || c.Offer == nil {
				t.Errorf("renewed: %+v, %v", c, err)
			}
			if p := l.Snapshot().Problems; len(p) > 0 {
				t.Errorf("renewed: %q", p)
			}
		})
	}
}

// Without a clock, the time floor shows that metadata have expired.
func TestFrozenChannelWithoutAClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		l := start(t, w, func(o *Options, e *engine) {
			s.configure(true)(o, e)
			o.ImageTime = time.Now().AddDate(0, 0, 11)
		})
		defer l.end()
		_, err := l.Check(l.ctx)
		wantName(t, "Check", err, NameExpired)
	})
}

func TestInstallPinsWhatTheMetadataName(t *testing.T) {
	bubble(t, "mix: bundle other than the metadata names", func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		s.metadata.Offer.Digest = "sha256:another"
		l := start(t, w, s.configure(false))
		defer l.end()
		if _, err := l.Check(l.ctx); err != nil {
			t.Fatal(err)
		}
		before := w.steps
		_, err := l.Inspect(l.ctx, "", InstallOptions{})
		wantName(t, "Inspect", err, NameNotOffered)
		_, err = l.Install(l.ctx, "", InstallOptions{})
		wantName(t, "Install", err, NameNotOffered)
		if err == nil || !strings.Contains(err.Error(), "sha256:2") || !strings.Contains(err.Error(), "sha256:another") {
			t.Errorf("the error does not say both digests: %v", err)
		}
		if w.steps != before || l.Snapshot().State != StateIdle {
			t.Errorf("Install changed something:\n%s", w)
		}
	})
	bubble(t, "the one that they name", func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		l := start(t, w, s.configure(false))
		if _, err := l.Check(l.ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Install(l.ctx, "", InstallOptions{Reboot: true}); err != nil {
			t.Fatal(err)
		}
		l.reach(StatePendingReboot)
		l.end()
		l = start(t, w, s.configure(false))
		defer l.end()
		if snap := l.reach(StateIdle); snap.Booted != "b" || snap.Last.Outcome != Success {
			t.Fatalf("%+v", snap.Last)
		}
		// What runs is not offered again, nor what is older than it.
		_, err := l.Install(l.ctx, "", InstallOptions{})
		wantName(t, "Install again", err, NameNotOffered)
		for sequence, offered := range map[uint64]bool{19: false, 20: false, 21: true} {
			s.metadata = edition(sequence)
			s.metadata.Offer.Sequence, s.metadata.Offer.Version = sequence, "other"
			if c := (channels{}).with(channelRecord{Channel: "stable", Offer: s.metadata.Offer}).find("stable"); l.newer(c.Offer) != offered {
				t.Errorf("sequence %d after 20: offered is %v", sequence, !offered)
			}
		}
	})
}

// Of a system that came with the device no sequence is known: what has its label,
// or is below its floor, is not newer.
func TestFactorySystemAndTheChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(), &served{}
		l := start(t, w, func(o *Options, e *engine) { s.configure(false)(o, e); o.ImageFloor = 15 })
		defer l.end()
		for _, tc := range []struct {
			offer   *Offer
			offered bool
		}{
			{nil, false}, {&Offer{Version: "1", Sequence: 20}, false}, {&Offer{Version: "0.9", Sequence: 14}, false},
			{&Offer{Version: "2", Sequence: 15}, true},
		} {
			s.metadata = edition(uint64(s.fetches) + 1)
			s.metadata.Offer = tc.offer
			if c, err := l.Check(l.ctx); err != nil || (c.Offer != nil) != tc.offered {
				t.Errorf("%+v: %+v, %v", tc.offer, c.Offer, err)
			}
		}
	})
}

// A check that fails is shown, and takes nothing back.
func TestCheckFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		l := start(t, w, s.configure(false))
		defer l.end()
		if _, err := l.Check(l.ctx); err != nil {
			t.Fatal(err)
		}
		s.err = errorf(NameNetwork, "the server is away")
		_, err := l.Check(l.ctx)
		wantName(t, "Check", err, NameNetwork)
		if c := l.Snapshot().Channel; c.Error != "the server is away" || c.Offer == nil || c.Freshness != Fresh {
			t.Errorf("%+v", c)
		}
		s.err = nil
		if c, err := l.Check(l.ctx); err != nil || c.Error != "" {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// Of two answers that overtake each other none is a replay: checks wait for each other.
func TestChecksDoNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7), hold: make(chan struct{})}
		l := start(t, w, s.configure(false))
		defer l.end()
		errs := make(chan error, 2)
		check := func() { _, err := l.Check(l.ctx); errs <- err }
		go check()
		synctest.Wait()
		s.metadata = edition(8)
		go check()
		synctest.Wait()
		if s.fetches != 1 {
			t.Errorf("%d checks at a time", s.fetches)
		}
		close(s.hold)
		if err := errors.Join(<-errs, <-errs); err != nil || l.Snapshot().Channel.Serial != 8 {
			t.Errorf("%v, serial %d", err, l.Snapshot().Channel.Serial)
		}
		// Who waits for one that hangs may give up.
		s.hold = make(chan struct{})
		go check()
		synctest.Wait()
		ctx, cancel := context.WithCancel(l.ctx)
		cancel()
		_, err := l.Check(ctx)
		wantName(t, "Check", err, NameCancelled)
		close(s.hold)
		<-errs
	})
}

func TestNoChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, newWorld(), nil)
		defer l.end()
		_, err := l.Check(l.ctx)
		wantName(t, "Check", err, NameBadState)
		_, err = l.Install(l.ctx, "", InstallOptions{})
		wantName(t, "Install", err, NameBadArgument)
		if l.Snapshot().Channel != nil {
			t.Error("there is a channel")
		}
	})
}

// The record is the commit point: a cut before it leaves the old serial and the old
// offer, and a cut after it the new ones. In neither case is an offer known whose
// serial is not.
func TestPowerCutAtTheRecordOfTheChannel(t *testing.T) {
	for _, cut := range []bool{true, false} {
		bubble(t, fmt.Sprint("cut before the record: ", cut), func(t *testing.T) {
			w, s := newWorld(), &served{metadata: edition(7)}
			l := start(t, w, s.configure(false))
			if _, err := l.Check(l.ctx); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			s.metadata = edition(8)
			s.metadata.Offer = &Offer{Ref: ref, Digest: "sha256:3", Version: "3", Sequence: 30}
			if cut {
				w.cutAt = []int{w.steps + 1}
			}
			_, err := l.Check(l.ctx)
			if (err != nil) != cut {
				t.Errorf("Check: %v", err)
			}
			if c := l.Snapshot().Channel; cut && (c.Serial != 7 || c.Offer.Version != "2") {
				t.Errorf("offered although it is not on record: %+v", c)
			}
			l.end()
			l = start(t, w, s.configure(false))
			defer l.end()
			serial, version := uint64(8), "3"
			if cut {
				serial, version = 7, "2"
			}
			c := l.Snapshot().Channel
			if c.Serial != serial || c.Offer == nil || c.Offer.Version != version {
				t.Errorf("after the cut: %+v; want serial %d", c, serial)
			}
			if c, err := l.Check(l.ctx); err != nil || c.Serial != 8 || c.Offer.Version != "3" {
				t.Errorf("and once it is checked again: %+v, %v", c, err)
			}
		})
	}
}

// With a second store, a data partition that is wiped does not let a replay pass; nor
// does a power cut between the two, and a second store that fails holds nothing up.
func TestReplayAfterTheDataPartitionIsWiped(t *testing.T) {
	bubble(t, "wiped", func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		w.second = map[string][]byte{}
		l := start(t, w, s.configure(false))
		if _, err := l.Check(l.ctx); err != nil {
			t.Fatal(err)
		}
		// The second store is not written for nothing.
		time.Sleep(time.Hour)
		before := string(w.second[fileChannel])
		if _, err := l.Check(l.ctx); err != nil || string(w.second[fileChannel]) != before || before == "" {
			t.Errorf("%v: %s", err, w.second[fileChannel])
		}
		l.end()
		delete(w.data, fileChannel)
		l = start(t, w, s.configure(false))
		if c := l.Snapshot().Channel; c.Serial != 7 || c.Offer == nil {
			t.Errorf("%+v", c)
		}
		s.metadata = edition(6)
		_, err := l.Check(l.ctx)
		wantName(t, "Check", err, NameReplayed)
		// A cut between the two stores.
		s.metadata = edition(8)
		w.cutAt = []int{w.steps + 2}
		if _, err := l.Check(l.ctx); err == nil || l.Snapshot().Channel.Serial != 7 {
			t.Errorf("%v, %+v", err, l.Snapshot().Channel)
		}
		l.end()
		l = start(t, w, s.configure(false))
		defer l.end()
		if c := l.Snapshot().Channel; c.Serial != 8 {
			t.Errorf("after the cut: %+v", c)
		}
	})
	bubble(t, "second store fails", func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		w.second = map[string][]byte{}
		l := start(t, w, s.configure(false))
		defer l.end()
		l.Updater.store.second = brokenStore{}
		if c, err := l.Check(l.ctx); err != nil || c.Serial != 7 {
			t.Errorf("%+v, %v", c, err)
		}
		if p := strings.Join(l.Snapshot().Problems, " "); !strings.Contains(p, "serial of channel stable could not be kept in floor_store") {
			t.Errorf("problems: %s", p)
		}
	})
}

// A check that finds nothing new is written down now and then, not each time.
func TestChecksDoNotWearTheFlash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(), &served{metadata: edition(7)}
		l := start(t, w, s.configure(false))
		defer l.end()
		before := w.steps
		for range 130 {
			if c, err := l.Check(l.ctx); err != nil || !c.Checked.Equal(time.Now()) {
				t.Fatalf("%+v, %v", c, err)
			}
			time.Sleep(time.Minute)
		}
		if n := w.steps - before; n != 3 {
			t.Errorf("%d writes in 130 minutes, want 3", n)
		}
		// A new serial is written at once.
		s.metadata, before = edition(8), w.steps
		if _, err := l.Check(l.ctx); err != nil || w.steps != before+1 {
			t.Errorf("%v, %d writes", err, w.steps-before)
		}
	})
}

func TestChannelsAreBounded(t *testing.T) {
	var c channels
	for i := range 2 * maxChannels {
		c = c.with(channelRecord{Channel: fmt.Sprint(i), Serial: uint64(i)})
		c = c.with(channelRecord{Channel: "stable", Serial: 7})
	}
	if len(c.Known) != maxChannels || c.find("stable").Serial != 7 || c.find("0").Serial != 0 || c.find(fmt.Sprint(2*maxChannels-1)).Serial == 0 {
		t.Errorf("%+v", c)
	}
}
