// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle/seal"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/fetch"
	"github.com/updaterd/updaterd/updaterd/internal/health"
	"github.com/updaterd/updaterd/updaterd/internal/install"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
	"github.com/updaterd/updaterd/updaterd/internal/poll"
	"github.com/updaterd/updaterd/updaterd/internal/server"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const (
	// rootClass is the class of the slots that are mounted on /.
	rootClass = "rootfs"
	// busRetry is the pause before the bus is tried again.
	busRetry = 5 * time.Second
	// busTimeout is how long the bus may take to answer the first words.
	busTimeout = 30 * time.Second
)

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, c *config.Config, log *slog.Logger) error {
	watchdog, err := openWatchdog(c, log)
	if err != nil {
		return err
	}
	// It is fed until the updater has ended, which may take longer than its time-out,
	// and then left running: a daemon that does not come back costs a reset.
	defer watchdog.Start(ctx)()

	updater, err := newUpdater(ctx, c, watchdog, log)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- updater.Run(ctx) }()
	select {
	case <-updater.Ready():
	case err := <-ended:
		return err
	}
	if s := updater.Snapshot(); s.Trial && s.Booted == "" {
		go lastResort(ctx, c, machine.Claimed(schemeOf(c)), c.Health.Deadline.Std(), log)
	}
	go serveBus(ctx, updater, log)
	if interval := c.Channel.Interval.Std(); c.Channel.URL != "" && interval > 0 {
		go poll.Run(ctx, interval, func() time.Time { return updater.Snapshot().Channel.Checked },
			func(ctx context.Context) error { _, err := updater.Check(ctx); return err })
	}
	if err := health.Notify(os.Getenv("NOTIFY_SOCKET"), "READY=1"); err != nil {
		log.Warn(err.Error())
	}
	return <-ended
}

// serveBus keeps the updater on D-Bus. A trial is judged and an installation
// finished without a bus as well, so losing it is no reason to end.
func serveBus(ctx context.Context, updater *update.Updater, log *slog.Logger) {
	said := ""
	for ctx.Err() == nil {
		s, err := server.Listen(server.Options{Updater: updater, Log: log})
		if err == nil {
			err = s.Run(ctx)
			s.Close()
		}
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Warn("not on D-Bus, trying again: " + said)
		}
		select {
		case <-ctx.Done():
		case <-time.After(busRetry):
		}
	}
}

