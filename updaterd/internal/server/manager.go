// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"slices"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// managerObject has the methods of org.updaterd.Updater1.Manager.
type managerObject Server

func (m *managerObject) Inspect(msg dbus.Message, ref string, options values) (values, *dbus.Error) {
	s := (*Server)(m)
	ctx, done, err := s.request(&msg, actionInspect)
	if err != nil {
		return nil, busError(err)
	}
	defer done()
	opt, err := installOptions(ref, options)
	if err != nil {
		return nil, busError(err)
	}
	var release *update.Release
	err = s.look(ctx, "inspect "+ref, func(ctx context.Context) (err error) {
		release, err = s.updater.Inspect(ctx, ref, opt)
		return err
	})
	if err != nil {
		return nil, busError(err)
	}
	return releaseValues(release), nil
}

func (m *managerObject) Check(msg dbus.Message) (values, *dbus.Error) {
	s := (*Server)(m)
	ctx, done, err := s.request(&msg, actionInspect)
	if err != nil {
		return nil, busError(err)
	}
	defer done()
	var status *update.ChannelStatus
	err = s.look(ctx, "check the channel", func(ctx context.Context) (err error) {
		status, err = s.updater.Check(ctx)
		return err
	})
	if err != nil {
		return nil, busError(err)
	}
	return channelValues(status), nil
}

// look bounds what strangers can have us ask the network at the same time.
func (s *Server) look(ctx context.Context, what string, f func(context.Context) error) error {
	select {
	case s.inspect <- struct{}{}:
		defer func() { <-s.inspect }()
	default:
		return namedf(update.NameBusy, "%s: %d inspections are under way; ask again when one has ended", what, maxInspections)
	}
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	err := f(ctx)
	if err != nil && ctx.Err() == context.DeadlineExceeded {
		err = namedf(update.NameNetwork, "%s: no answer in %v: %v", what, inspectTimeout, err)
	}
	return err
}

func (m *managerObject) Install(msg dbus.Message, ref string, options values) (dbus.ObjectPath, *dbus.Error) {
	s := (*Server)(m)
	opt, badOptions := installOptions(ref, options)
	actions := []string{actionInstall}
	if opt.Retry {
		actions = append(actions, actionRetry)
	}
	if len(opt.Permit) > 0 {
		actions = append(actions, actionDowngrade)
	}
	if opt.Reboot {
		actions = append(actions, actionReboot)
	}
	ctx, done, err := s.request(&msg, actions...)
	if err != nil {
		return "", busError(err)
	}
	defer done()
	if badOptions != nil {
		return "", busError(badOptions)
	}
	id, err := s.updater.Install(ctx, ref, opt)
	s.log.Info("install requested", "ref", update.PublicRef(ref), "job", id, "error", err)
	if err != nil {
		return "", busError(err)
	}
	return jobPath(id), nil
}

func (m *managerObject) Activate(msg dbus.Message) *dbus.Error {
	return (*Server)(m).do(&msg, "activate", actionInstall, m.updater.Activate)
}

func (m *managerObject) Reboot(msg dbus.Message) *dbus.Error {
	return (*Server)(m).do(&msg, "reboot", actionReboot, m.updater.Reboot)
}

// do authorises and runs a request that has neither arguments nor an answer.
func (s *Server) do(msg *dbus.Message, what, action string, f func(context.Context) error) *dbus.Error {
	ctx, done, err := s.request(msg, action)
	if err != nil {
		return busError(err)
	}
	defer done()
	err = f(ctx)
	s.log.Info(what+" requested", "error", err)
	return busError(err)
}

func (m *managerObject) Mark(msg dbus.Message, verdict, slot string) (string, *dbus.Error) {
	s := (*Server)(m)
	action := s.markAction(verdict, slot)
	ctx, done, err := s.request(&msg, action)
	if err != nil {
		return "", busError(err)
	}
	defer done()
	// A trial may have begun while polkit asked for a password: the override
	// has a right of its own, so it is never had through the weaker one.
	if again := s.markAction(verdict, slot); again != action {
		if err := s.auth.check(ctx, &msg, again); err != nil {
			return "", busError(err)
		}
	}
	if verdict != "good" && verdict != "bad" {
		return "", busError(namedf(update.NameBadArgument, `mark slot %q: verdict %q is neither "good" nor "bad"`, slot, verdict))
	}
	which, err := resolveSlot(s.updater.Snapshot(), slot)
	if err != nil {
		return "", busError(err)
	}
	message, err := s.updater.Mark(ctx, verdict, which)
	s.log.Info("mark requested", "verdict", verdict, "slot", which, "error", err)
	return clean(message), busError(err)
}

