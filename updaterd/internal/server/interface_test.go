// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"
	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var rewrite = flag.Bool("update", false, "write the generated part of docs/dbus.md")

const data = "../../data/"

// signature is an interface as "name: signature" lines, in order.
func signature(i introspect.Interface) []string {
	var lines []string
	args := func(list []introspect.Arg) string {
		var s []string
		for _, a := range list {
			s = append(s, strings.TrimSpace(a.Direction+" "+a.Name+" "+a.Type))
		}
		return strings.Join(s, ", ")
	}
	for _, m := range i.Methods {
		lines = append(lines, "method "+m.Name+"("+args(m.Args)+")")
	}
	for _, s := range i.Signals {
		lines = append(lines, "signal "+s.Name+"("+args(s.Args)+")")
	}
	for _, p := range i.Properties {
		lines = append(lines, "property "+p.Name+" "+p.Type+" "+p.Access)
	}
	slices.Sort(lines)
	return lines
}

func pick(t *testing.T, list []introspect.Interface, name string) introspect.Interface {
	t.Helper()
	for _, i := range list {
		if i.Name == name {
			return i
		}
	}
	t.Fatalf("there is no interface %s", name)
	return introspect.Interface{}
}

func documented(t *testing.T) []introspect.Interface {
	t.Helper()
	b, err := os.ReadFile(data + "org.updaterd.Updater1.xml")
	if err != nil {
		t.Fatal(err)
	}
	var node introspect.Node
	if err := xml.Unmarshal(b, &node); err != nil {
		t.Fatal(err)
	}
	return node.Interfaces
}

func TestTheDocumentedInterfaceIsTheRunningOne(t *testing.T) {
	fake, _, address := serve(t, 0)
	fake.Job(func(j *update.JobStatus) { j.ID = 4 })
	conn := servertest.Connect(t, address)
	for path, name := range map[dbus.ObjectPath]string{ManagerPath: ManagerInterface, jobPath(4): JobInterface} {
		node, err := introspect.Call(conn.Object(Name, path))
		if err != nil {
			t.Fatal(err)
		}
		running := pick(t, node.Interfaces, name)
		if diff := cmp.Diff(signature(pick(t, documented(t), name)), signature(running)); diff != "" {
			t.Errorf("%s, documented and running:\n%s", name, diff)
		}
		// What is said to be there is there, with the type that is said.
		var all values
		if err := conn.Object(Name, path).Call("org.freedesktop.DBus.Properties.GetAll", 0, name).Store(&all); err != nil {
			t.Fatal(err)
		}
		var got introspect.Interface
		for k, v := range all {
			got.Properties = append(got.Properties, read(k, v.Signature().String()))
		}
		if diff := cmp.Diff(signature(introspect.Interface{Properties: running.Properties}), signature(got)); diff != "" {
			t.Errorf("%s, properties announced and given:\n%s", name, diff)
		}
	}
	for path, child := range map[dbus.ObjectPath]string{ManagerPath: "job", jobRoot: "4", "/org/updaterd": "Updater1"} {
		node, err := introspect.Call(conn.Object(Name, path))
		if err != nil || len(node.Children) != 1 || node.Children[0].Name != child {
			t.Errorf("children of %s: %v, %v", path, node, err)
		}
	}
	if _, err := introspect.Call(conn.Object(Name, jobPath(5))); err == nil {
		t.Error("a job that is not there can be introspected")
	}
}

func TestTheMethodsAreTheOnesAnnounced(t *testing.T) {
	for _, tt := range []struct {
		object any
		said   introspect.Interface
	}{{(*managerObject)(nil), managerInterface()}, {(*jobObject)(nil), jobInterface()}} {
		for i := range tt.said.Methods {
			for j := range tt.said.Methods[i].Args {
				tt.said.Methods[i].Args[j].Name = ""
			}
		}
		got := introspect.Interface{Methods: introspect.Methods(tt.object)}
		if diff := cmp.Diff(signature(introspect.Interface{Methods: tt.said.Methods}), signature(got)); diff != "" {
			t.Errorf("announced and there:\n%s", diff)
		}
	}
}

// policyBus is a bus with the shipped policy, in which the user who runs the
// test has root's place if he is not root.
func policyBus(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(data + "org.updaterd.Updater1.conf")
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.ReplaceAll(b, []byte(`user="root"`), []byte(`user="`+me.Username+`"`))
	path := filepath.Join(t.TempDir(), "policy.conf")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return servertest.Bus(t, path)
}

