// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"github.com/updaterd/updaterd/updaterd/client"
	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var _ Updater = (*update.Updater)(nil)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server on a bus of its own. Every caller is taken for uid.
func serve(t *testing.T, uid uint32) (*servertest.Updater, *Server, string) {
	t.Helper()
	return serveKnowing(t, func(context.Context, string) (uint32, error) { return uid, nil })
}

func serveKnowing(t *testing.T, userID func(context.Context, string) (uint32, error)) (*servertest.Updater, *Server, string) {
	t.Helper()
	address := servertest.Bus(t)
	fake := servertest.NewUpdater()
	s, err := listen(Options{Updater: fake, Address: address, ProgressInterval: 100 * time.Millisecond}, userID)
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	return fake, s, address
}

// run runs a server until the test ends.
func run(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func manager(t *testing.T, address string) dbus.BusObject {
	return servertest.Connect(t, address).Object(Name, ManagerPath)
}

func errorName(err error) string {
	var e dbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return ""
}

func TestNamesAreTheClients(t *testing.T) {
	var want []string
	for _, n := range client.Names() {
		want = append(want, string(n))
	}
	if !slices.Equal(names, want) {
		t.Errorf("server has %v\nclient has %v", names, want)
	}
}

func TestErrorsKeepTheirNames(t *testing.T) {
	for _, name := range names {
		e := busError(errors.Join(errors.New("outer"), &update.Error{Name: name, Message: "m"}))
		if e.Name != "org.updaterd.Error."+name {
			t.Errorf("%s leaves as %s", name, e.Name)
		}
	}
	for _, err := range []error{errors.New("plain"), &update.Error{Name: "Surprise", Message: "m"}} {
		if e := busError(err); e.Name != "org.updaterd.Error.Internal" {
			t.Errorf("%v leaves as %s", err, e.Name)
		}
	}
	if busError(nil) != nil {
		t.Error("no error became one")
	}
}

func TestRequestsReachTheUpdater(t *testing.T) {
	fake, _, address := serve(t, 0)
	m := manager(t, address)
	const mgr = ManagerInterface
	var path dbus.ObjectPath
	err := m.Call(mgr+".Install", 0, "/x.upb", values{
		"activate": dbus.MakeVariant(true), "mode": dbus.MakeVariant("stream"),
		"reboot": dbus.MakeVariant(true), "retry": dbus.MakeVariant(true)}).Store(&path)
	if err != nil || path != "/org/updaterd/Updater1/job/1" {
		t.Fatalf("Install: %q, %v", path, err)
	}
	var release values
	if err := m.Call(mgr+".Inspect", 0, "/x.upb", values{"activate": dbus.MakeVariant(false)}).Store(&release); err != nil {
		t.Fatal(err)
	}
	if release["Expected"].Value() != uint64(3<<20) || release["Version"].Value() != "2.0" {
		t.Errorf("Inspect: %v", release)
	}
	var message string
	if err := m.Call(mgr+".Mark", 0, "bad", "other").Store(&message); err != nil || message != "slot b is marked bad" {
		t.Errorf("Mark: %q, %v", message, err)
	}
	job := servertest.Connect(t, address).Object(Name, path)
	for _, method := range []string{"Pause", "Resume", "Cancel"} {
		if err := job.Call(JobInterface+"."+method, 0).Err; err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	for _, method := range []string{"Activate", "Reboot"} {
		if err := m.Call(mgr+"."+method, 0).Err; err != nil {
			t.Errorf("%s: %v", method, err)
		}
	}
	want := []string{
		"install /x.upb {Mode:stream KeepInstalled:false Reboot:true Retry:true Permit:[]}",
		"inspect /x.upb {Mode: KeepInstalled:true Reboot:false Retry:false Permit:[]}",
		"mark bad b", "pause 1", "resume 1", "cancel 1", "activate", "reboot",
	}
	if got := fake.Calls(); !slices.Equal(got, want) {
		t.Errorf("calls:\n%s", strings.Join(got, "\n"))
	}
}

func TestBadArguments(t *testing.T) {
	fake, _, address := serve(t, 0)
	m := manager(t, address)
	const bad = "org.updaterd.Error.BadArgument"
	for _, tt := range []struct {
		name, method string
		args         []any
		want         string
	}{
		{"unknown option", "Install", []any{"/x", values{"colour": dbus.MakeVariant("red")}}, bad},
		{"TLS verification turned off", "Install", []any{"https://x/", values{"tls-no-verify": dbus.MakeVariant(true)}}, bad},
		{"keyring of the caller's", "Install", []any{"https://x/", values{"keyring": dbus.MakeVariant("/tmp/keys")}}, bad},
		{"mode", "Install", []any{"/x", values{"mode": dbus.MakeVariant("fast")}}, bad},
		{"type of mode", "Inspect", []any{"/x", values{"mode": dbus.MakeVariant(true)}}, bad},
		{"type of a flag", "Install", []any{"/x", values{"reboot": dbus.MakeVariant("yes")}}, bad},
		{"reboot into what is not primary", "Install", []any{"/x", values{"reboot": dbus.MakeVariant(true), "activate": dbus.MakeVariant(false)}}, bad},
		{"long reference", "Inspect", []any{strings.Repeat("x", maxReference+1), values{}}, bad},
		{"type of a permit", "Install", []any{"/x", values{"permit": dbus.MakeVariant("/etc/permit")}}, bad},
		{"empty permit", "Install", []any{"/x", values{"permit": dbus.MakeVariant([]byte{})}}, bad},
		{"large permit", "Install", []any{"/x", values{"permit": dbus.MakeVariant(make([]byte, update.MaxPermit+1))}}, bad},
		{"verdict", "Mark", []any{"ugly", "a"}, bad},
		{"slot", "Mark", []any{"bad", "c"}, bad},
		{"empty slot", "Mark", []any{"bad", ""}, bad},
		{"number of arguments", "Mark", []any{"bad"}, "org.freedesktop.DBus.Error.InvalidArgs"},
	} {
		if err := m.Call(ManagerInterface+"."+tt.method, 0, tt.args...).Err; errorName(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	fake.Change(func(s *update.Snapshot) { s.Booted = "" })
	if err := m.Call(ManagerInterface+".Mark", 0, "good", "booted").Err; errorName(err) != "org.updaterd.Error.BootedSlotUnproven" {
		t.Errorf("booted slot unknown: %v", err)
	}
	if calls := fake.Calls(); len(calls) != 0 {
		t.Errorf("the updater heard of %v", calls)
	}
}

func TestUnknownObjectsAndProperties(t *testing.T) {
	_, _, address := serve(t, 0)
	conn := servertest.Connect(t, address)
	const properties = "org.freedesktop.DBus.Properties."
	for _, path := range []dbus.ObjectPath{jobRoot + "/1", jobRoot + "/x", jobRoot + "/007", jobRoot + "/1/2", jobRoot} {
		o := conn.Object(Name, path)
		for _, err := range []error{o.Call(JobInterface+".Cancel", 0).Err, o.Call(properties+"GetAll", 0, JobInterface).Err} {
			if errorName(err) != "org.freedesktop.DBus.Error.UnknownObject" {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	m := conn.Object(Name, ManagerPath)
	for _, tt := range []struct {
		err  error
		want string
	}{
		{m.Call(properties+"Get", 0, ManagerInterface, "Colour").Err, "UnknownProperty"},
		{m.Call(properties+"GetAll", 0, "org.example.X").Err, "UnknownInterface"},
		{m.Call(properties+"GetAll", 0, "org.freedesktop.DBus.Peer").Err, ""},
		{m.Call(properties+"Set", 0, ManagerInterface, "State", dbus.MakeVariant("trial")).Err, "PropertyReadOnly"},
		{m.Call(properties+"Set", 0, ManagerInterface, "Colour", dbus.MakeVariant("red")).Err, "UnknownProperty"},
	} {
		if got := strings.TrimPrefix(errorName(tt.err), "org.freedesktop.DBus.Error."); got != tt.want {
			t.Errorf("%v, want %s", tt.err, tt.want)
		}
	}
}

// signals yields what the server sends; the test fails if nothing comes for long.
func signals(t *testing.T, address string) iter.Seq[*dbus.Signal] {
	t.Helper()
	conn := servertest.Connect(t, address)
	if err := conn.AddMatchSignal(dbus.WithMatchSender(Name)); err != nil {
		t.Fatal(err)
	}
	ch := make(chan *dbus.Signal, 1000)
	conn.Signal(ch)
	return func(yield func(*dbus.Signal) bool) {
		for {
			select {
			case signal := <-ch:
				if !yield(signal) {
					return
				}
			case <-time.After(20 * time.Second):
				t.Fatal("no signal came")
			}
		}
	}
}

func TestChangesAreAnnounced(t *testing.T) {
	fake, _, address := serve(t, 0)
	got := signals(t, address)
	if err := manager(t, address).Call(ManagerInterface+".Install", 0, "/x", values{}).Err; err != nil {
		t.Fatal(err)
	}
	fake.Finish(update.Result{Outcome: update.RolledBack, Error: "Unhealthy", Message: "unit x\x00 is failed \xff", Version: "2.0"})
	job := values{}
	mgr := values{}
	for signal := range got {
		switch signal.Name {
		case propertiesChanged:
			into := mgr
			if signal.Path == jobPath(1) {
				into = job
			}
			for k, v := range signal.Body[1].(values) {
				into[k] = v
			}
			continue
		case ManagerInterface + ".JobFinished":
			want := []any{jobPath(1), "rolled-back", "Unhealthy", "unit x\uFFFD is failed \uFFFD"}
			if !reflect.DeepEqual(signal.Body, want) {
				t.Errorf("JobFinished%v", signal.Body)
			}
		default:
			t.Errorf("unexpected signal %s", signal.Name)
		}
		break
	}
	if job["Result"].Value() != "rolled-back" || job["Ref"].Value() != "/x" {
		t.Errorf("before its end was announced, the job was shown as %v", job)
	}
	fake.Fail("Mark", errors.New("broken \xff\x00"))
	if err := manager(t, address).Call(ManagerInterface+".Mark", 0, "bad", "b").Err; err == nil || err.Error() != "broken \uFFFD\uFFFD" {
		t.Errorf("%q", err)
	}
	if _, ok := mgr["State"]; ok && mgr["State"].Value() != "idle" {
		t.Errorf("before the job's end was announced, the manager was shown as %v", mgr)
	}
}

func TestProgressIsThrottledAndTheLastOfItSent(t *testing.T) {
	fake, s, address := serve(t, 0)
	fake.Job(func(j *update.JobStatus) { j.ID, j.State, j.Total = 9, update.StateDownloading, 1000 })
	got := signals(t, address)
	begun := time.Now()
	const last = 500
	for i := int64(1); i <= last; i++ {
		fake.Job(func(j *update.JobStatus) { j.Done = i })
		time.Sleep(time.Millisecond)
	}
	count := 0
	for signal := range got {
		changed, _ := signal.Body[1].(values)
		if done, ok := changed["Done"]; ok {
			count++
			if done.Value() == uint64(last) {
				break
			}
		}
	}
	if most := int(time.Since(begun)/s.interval) + 3; count > most {
		t.Errorf("%d signals, want at most %d", count, most)
	}
}

func TestThrottleLeavesStateAlone(t *testing.T) {
	for _, tt := range []struct {
		changed values
		want    bool
	}{
		{values{}, false},
		{values{"Done": text("")}, true},
		{values{"Done": text(""), "Rate": text(""), "TimeLeft": text(""), "Fetched": text("")}, true},
		{values{"Done": text(""), "State": text("")}, false},
	} {
		if got := onlyProgress(tt.changed); got != tt.want {
			t.Errorf("%v: %v", tt.changed, got)
		}
	}
}

func TestTheLastJobsAreKept(t *testing.T) {
	fake, s, address := serve(t, 0)
	conn := servertest.Connect(t, address)
	m := conn.Object(Name, ManagerPath)
	got := signals(t, address)
	for i := 1; i <= keptJobs+3; i++ {
		if err := m.Call(ManagerInterface+".Install", 0, "/x", values{}).Err; err != nil {
			t.Fatal(err)
		}
		fake.Finish(update.Result{Outcome: update.Success})
		for signal := range got {
			if signal.Name == ManagerInterface+".JobFinished" {
				break
			}
		}
	}
	for i := uint64(1); i <= keptJobs+3; i++ {
		err := conn.Object(Name, jobPath(i)).Call("org.freedesktop.DBus.Properties.GetAll", 0, JobInterface).Err
		if kept := i > 3; kept != (err == nil) {
			t.Errorf("job %d: %v", i, err)
		}
	}
	if n := len(s.jobNodes()); n != keptJobs {
		t.Errorf("%d jobs are listed", n)
	}
}

func TestAJobThatIsFollowedTooCloselyStillEnds(t *testing.T) {
	s := &Server{}
	s.note(&update.JobStatus{ID: 1})
	s.supersede(update.Snapshot{Job: &update.JobStatus{ID: 2}})
	if j := s.jobs[0].status; !j.Finished || j.Result.Outcome != update.Failed {
		t.Errorf("%+v", j)
	}
	s = &Server{}
	s.note(&update.JobStatus{ID: 1})
	s.supersede(update.Snapshot{Last: &update.Result{Outcome: update.Success}})
	if j := s.jobs[0].status; j.Result.Outcome != update.Success {
		t.Errorf("%+v", j)
	}
}

func TestAnOldEndIsNoNews(t *testing.T) {
	address := servertest.Bus(t)
	fake := servertest.NewUpdater()
	fake.Job(func(j *update.JobStatus) { j.ID, j.Finished = 3, true })
	got := signals(t, address)
	s, err := Listen(Options{Updater: fake, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	fake.Change(func(s *update.Snapshot) { s.Problems = []string{"p"} })
	for signal := range got {
		if signal.Name == ManagerInterface+".JobFinished" {
			t.Fatal("the end of a job of before was announced")
		}
		if signal.Name == propertiesChanged && signal.Path == ManagerPath {
			return
		}
	}
}

func TestInspectionsAreCounted(t *testing.T) {
	fake, s, address := serve(t, 0)
	for range maxInspections {
		s.inspect <- struct{}{}
	}
	m := manager(t, address)
	if err := m.Call(ManagerInterface+".Inspect", 0, "/x", values{}).Err; errorName(err) != "org.updaterd.Error.Busy" {
		t.Errorf("%v", err)
	}
	<-s.inspect
	if err := m.Call(ManagerInterface+".Inspect", 0, "/x", values{}).Err; err != nil {
		t.Errorf("%v; calls %v", err, fake.Calls())
	}
}

func TestTheNameIsTakenOnce(t *testing.T) {
	_, _, address := serve(t, 0)
	_, err := Listen(Options{Updater: servertest.NewUpdater(), Address: address})
	if err == nil || !strings.Contains(err.Error(), "another process has it") {
		t.Errorf("second server: %v", err)
	}
	if _, err := Listen(Options{Updater: servertest.NewUpdater(), Address: "unix:path=/nonexistent"}); err == nil {
		t.Error("listened on no bus")
	}
	if _, err := Listen(Options{}); err == nil {
		t.Error("listened for nobody")
	}
}

func TestRequestsAfterCloseAreRefused(t *testing.T) {
	s := &Server{closed: true}
	if _, _, err := s.begin(); err == nil {
		t.Error("a closed server began a request")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	fake, _, address := serve(t, 0)
	fake.Finish(update.Result{Outcome: update.Success, Version: "2.0", Time: time.Unix(1700000000, 0), Override: true,
		Stats: update.InstallStats{Fetched: 1, Written: 2, Unchanged: 3, Blocks: 4, Reused: 5}})
	var list []values
	if err := manager(t, address).Call(ManagerInterface+".History", 0, uint32(0)).Store(&list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0]["Time"].Value() != uint64(1700000000) || list[0]["Override"].Value() != true || list[0]["Unchanged"].Value() != uint64(3) ||
		list[0]["BlocksWritten"].Value() != uint64(4) || list[0]["Reused"].Value() != uint64(5) {
		t.Errorf("%v", list)
	}
	if got := fake.Calls(); !slices.Equal(got, []string{"history 1000"}) {
		t.Errorf("%v", got)
	}
}
