// SPDX-License-Identifier: Apache-2.0

package server

import (
	"reflect"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const propertiesChanged = "org.freedesktop.DBus.Properties.PropertiesChanged"

// propertiesObject has the methods of org.freedesktop.DBus.Properties, for the
// manager and for every job. Reading needs no right, and gives what is now,
// which may be newer than the last signal.
//
// godbus has a package for this; it sends one signal for each property, where
// this sends one for all that changed together.
type propertiesObject Server

func (o *propertiesObject) Get(msg dbus.Message, iface, name string) (dbus.Variant, *dbus.Error) {
	all, err := o.GetAll(msg, iface)
	if err != nil {
		return dbus.Variant{}, err
	}
	v, ok := all[name]
	if !ok {
		return dbus.Variant{}, unknown("UnknownProperty", "%s has no property %q", iface, name)
	}
	return v, nil
}

func (o *propertiesObject) GetAll(msg dbus.Message, iface string) (values, *dbus.Error) {
	s := (*Server)(o)
	_, done, err := s.begin()
	if err != nil {
		return nil, busError(err)
	}
	defer done()
	path := messagePath(&msg)
	if path == ManagerPath {
		switch iface {
		case ManagerInterface:
			return managerValues(s.updater.Snapshot()), nil
		case "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Peer":
			return values{}, nil
		}
		return nil, unknown("UnknownInterface", "%s has no interface %q", path, iface)
	}
	status, e := s.job(path)
	if e != nil {
		return nil, e
	}
	switch iface {
	case JobInterface:
		return jobValues(status), nil
	case "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.Peer":
		return values{}, nil
	}
	return nil, unknown("UnknownInterface", "%s has no interface %q", path, iface)
}

func (o *propertiesObject) Set(msg dbus.Message, iface, name string, _ dbus.Variant) *dbus.Error {
	if _, err := o.Get(msg, iface, name); err != nil {
		return err
	}
	return unknown("PropertyReadOnly", "property %s of %s can only be read", name, iface)
}

// publish announces what has changed since the last time. If all that changed
// is progress and it is too early to say so, it returns how long to wait.
func (s *Server) publish(now time.Time) time.Duration {
	snap := s.updater.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.note(snap.Job)
	s.supersede(snap)
	var wait time.Duration
	for _, j := range s.jobs {
		next := jobValues(&j.status)
		changed := changes(j.shown, next)
		if j == current && onlyProgress(changed) {
			if wait = s.interval - now.Sub(s.progress); wait > 0 {
				continue
			}
			s.progress = now
		}
		s.emit(jobPath(j.status.ID), JobInterface, changed)
		j.shown = next
	}
	next := managerValues(snap)
	s.emit(ManagerPath, ManagerInterface, changes(s.manager, next))
	s.manager = next
	for _, j := range s.jobs {
		if j.status.Finished && !j.announced {
			j.announced = true
			s.finished(&j.status)
		}
	}
	return max(wait, 0)
}

func (s *Server) emit(path dbus.ObjectPath, iface string, changed values) {
	if len(changed) == 0 {
		return
	}
	if err := s.conn.Emit(path, propertiesChanged, iface, changed, []string{}); err != nil {
		s.log.Warn("announce properties", "path", path, "error", err)
	}
}

func (s *Server) finished(j *update.JobStatus) {
	err := s.conn.Emit(ManagerPath, ManagerInterface+".JobFinished",
		jobPath(j.ID), clean(string(j.Result.Outcome)), clean(j.Result.Error), clean(j.Result.Message))
	if err != nil {
		s.log.Warn("announce the end of a job", "job", j.ID, "error", err)
	}
}

// changes is what next has that before did not have like this.
func changes(before, next values) values {
	changed := values{}
	for name, v := range next {
		if old, ok := before[name]; !ok || !reflect.DeepEqual(old.Value(), v.Value()) {
			changed[name] = v
		}
	}
	return changed
}

// onlyProgress reports whether a change can wait for the next one.
func onlyProgress(changed values) bool {
	for name := range changed {
		switch name {
		case "Done", "Fetched", "Rate", "TimeLeft":
		default:
			return false
		}
	}
	return len(changed) > 0
}
