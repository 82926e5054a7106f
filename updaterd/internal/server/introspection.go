// SPDX-License-Identifier: Apache-2.0

package server

import (
	"encoding/xml"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
	"github.com/godbus/dbus/v5/prop"
)

// managerInterface describes managerObject; a test compares the two with each
// other and with the documented XML.
func managerInterface() introspect.Interface {
	return introspect.Interface{
		Name: ManagerInterface,
		Methods: []introspect.Method{
			{Name: "Inspect", Args: []introspect.Arg{in("ref", "s"), in("options", "a{sv}"), out("release", "a{sv}")}},
			{Name: "Install", Args: []introspect.Arg{in("ref", "s"), in("options", "a{sv}"), out("job", "o")}},
			{Name: "Check", Args: []introspect.Arg{out("channel", "a{sv}")}},
			{Name: "Activate"},
			{Name: "Reboot"},
			{Name: "Mark", Args: []introspect.Arg{in("verdict", "s"), in("slot", "s"), out("message", "s")}},
			{Name: "History", Args: []introspect.Arg{in("limit", "u"), out("results", "aa{sv}")}},
		},
		Signals: []introspect.Signal{
			{Name: "JobFinished", Args: []introspect.Arg{
				{Name: "job", Type: "o"}, {Name: "result", Type: "s"}, {Name: "error", Type: "s"}, {Name: "message", Type: "s"}}},
		},
		Properties: []introspect.Property{
			read("State", "s"), read("Version", "s"), read("Compatible", "s"), read("DeviceID", "s"), read("Groups", "as"),
			read("BootedSlot", "s"), read("PrimarySlot", "s"), read("TargetSlot", "s"), read("BadSlots", "as"),
			read("Trial", "b"), read("TriesLeft", "u"), read("Slots", "a{sa{sv}}"), read("Floor", "t"), read("FloorPlaces", "as"), read("TimeFloor", "t"),
			read("Job", "o"), read("LastResult", "a{sv}"), read("Problems", "as"),
			read("Channel", "a{sv}"),
		},
	}
}

// jobInterface describes jobObject.
func jobInterface() introspect.Interface {
	return introspect.Interface{
		Name:    JobInterface,
		Methods: []introspect.Method{{Name: "Cancel"}, {Name: "Pause"}, {Name: "Resume"}},
		Properties: []introspect.Property{
			read("Ref", "s"), read("Version", "s"), read("State", "s"), read("Stage", "s"),
			read("Done", "t"), read("Total", "t"), read("Fetched", "t"), read("Rate", "t"), read("TimeLeft", "t"),
			read("Paused", "b"), read("Result", "s"), read("Error", "s"), read("Message", "s"),
		},
	}
}

func in(name, signature string) introspect.Arg {
	return introspect.Arg{Name: name, Type: signature, Direction: "in"}
}

func out(name, signature string) introspect.Arg {
	return introspect.Arg{Name: name, Type: signature, Direction: "out"}
}

func read(name, signature string) introspect.Property {
	return introspect.Property{Name: name, Type: signature, Access: "read"}
}

// introspectObject has the one method of org.freedesktop.DBus.Introspectable.
type introspectObject Server

func (o *introspectObject) Introspect(msg dbus.Message) (string, *dbus.Error) {
	s := (*Server)(o)
	_, done, err := s.begin()
	if err != nil {
		return "", busError(err)
	}
	defer done()
	path := messagePath(&msg)
	node := introspect.Node{Interfaces: []introspect.Interface{introspect.IntrospectData, introspect.PeerData, prop.IntrospectData}}
	switch path {
	case ManagerPath:
		node.Interfaces = append(node.Interfaces, managerInterface())
		node.Children = []introspect.Node{{Name: "job"}}
	case jobRoot:
		node.Interfaces = node.Interfaces[:1:1]
		node.Children = s.jobNodes()
	default:
		if _, e := s.job(path); e != nil {
			return "", e
		}
		node.Interfaces = append(node.Interfaces, jobInterface())
	}
	b, err := xml.Marshal(node)
	if err != nil {
		return "", busError(err)
	}
	return strings.TrimSpace(introspect.IntrospectDeclarationString) + "\n" + string(b), nil
}

// jobNodes names the jobs that can be asked about.
func (s *Server) jobNodes() []introspect.Node {
	snap := s.updater.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	var nodes []introspect.Node
	add := func(id uint64) {
		name := strings.TrimPrefix(string(jobPath(id)), string(jobRoot)+"/")
		if !slices.ContainsFunc(nodes, func(n introspect.Node) bool { return n.Name == name }) {
			nodes = append(nodes, introspect.Node{Name: name})
		}
	}
	for _, j := range s.jobs {
		add(j.status.ID)
	}
	if snap.Job != nil {
		add(snap.Job.ID)
	}
	return nodes
}