// busctl runs busctl as the user who runs the test, or as nobody.
func busctl(t *testing.T, address string, nobody bool, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("busctl", append([]string{"--address=" + address}, args...)...)
	if nobody && os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// The real bus, the real policy, real users: nothing in this test is pretended
// but the updater. Who is not root cannot be root, so the part that is allowed
// is only seen by a test that runs as root; what is refused is always seen.
func TestBusctl(t *testing.T) {
	address := policyBus(t)
	fake := servertest.NewUpdater()
	s, err := Listen(Options{Updater: fake, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	call := func(nobody bool, args ...string) (string, error) {
		return busctl(t, address, nobody, append([]string{"call", Name, string(ManagerPath), ManagerInterface}, args...)...)
	}
	for _, args := range [][]string{
		{"Install", "sa{sv}", "/x.upb", "0"}, {"Inspect", "sa{sv}", "/x.upb", "0"}, {"Reboot"}, {"Activate"}, {"Mark", "ss", "good", "b"},
	} {
		out, err := call(true, args...)
		if err == nil || !strings.Contains(out, "only root may do this") {
			t.Errorf("%v by nobody: %q, %v", args, out, err)
		}
	}
	if calls := fake.Calls(); len(calls) != 0 {
		t.Errorf("the updater heard of %v", calls)
	}
	out, err := busctl(t, address, true, "get-property", Name, string(ManagerPath), ManagerInterface, "BootedSlot")
	if err != nil || out != `s "a"` {
		t.Errorf("get-property: %q, %v", out, err)
	}
	out, err = busctl(t, address, true, "introspect", Name, string(ManagerPath))
	if err != nil || !strings.Contains(out, ".JobFinished") {
		t.Errorf("introspect: %q, %v", out, err)
	}
	if out, err = call(true, "History", "u", "5"); err != nil || out != "aa{sv} 0" {
		t.Errorf("History: %q, %v", out, err)
	}
	out, err = call(false, "Install", "sa{sv}", "/x.upb", "1", "activate", "b", "false")
	if root := os.Getuid() == 0; root && (err != nil || out != `o "/org/updaterd/Updater1/job/1"`) || !root && err == nil {
		t.Errorf("Install by uid %d: %q, %v", os.Getuid(), out, err)
	}
}

func TestOnlyRootMayBeUpdaterd(t *testing.T) {
	b, err := os.ReadFile(data + "org.updaterd.Updater1.conf")
	if err != nil {
		t.Fatal(err)
	}
	// On this bus only a user who does not run the test may own the name.
	if os.Getuid() == 0 {
		b = bytes.ReplaceAll(b, []byte(`user="root"`), []byte(`user="nobody"`))
	}
	path := filepath.Join(t.TempDir(), "policy.conf")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Options{Updater: servertest.NewUpdater(), Address: servertest.Bus(t, path)}); err == nil || !strings.Contains(err.Error(), "policy") {
		t.Errorf("%v", err)
	}
}

func TestEachActionIsDeclared(t *testing.T) {
	b, err := os.ReadFile(data + "org.updaterd.policy")
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Actions []struct {
			ID  string `xml:"id,attr"`
			Any string `xml:"defaults>allow_any"`
		} `xml:"action"`
	}
	if err := xml.Unmarshal(b, &policy); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range policy.Actions {
		got = append(got, a.ID)
		if a.Any != "auth_admin" {
			t.Errorf("%s is allowed to anybody with %q", a.ID, a.Any)
		}
	}
	want := []string{actionInspect, actionInstall, actionRetry, actionDowngrade, actionMark, actionOverrideTrial, actionControlJob, actionReboot}
	if !slices.Equal(got, want) {
		t.Errorf("declared %v\nasked    %v", got, want)
	}
}

const (
	beginMark = "<!-- begin: made of org.updaterd.Updater1.xml by go generate -->\n"
	endMark   = "<!-- end -->\n"
)

// reference is the XML with its comments as Markdown.
func reference(t *testing.T) string {
	t.Helper()
	f, err := os.Open(data + "org.updaterd.Updater1.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b strings.Builder
	var comment string
	about := func(what, name string) {
		if comment == "" {
			t.Errorf("%s %s has no comment", what, name)
		}
		comment = ""
	}
	d := xml.NewDecoder(f)
	for {
		token, err := d.Token()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.Comment:
			comment = strings.Join(strings.Fields(string(e)), " ")
		case xml.StartElement:
			attr := map[string]string{}
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			text := comment
			switch e.Name.Local {
			case "interface":
				fmt.Fprintf(&b, "\n### %s\n\n%s\n\n", attr["name"], text)
			case "method", "signal":
				var m introspect.Method
				if err := d.DecodeElement(&m, &e); err != nil {
					t.Fatal(err)
				}
				var in, out []string
				for _, a := range m.Args {
					if s := a.Type + " " + a.Name; a.Direction == "out" {
						out = append(out, s)
					} else {
						in = append(in, s)
					}
				}
				result := ""
				if len(out) > 0 {
					result = " → " + strings.Join(out, ", ")
				}
				fmt.Fprintf(&b, "- %s `%s(%s)%s`: %s\n", e.Name.Local, m.Name, strings.Join(in, ", "), result, text)
			case "property":
				fmt.Fprintf(&b, "- property `%s` (`%s`): %s\n", attr["name"], attr["type"], text)
			default:
				continue
			}
			about(e.Name.Local, attr["name"])
		}
	}
}

func TestGeneratedReference(t *testing.T) {
	const path = "../../../docs/dbus.md"
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(b), beginMark)
	_, tail, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks %q and %q", path, beginMark, endMark)
	}
	want := head + beginMark + reference(t) + "\n" + endMark + tail
	if *rewrite {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(b) {
		t.Errorf("%s is not what the XML says; run: go generate ./updaterd/internal/server", path)
	}
}