// markAction is the right that a mark needs now: to call a system good whose
// checks have not passed is an override.
func (s *Server) markAction(verdict, slot string) string {
	snap := s.updater.Snapshot()
	trial := snap.Trial || snap.State == update.StateTrial
	which, err := resolveSlot(snap, slot)
	if verdict == "good" && trial && (err != nil || which == snap.Booted) {
		return actionOverrideTrial
	}
	return actionMark
}

// resolveSlot turns what a caller may say into a slot.
func resolveSlot(snap update.Snapshot, name string) (bootctl.Slot, error) {
	slot := bootctl.Slot(name)
	switch name {
	case "booted":
		slot = snap.Booted
	case "other":
		slot = snap.Booted.Other()
	default:
		if !slot.Valid() {
			return "", namedf(update.NameBadArgument, `slot %q is none of "booted", "other", "a" and "b"`, name)
		}
	}
	if !slot.Valid() {
		return "", namedf(update.NameBootedSlotUnproven, `slot %q: it is not known which slot this system runs from; say "a" or "b"`, name)
	}
	return slot, nil
}

// maxHistory bounds one answer of History.
const maxHistory = 1000

func (m *managerObject) History(limit uint32) ([]values, *dbus.Error) {
	s := (*Server)(m)
	_, done, err := s.begin()
	if err != nil {
		return nil, busError(err)
	}
	defer done()
	if limit == 0 || limit > maxHistory {
		limit = maxHistory
	}
	results, err := s.updater.History(int(limit))
	if err != nil {
		return nil, busError(err)
	}
	list := make([]values, 0, len(results))
	for i := range results {
		list = append(list, resultValues(&results[i]))
	}
	return list, nil
}

// installOptions reads the options of Inspect and Install. Unknown names are
// errors: an option that is silently ignored is a wish that is silently refused.
func installOptions(ref string, options values) (update.InstallOptions, error) {
	var opt update.InstallOptions
	if len(ref) > maxReference {
		return opt, namedf(update.NameBadArgument, "bundle reference has %d bytes; give an http(s) URL or an absolute path of at most %d", len(ref), maxReference)
	}
	var bad error
	flag := func(name string, v dbus.Variant) bool {
		b, ok := v.Value().(bool)
		if !ok {
			bad = namedf(update.NameBadArgument, "option %s: its type is %s, want a boolean (b)", name, v.Signature())
		}
		return b
	}
	for name, v := range options {
		switch name {
		case "activate":
			opt.KeepInstalled = !flag(name, v)
		case "reboot":
			opt.Reboot = flag(name, v)
		case "retry":
			opt.Retry = flag(name, v)
		case "mode":
			mode, ok := v.Value().(string)
			if !ok || !slices.Contains([]string{"auto", "store", "stream"}, mode) {
				bad = namedf(update.NameBadArgument, `option mode: %s is none of "auto", "store" and "stream"`, v)
			}
			opt.Mode = mode
		case "permit":
			b, ok := v.Value().([]byte)
			if !ok || len(b) == 0 || len(b) > update.MaxPermit {
				bad = namedf(update.NameBadArgument, "option permit: its type is %s and its length %d, want the bytes (ay) of a permit, at most %d", v.Signature(), len(b), update.MaxPermit)
			}
			opt.Permit = b
		default:
			bad = namedf(update.NameBadArgument, "option %q is not known; there are activate, reboot, mode, permit and retry", name)
		}
	}
	if bad == nil && opt.Reboot && opt.KeepInstalled {
		bad = namedf(update.NameBadArgument, "option reboot needs activate: a slot that is not primary is not what a reboot starts")
	}
	return opt, bad
}