func newUpdater(ctx context.Context, c *config.Config, watchdog *health.Watchdog, log *slog.Logger) (*update.Updater, error) {
	system, err := machine.New("/", devices(c)[rootClass], schemeOf(c))
	if err != nil {
		return nil, err
	}
	release, err := system.Release()
	if err != nil {
		// An image without os-release updates as well; only its label and build id are unknown.
		log.Warn(err.Error())
	}
	id, err := system.ID(c.Self.IDFile)
	if err != nil {
		// Only permits for devices need it.
		log.Warn(err.Error())
	}
	control, err := openBoot(c, machine.Claimed(schemeOf(c)))
	if err != nil {
		return nil, err
	}
	// First of all: the bootloader may have fallen back, or the power may have
	// failed between a switch and the environment.
	if err := control.Settle(); err != nil {
		log.Error("settle switches: " + err.Error())
	}
	if c.Boot.Defaults != "" {
		if err := remember(c, machine.Claimed(schemeOf(c))); err != nil {
			log.Error(err.Error())
		}
	}
	checker, err := health.New(checkerOptions(ctx, "/", c))
	if err != nil {
		return nil, err
	}
	// The engine asks the updater for its records, and the client for its time
	// floor; both are asked only once it runs.
	var updater *update.Updater
	web := fetch.Options{
		CAFile:    c.Download.CAFile,
		UserAgent: "updaterd/" + version,
		Retry:     fetch.Retry{Waiting: func(why error) { updater.Waiting(why) }},
		Now:       func() time.Time { return updater.Now() },
	}
	client, err := fetch.New(web)
	if err != nil {
		return nil, err
	}
	parts, err := regions(c)
	if err != nil {
		return nil, err
	}
	engine, err := install.New(install.Options{
		Compatible:  c.Compatible,
		DeviceID:    id,
		Groups:      c.Self.Groups,
		Slots:       devices(c),
		Regions:     parts,
		Headers:     headers(c),
		Booted:      system.Booted,
		Policy:      func() (*sign.Policy, error) { return policyOf(c) },
		TimeFloor:   func() time.Time { return updater.TimeFloor() },
		Dir:         filepath.Join(c.DataDir, "downloads"),
		StoreBudget: int64(c.Download.StoreBudget),
		ByteBudget:  int64(c.Download.ByteBudget),
		Fallback:    c.Download.Fallback,
		Mode:        c.Download.Mode,
		Open:        func(ref string) (install.Remote, error) { return client.Open(ref) },
		Records:     func() []update.SlotRecord { return updater.Records() },
		BuildID:     release.BuildID,
		Identity:    identity(c),
	})
	if err != nil {
		return nil, err
	}
	options := update.Options{
		Compatible: c.Compatible, DeviceID: id, Groups: c.Self.Groups, Version: release.Version, DataDir: c.DataDir, BuildID: release.BuildID, FloorStore: c.FloorStore,
		Migrate: migration(c), Boot: control, Engine: engine, Health: checker, Watchdog: watchdog, System: system, Log: log,
		Deadline: c.Health.Deadline.Std(), MaxAttempts: c.Trial.MaxAttempts,
		Uptime: machine.Uptime, MinCheck: minCheck(checks(c)), ImageFloor: release.Floor, ImageTime: release.Built, WaiveEnvID: !c.Boot.RequireEnvID,
	}
	if c.Channel.URL != "" {
		// Somebody waits for an answer, and no job waits for this network.
		web.Retry = fetch.Retry{Stall: 20 * time.Second}
		if options.Channel, err = openChannel(c, web, func() time.Time { return updater.TimeFloor() }); err != nil {
			return nil, err
		}
	}
	if c.Boot.Defaults != "" {
		options.Restore = func(change bootctl.Change) error {
			if err := restore(c, change); err != nil {
				return err
			}
			if err := control.Settle(); err != nil { // it could not while there was nothing to follow
				log.Error("settle switches: " + err.Error())
			}
			return nil
		}
	}
	updater, err = update.New(options)
	return updater, err
}

// openChannel is where updates come from.
func openChannel(c *config.Config, web fetch.Options, floor func() time.Time) (*update.Channel, error) {
	client, err := fetch.New(web)
	if err != nil {
		return nil, err
	}
	poller, err := poll.New(poll.Options{
		Compatible: c.Compatible,
		Channel:    c.Channel.Name,
		URL:        c.Channel.URL,
		Policy:     func() (*sign.Policy, error) { return policyOf(c) },
		TimeFloor:  floor,
		Open:       func(ref string) (poll.Remote, error) { return client.Open(ref) },
	})
	if err != nil {
		return nil, err
	}
	return &update.Channel{Name: c.Channel.Name, Ref: c.Channel.URL,
		RefuseExpired: c.Channel.Expired == config.ExpiredRefuse, Fetch: poller.Fetch}, nil
}

// policyOf reads whom this device believes.
func policyOf(c *config.Config) (*sign.Policy, error) {
	keyring, err := sign.LoadKeyring(c.Keyring)
	if err != nil {
		return nil, err
	}
	if c.Policy != "" {
		return sign.LoadPolicy(c.Policy, keyring)
	}
	return keyring.Policy(c.Threshold), nil
}

// identity reads what encrypted bundles are for; nil if none is configured.
func identity(c *config.Config) func() (*seal.Identity, error) {
	if c.Identity == "" {
		return nil
	}
	return func() (*seal.Identity, error) { return seal.LoadIdentity(c.Identity) }
}

func devices(c *config.Config) map[string]map[bootctl.Slot]string {
	slots := map[string]map[bootctl.Slot]string{}
	for _, class := range c.Classes() {
		slots[class] = map[bootctl.Slot]string{}
		for _, slot := range []bootctl.Slot{bootctl.SlotA, bootctl.SlotB} {
			slots[class][slot] = place(c, class, slot)
		}
	}
	return slots
}

