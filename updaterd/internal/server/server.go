// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Where the service is found on the bus.
const (
	Name             = "org.updaterd.Updater1"
	ManagerPath      = dbus.ObjectPath("/org/updaterd/Updater1")
	ManagerInterface = "org.updaterd.Updater1.Manager"
	JobInterface     = "org.updaterd.Updater1.Job"
	jobRoot          = ManagerPath + "/job"
)

// Updater is what the server shows; *update.Updater is one.
type Updater interface {
	Inspect(ctx context.Context, ref string, opt update.InstallOptions) (*update.Release, error)
	Install(ctx context.Context, ref string, opt update.InstallOptions) (id uint64, err error)
	Cancel(id uint64) error
	Pause(id uint64) error
	Resume(id uint64) error
	Activate(ctx context.Context) error
	Reboot(ctx context.Context) error
	Mark(ctx context.Context, verdict string, slot bootctl.Slot) (string, error)
	Check(ctx context.Context) (*update.ChannelStatus, error)
	Snapshot() update.Snapshot
	Watch(ctx context.Context) <-chan struct{}
	History(limit int) ([]update.Result, error)
}

// Options says what to serve, and where.
type Options struct {
	Updater Updater
	// Address is the bus to serve on; "" is the system bus.
	Address string
	// Log gets one line for each request that changes something. nil is silence.
	Log *slog.Logger
	// ProgressInterval is the least time between two signals that tell of
	// nothing but progress; 0 is half a second.
	ProgressInterval time.Duration
}

// Limits of what strangers can make the server do at the same time.
const (
	maxInspections = 4
	maxReference   = 4 << 10 // as package update has it
	inspectTimeout = 2 * time.Minute
)

// A Server has the bus name from Listen until Close.
type Server struct {
	conn     *dbus.Conn
	updater  Updater
	log      *slog.Logger
	interval time.Duration
	auth     *authority
	inspect  chan struct{} // one token for each inspection under way

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	calls   sync.WaitGroup
	closing sync.Mutex // held while closed is set or a call begins
	closed  bool

	mu       sync.Mutex // guards what follows
	jobs     []*job     // the last few, oldest first
	manager  values     // as last announced
	progress time.Time  // of the last signal that told of nothing but progress
}

// Listen connects to the bus, exports the objects and takes the name. Requests
// are answered from here on; Run sends the signals.
func Listen(o Options) (*Server, error) { return listen(o, nil) }

// listen is Listen with another way to know a caller than the bus, for tests.
func listen(o Options, userID func(context.Context, string) (uint32, error)) (*Server, error) {
	if o.Updater == nil {
		return nil, fmt.Errorf("internal error: listen on D-Bus without an updater")
	}
	s := &Server{updater: o.Updater, log: o.Log, interval: o.ProgressInterval, inspect: make(chan struct{}, maxInspections)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.interval <= 0 {
		s.interval = 500 * time.Millisecond
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	conn, err := connect(o.Address)
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("connect to D-Bus: %w; is dbus-daemon or dbus-broker running?", err)
	}
	s.conn, s.auth = conn, newAuthority(conn)
	if userID != nil {
		s.auth.userID = userID
	}
	if err := s.export(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func connect(address string) (*dbus.Conn, error) {
	if address == "" {
		return dbus.ConnectSystemBus()
	}
	return dbus.Connect(address)
}

// export makes every object that will ever be there, then takes the name: the
// table of objects in godbus is not changed while it is read.
func (s *Server) export() error {
	s.remember()
	manager, job := (*managerObject)(s), (*jobObject)(s)
	for _, e := range []struct {
		object    any
		path      dbus.ObjectPath
		name      string
		recursive bool
	}{
		{manager, ManagerPath, ManagerInterface, false},
		{(*propertiesObject)(s), ManagerPath, "org.freedesktop.DBus.Properties", false},
		{(*introspectObject)(s), ManagerPath, "org.freedesktop.DBus.Introspectable", false},
		{job, jobRoot, JobInterface, true},
		{(*propertiesObject)(s), jobRoot, "org.freedesktop.DBus.Properties", true},
		{(*introspectObject)(s), jobRoot, "org.freedesktop.DBus.Introspectable", true},
	} {
		export := s.conn.Export
		if e.recursive {
			export = s.conn.ExportSubtree
		}
		if err := export(e.object, e.path, e.name); err != nil {
			return fmt.Errorf("export %s: %w", e.name, err)
		}
	}
	reply, err := s.conn.RequestName(Name, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("take D-Bus name %s: %w; is the policy org.updaterd.Updater1.conf installed?", Name, err)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("take D-Bus name %s: another process has it; is updaterd already running?", Name)
	}
	return nil
}

// remember notes what is there before anybody looks, so that an old job's end is
// not announced as news.
func (s *Server) remember() {
	snap := s.updater.Snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manager = managerValues(snap)
	if j := s.note(snap.Job); j != nil {
		j.announced = j.status.Finished
		j.shown = jobValues(&j.status)
	}
}

// Run sends the signals until ctx ends (nil) or the bus goes away (ErrBusLost).
func (s *Server) Run(ctx context.Context) error {
	changes := s.updater.Watch(ctx)
	timer := time.NewTimer(0) // once at the start: something may have changed since Listen
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.ctx.Done():
			return nil
		case <-s.conn.Context().Done():
			if ctx.Err() != nil || s.ctx.Err() != nil {
				return nil
			}
			return ErrBusLost
		case _, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
		case <-timer.C:
		}
		if wait := s.publish(time.Now()); wait > 0 {
			timer.Reset(wait)
		}
	}
}

// Close gives the name back, waits for the requests under way and disconnects.
func (s *Server) Close() error {
	s.closing.Lock()
	s.closed = true
	s.closing.Unlock()
	s.cancel()
	s.calls.Wait()
	return s.conn.Close()
}

// begin is called first by every request. The context it returns ends with the
// server; done must be called.
func (s *Server) begin() (ctx context.Context, done func(), err error) {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.closed {
		return nil, nil, namedf(update.NameBadState, "updaterd is stopping; ask again in a moment")
	}
	s.calls.Add(1)
	return s.ctx, s.calls.Done, nil
}

// request is begin and the check that the caller may do each action.
func (s *Server) request(msg *dbus.Message, actions ...string) (ctx context.Context, done func(), err error) {
	ctx, done, err = s.begin()
	if err != nil {
		return nil, nil, err
	}
	for _, action := range actions {
		if err := s.auth.check(ctx, msg, action); err != nil {
			sender, _ := msg.Headers[dbus.FieldSender].Value().(string)
			s.log.Warn("request refused", "action", action, "sender", sender, "error", err)
			done()
			return nil, nil, err
		}
	}
	return ctx, done, nil
}
