// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/updaterd/updaterd/updaterd/internal/server"
	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

func TestMain(m *testing.M) {
	testscript.Main(leaks{m}, map[string]func(){
		"updaterctl": func() { os.Exit(Run("1.0", os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// leaks looks for goroutines that are left when all tests have run.
type leaks struct{ *testing.M }

func (l leaks) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString(err.Error() + "\n")
		return 1
	}
	return code
}

type fakeKey struct{}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			tb := e.T().(testing.TB)
			address := servertest.Bus(tb)
			e.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
			fake := servertest.NewUpdater()
			e.Values[fakeKey{}] = fake
			// The server takes the script for who runs the test; with a polkit
			// that says yes it does not matter who that is.
			servertest.NewPolkit(tb, address).Allow()
			s, err := server.Listen(server.Options{Updater: fake, Address: address})
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			e.Defer(func() {
				cancel()
				if err := errors.Join(<-ended, s.Close()); err != nil {
					tb.Error(err)
				}
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fake": func(ts *testscript.TestScript, neg bool, args []string) {
				steer(ts, ts.Value(fakeKey{}).(*servertest.Updater), args)
			},
			"exits": exitsCommand,
		},
	})
}

// steer tells the updater that pretends what to do:
//
//	fake fail METHOD ERRORNAME   the next requests are refused
//	fake play OUTCOME [ERRORNAME]   an install goes through its stages and ends so
//	fake rest STATE              an install goes on until STATE and stays there
//	fake trial                   the system that runs is on trial
//	fake channel FRESHNESS [offer]   there is a channel, with an offer or without one
//	fake asked TEXT              TEXT must have been asked
func steer(ts *testscript.TestScript, fake *servertest.Updater, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: fake fail|play|rest|trial|asked")
	}
	stages := func() {
		fake.Job(func(j *update.JobStatus) { j.Done, j.Fetched, j.Rate, j.TimeLeft = 1<<20, 1<<20, 1<<20, 2*time.Second })
		fake.Job(func(j *update.JobStatus) {
			j.State, j.Progress = update.StateInstalling, update.Progress{Stage: "install", Total: 64 << 20, Fetched: 3 << 20}
		})
	}
	switch args[0] {
	case "fail":
		fake.Fail(args[1], &update.Error{Name: args[2], Message: "it is " + args[2] + " here"})
	case "play":
		result := update.Result{Outcome: update.Outcome(args[1]), Version: "2.0", From: "a", To: "b", Time: time.Unix(1700000200, 0)}
		if len(args) > 2 {
			result.Error, result.Message = args[2], "it was "+args[2]
		}
		fake.OnCall(func(call string) {
			if strings.HasPrefix(call, "install") {
				stages()
				fake.Finish(result)
			}
		})
	case "rest":
		fake.OnCall(func(call string) {
			if strings.HasPrefix(call, "install") {
				stages()
				fake.Job(func(j *update.JobStatus) { j.State = update.State(args[1]) })
			}
		})
	case "trial":
		fake.Change(func(s *update.Snapshot) { s.State, s.Trial, s.TriesLeft = update.StateTrial, true, 2 })
	case "channel":
		c := &update.ChannelStatus{Name: "stable", Ref: "https://updates.example/stable.channel?token=x", Freshness: update.Freshness(args[1])}
		if c.Freshness != update.Never {
			c.Serial, c.Issued, c.Expires, c.Checked = 7, time.Unix(1700000000, 0), time.Unix(1701000000, 0), time.Unix(1700000100, 0)
		}
		if len(args) > 2 {
			c.Offer = &update.Offer{Ref: "https://updates.example/2.upb", Digest: "sha256:dd", Version: "2.0", Sequence: 42, Size: 3 << 20}
		}
		fake.Change(func(s *update.Snapshot) { s.Channel = c })
	case "asked":
		if got := strings.Join(fake.Calls(), "\n"); !strings.Contains(got, args[1]) {
			ts.Fatalf("the updater was asked:\n%s\nand not %s", got, args[1])
		}
	default:
		ts.Fatalf("fake: there is no %q", args[0])
	}
}

// exitsCommand is "exits CODE PROGRAM ARG...", because exec knows success and failure only.
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG]...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("%s: exit code %s, want %s", strings.Join(args[1:], " "), code, args[0])
	}
}