func checks(c *config.Config) health.Options {
	o := health.Options{Units: c.Health.Units, BootComplete: c.Health.BootComplete, MinUptime: c.Health.MinUptime.Std()}
	for _, cmd := range c.Health.Commands {
		o.Commands = append(o.Commands, health.Command{Name: cmd.Name, Argv: cmd.Argv, Timeout: cmd.Timeout.Std()})
	}
	return o
}

// minCheck is how long the checks of a healthy system can take.
func minCheck(o health.Options) time.Duration {
	const more = 15 * time.Second // systemd answers, and a last look is taken
	d := o.MinUptime + more
	for _, cmd := range o.Commands {
		d += cmd.Timeout
	}
	return d
}

// migration is the hook that migrates the applications' data; nil if there is none.
func migration(c *config.Config) func(context.Context, update.Migration) error {
	if len(c.Migrate.Argv) == 0 {
		return nil
	}
	command := health.Command{Name: "migrate", Argv: c.Migrate.Argv, Timeout: c.Migrate.Timeout.Std()}
	return func(ctx context.Context, m update.Migration) error {
		return command.Run(ctx, append(originOf("OLD", m.From), originOf("NEW", m.To)...)...)
	}
}

// originOf tells the hook of a release. What is not known is there, and empty.
func originOf(which string, o update.Origin) []string {
	sequence := ""
	if o.Sequence > 0 {
		sequence = strconv.FormatUint(o.Sequence, 10)
	}
	return []string{
		"UPDATERD_" + which + "_VERSION=" + o.Version,
		"UPDATERD_" + which + "_SEQUENCE=" + sequence,
		"UPDATERD_" + which + "_BUILD_ID=" + o.BuildID,
	}
}

// checkerOptions are the checks, and whom they ask. systemd is asked for more than
// units: whether a failure is one, or the system goes down.
func checkerOptions(ctx context.Context, dir string, c *config.Config) health.Options {
	o := checks(c)
	_, err := os.Stat(filepath.Join(dir, "run/systemd/system")) // as sd_booted(3) does
	if err == nil || len(o.Units) > 0 || o.BootComplete {
		o.Systemd = health.NewBus(dialer(ctx))
	}
	return o
}

// dialer makes connections that end with ctx. The daemon starts without one: the
// bus may come later, and with none at all the deadline ends a trial.
func dialer(ctx context.Context) health.Dial {
	return func(ask context.Context) (*dbus.Conn, error) {
		timeout := busTimeout
		if end, ok := ask.Deadline(); ok {
			timeout = min(timeout, time.Until(end))
		}
		return connectBus(ctx, timeout)
	}
}

// connectBus gives up on a bus that takes the connection and then says nothing:
// a trial must not wait for it without a judge.
func connectBus(ctx context.Context, timeout time.Duration) (*dbus.Conn, error) {
	conn, err := dbus.SystemBusPrivate(dbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	late := time.AfterFunc(timeout, func() { conn.Close() })
	if err = conn.Auth(nil); err == nil {
		err = conn.Hello()
	}
	if !late.Stop() {
		err = fmt.Errorf("no answer within %v", timeout)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func openWatchdog(c *config.Config, log *slog.Logger) (*health.Watchdog, error) {
	var service time.Duration
	if value := os.Getenv("WATCHDOG_USEC"); value != "" {
		usec, err := strconv.ParseInt(value, 10, 64)
		if err != nil || usec <= 0 {
			return nil, errors.New("WATCHDOG_USEC=" + value + " is no number of microseconds")
		}
		service = time.Duration(usec) * time.Microsecond
	}
	return health.OpenWatchdog(health.WatchdogOptions{
		Device: c.Watchdog.Device, Timeout: c.Watchdog.Timeout.Std(),
		Socket: os.Getenv("NOTIFY_SOCKET"), ServiceTimeout: service,
		Grace: checks(c).Grace(c.Watchdog.Timeout.Std()),
		Report: func(err error) {
			if err != nil {
				log.Error(err.Error())
			} else {
				log.Info("the watchdog is fed again")
			}
		},
	})
}
