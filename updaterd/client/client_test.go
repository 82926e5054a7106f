// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"

	"github.com/updaterd/updaterd/updaterd/internal/server"
	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves fake on the bus until stop is called or the test ends.
func start(t *testing.T, address string, fake *servertest.Updater) (stop func()) {
	t.Helper()
	s, err := server.Listen(server.Options{Updater: fake, Address: address, ProgressInterval: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-ended, s.Close()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// connect starts everything, with a polkit that allows all.
func connect(t *testing.T) (*Client, *servertest.Updater, string) {
	t.Helper()
	address := servertest.Bus(t)
	servertest.NewPolkit(t, address).Allow()
	c, err := Connect(context.Background(), Options{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, servertest.NewUpdater(), address
}

// soon bounds a test that would otherwise wait for ever.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAJobFromBeginToEnd(t *testing.T) {
	c, fake, address := connect(t)
	start(t, address, fake)
	ctx := soon(t)
	job, err := c.Install(ctx, "/x.upb", InstallOptions{Mode: "stream", Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	var seen []uint64
	for status, err := range job.Progress(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, status.Done)
		switch {
		case status.Finished():
			if status.Err() != nil {
				t.Error(status.Err())
			}
		case status.Done < 3:
			fake.Job(func(j *update.JobStatus) { j.Done++ })
		default:
			fake.Finish(update.Result{Outcome: update.Success, Version: "2.0"})
		}
	}
	for i, done := range []uint64{0, 1, 2, 3} {
		if len(seen) <= i || seen[i] != done {
			t.Fatalf("saw %v", seen)
		}
	}
	status, err := job.Wait(ctx) // also after its end
	if err != nil || status.Outcome != Success {
		t.Errorf("%+v, %v", status, err)
	}
	s, err := c.Status(ctx)
	if err != nil || s.LastResult == nil || s.LastResult.Version != "2.0" || s.Job != nil || s.BootedSlot != "a" {
		t.Errorf("%+v, %v", s, err)
	}
	if j, err := c.Job(ctx); j != nil || err != nil {
		t.Errorf("%v, %v", j, err)
	}
}

func TestWaitEndsWhereAPersonIsNeeded(t *testing.T) {
	for _, tt := range []struct {
		state update.State
		opt   InstallOptions
	}{
		{update.StatePendingReboot, InstallOptions{}},
		{update.StatePendingReboot, InstallOptions{Reboot: true}},
		{update.StateInstalled, InstallOptions{NoActivate: true}},
		{update.StateInstalled, InstallOptions{}}, // by the settle time
	} {
		c, fake, address := connect(t)
		start(t, address, fake)
		ctx := soon(t)
		job, err := c.Install(ctx, "/x.upb", tt.opt)
		if err != nil {
			t.Fatal(err)
		}
		job.settle = 50 * time.Millisecond
		fake.Job(func(j *update.JobStatus) { j.State = tt.state })
		if s, err := job.Wait(ctx); err != nil || s.State != State(tt.state) || s.Finished() {
			t.Errorf("%s, %+v: %+v, %v", tt.state, tt.opt, s, err)
		}
	}
}

func TestADaemonThatComesBackIsWaitedFor(t *testing.T) {
	c, fake, address := connect(t)
	stop := start(t, address, fake)
	ctx := soon(t)
	job, err := c.Install(ctx, "/x.upb", InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	restarted := false
	for status, err := range job.Progress(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if !restarted {
			restarted = true
			stop()
			start(t, address, fake)
			fake.Finish(update.Result{Outcome: update.Failed, Error: "Medium", Message: "worn"})
		}
		if status.Finished() && NameOf(status.Err()) != Medium {
			t.Errorf("%v", status.Err())
		}
	}
	if !restarted {
		t.Error("nothing was seen")
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	c, fake, address := connect(t)
	start(t, address, fake)
	job, err := c.Install(soon(t), "/x.upb", InstallOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, err := range job.Progress(ctx) {
		cancel()
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if calls := fake.Calls(); len(calls) != 1 {
		t.Errorf("more was asked than the install: %v", calls)
	}
}

func TestErrorsHaveNames(t *testing.T) {
	c, fake, address := connect(t)
	ctx := soon(t)
	if _, err := c.Status(ctx); NameOf(err) != Unreachable {
		t.Errorf("no daemon: %v", err)
	}
	if _, err := Connect(ctx, Options{Address: "unix:path=/nonexistent"}); NameOf(err) != Unreachable {
		t.Errorf("no bus: %v", err)
	}
	start(t, address, fake)
	for _, name := range Names() {
		fake.Fail("Install", &update.Error{Name: string(name), Message: "m"})
		_, err := c.Install(ctx, "/x", InstallOptions{})
		var e *Error
		if !errors.As(err, &e) || e.Name != name || e.Message != "m" {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := &Job{client: c, path: managerPath + "/job/99"}
	if err := gone.Cancel(ctx); NameOf(err) != BadArgument {
		t.Errorf("%v", err)
	}
	if _, err := gone.Wait(ctx); NameOf(err) != BadArgument {
		t.Errorf("%v", err)
	}
	for name, want := range map[string]ErrorName{
		"org.freedesktop.DBus.Error.AccessDenied":      NotAuthorized,
		"org.freedesktop.DBus.Error.Spawn.ChildExited": Unreachable,
		"org.freedesktop.DBus.Error.UnknownMethod":     Internal,
		"com.example.Odd": Internal,
	} {
		if got := NameOf(wrap(ctx, dbus.Error{Name: name})); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if NameOf(nil) != "" || NameOf(errors.New("x")) != Internal {
		t.Error("names of other errors")
	}
}

func TestRequests(t *testing.T) {
	c, fake, address := connect(t)
	start(t, address, fake)
	ctx := soon(t)
	r, err := c.Inspect(ctx, "/x.upb", InstallOptions{NoActivate: true})
	if err != nil || r.Expected != 3<<20 || len(r.Images) != 1 || r.Images[0].Recipe != "delta" || r.Created.Unix() != 1700000000 {
		t.Errorf("%+v, %v", r, err)
	}
	job, err := c.Install(ctx, "/x.upb", InstallOptions{Reboot: true})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Job(ctx); err != nil || again.ID() != job.ID() || again.Path() != job.Path() {
		t.Errorf("%v, %v", again, err)
	}
	message, markErr := c.Mark(ctx, "bad", "b")
	if message != "slot b is marked bad" {
		t.Errorf("%q", message)
	}
	for _, err := range []error{markErr, job.Pause(ctx), job.Resume(ctx), job.Cancel(ctx), c.Activate(ctx), c.Reboot(ctx)} {
		if err != nil {
			t.Error(err)
		}
	}
	if s, err := job.Status(ctx); err != nil || s.Outcome != WasCancelled || NameOf(s.Err()) != Cancelled {
		t.Errorf("%+v, %v", s, err)
	}
	fake.Finish(update.Result{Outcome: update.RolledBack, Error: "Unhealthy", Time: time.Unix(1, 0), Override: true})
	h, err := c.History(ctx, 5)
	if err != nil || len(h) != 1 || h[0].Outcome != RolledBack || !h[0].Override || h[0].Time.Unix() != 1 {
		t.Errorf("%+v, %v", h, err)
	}
}

// An older client reads a newer daemon's answers, whatever is missing or other.
func TestStrangeAnswersReadAsNothing(t *testing.T) {
	strange := dict{"State": dbus.MakeVariant(uint32(1)), "Slots": dbus.MakeVariant("x"), "LastResult": dbus.MakeVariant(true),
		"Images": dbus.MakeVariant(1.5), "Done": dbus.MakeVariant("many"), "Problems": dbus.MakeVariant([]int32{1})}
	if s := strange.status(); s.State != "" || s.LastResult != nil || s.Problems == nil || s.BadSlots == nil {
		t.Errorf("%+v", s)
	}
	if r := strange.release(); r.Images == nil || r.Compatible == nil {
		t.Errorf("%+v", r)
	}
	if j := strange.job("/strange"); j.Done != 0 || j.Finished() {
		t.Errorf("%+v", j)
	}
}

// A person is asked for a password only if the program said so.
func TestInteractionIsAsked(t *testing.T) {
	address := servertest.Bus(t)
	conn := servertest.Connect(t, address)
	flags := make(chan dbus.Flags, 1)
	err := conn.ExportMethodTable(map[string]any{"Reboot": func(m dbus.Message) *dbus.Error { flags <- m.Flags; return nil }}, managerPath, managerName)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(busName, 0); err != nil {
		t.Fatal(err)
	}
	for _, interactive := range []bool{true, false} {
		c, err := Connect(soon(t), Options{Address: address, Interactive: interactive})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Reboot(soon(t)); err != nil {
			t.Error(err)
		}
		if got := <-flags&dbus.FlagAllowInteractiveAuthorization != 0; got != interactive {
			t.Errorf("interactive %v arrived as %v", interactive, got)
		}
		c.Close()
	}
}
