// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/config"
	"github.com/updaterd/updaterd/updaterd/internal/health"
	"github.com/updaterd/updaterd/updaterd/internal/machine"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// checkConfig makes the checks and prints what they came to.
func checkConfig(path string, list []check.Check, asJSON bool, stdout, stderr io.Writer) int {
	results := check.Run(list)
	failed, warnings := check.Count(results, check.Failure), check.Count(results, check.Warning)
	if asJSON {
		e := json.NewEncoder(stdout)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		report := struct {
			Config   string         `json:"config"`
			Failed   int            `json:"failed"`
			Warnings int            `json:"warnings"`
			Checks   []check.Result `json:"checks"`
		}{path, failed, warnings, results}
		if err := e.Encode(report); err != nil {
			fmt.Fprintf(stderr, "updaterd: %v\n", err)
			return 1
		}
	} else {
		check.Print(stdout, results)
	}
	if failed > 0 {
		fmt.Fprintf(stderr, "updaterd: %d of %d checks failed\n", failed, len(results))
		return exitUnfit
	}
	return 0
}

// hostOf is this device, as package check sees it.
func hostOf(c *config.Config, root string) *check.Host {
	known := update.Known(durable.OS{}, c.DataDir)
	h := &check.Host{
		Root: root, DataDir: c.DataDir, FloorStore: c.FloorStore, Watchdog: c.Watchdog.Device,
		Now: time.Now(), TimeFloor: known.Time,
		Bus: func() (check.Bus, error) { return dialBus() },
		Open: func(path string) (io.ReaderAt, io.Closer, error) {
			f, err := os.Open(path)
			return f, f, err
		},
		Device: func(path string) (int64, check.Number, error) {
			info, size, err := deviceAt(path)
			if err != nil || info.Mode()&fs.ModeDevice == 0 {
				return size, "", err
			}
			dev := uint64(info.Sys().(*syscall.Stat_t).Rdev)
			return size, check.Number(fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))), nil
		},
		Record: func(s check.Slot) (string, int64) {
			for _, r := range known.Slots {
				if r.Class == s.Class && r.Slot == s.Slot && r.Verified {
					return r.Digest, r.Size
				}
			}
			return "", 0
		},
	}
	for _, class := range c.Classes() {
		for _, slot := range []bootctl.Slot{bootctl.SlotA, bootctl.SlotB} {
			if !c.Region(class) {
				h.Slots = append(h.Slots, check.Slot{Class: class, Slot: slot, Path: c.Device(class, string(slot))})
			}
		}
	}
	places, lock, err := uboot.ReadConfig(c.Boot.FwEnvConfig) // which has a check of its own
	if err == nil {
		h.Lock = cmp.Or(lock, uboot.DefaultLockFile)
	}
	for _, l := range places {
		h.Environment = append(h.Environment, check.Place{Path: l.Path, Offset: l.Offset, Size: l.Size})
	}
	system, err := machine.New(root, devices(c)[rootClass], schemeOf(c))
	h.Booted = func() (bootctl.Slot, error) { return "", err }
	if err == nil {
		h.Booted = system.Booted
		if release, err := system.Release(); err == nil {
			h.Built = release.Built
		}
	}
	return h
}

// checkCanary: the environment that Linux writes is the bootloader's.
func checkCanary(c *config.Config, root string) (string, error) {
	if !c.Boot.RequireEnvID {
		return "", check.Doubt("leave require_env_id out of updaterd.toml", "the proof that the bootloader reads this environment is waived (require_env_id = false)")
	}
	control, err := openEnvironment(c, machine.Claimed(schemeOf(c)))
	if err != nil {
		return "", check.Fault("see to the check \"boot environment\" first", "%w", err)
	}
	status, err := control.Status()
	if err != nil {
		return "", check.Fault("see to the check \"boot environment\" first", "%w", err)
	}
	system, err := machine.New(root, nil, schemeOf(c))
	if err != nil {
		return "", check.Fault("mount /proc", "%w", err)
	}
	return canary(status, system.EnvID())
}

// canary compares the id in the environment with the one on the command line.
func canary(status bootctl.Status, there string) (string, error) {
	const again = `reboot once; if this stays, fw_env.config names another place than U-Boot's, or the boot command does not add updaterd.env_id=${env_id}`
	switch {
	case status.Proven:
		return "the bootloader counted this start in this environment", nil
	case status.EnvID == "":
		return "", check.Fault("start updaterd, then reboot once; or let the factory's environment have an env_id (docs/integrate.md)", "the environment has no env_id yet: installing is refused")
	case there == "":
		return "", check.Fault(again, "the kernel command line has no updaterd.env_id: installing is refused")
	case there != status.EnvID:
		return "", check.Fault(again, "the environment has env_id %q, and the kernel command line %q: installing is refused", status.EnvID, there)
	}
	return "the bootloader handed " + there + " back", nil
}

// checkEnds: somebody's signature is believed for some time to come.
func checkEnds(c *config.Config, now time.Time) (string, error) {
	const soon = 90 * 24 * time.Hour
	const cure = "release a system with the new keys before (\"Rotation\" in docs/security.md); a device that was not updated until then takes no update any more"
	policy, err := policyOf(c)
	if err != nil {
		return "", check.Doubt("see to the check \"keyring\" first", "%w", err)
	}
	text := "no key that is needed has an end"
	for _, class := range c.Classes() {
		switch end := policy.End(class); {
		case end.IsZero():
		case now.After(end):
			return "", check.Fault(cure, "since %s nobody's signature is believed for images of class %s", end.UTC().Format(time.DateOnly), class)
		case now.Add(soon).After(end):
			return "", check.Doubt(cure, "after %s nobody's signature is believed for images of class %s", end.UTC().Format(time.DateOnly), class)
		default:
			text = "signatures are believed until " + end.UTC().Format(time.DateOnly) + " and later"
		}
	}
	return text, nil
}

// systemBus is a check.Bus.
type systemBus struct{ *dbus.Conn }

func dialBus() (*systemBus, error) {
	conn, err := connectBus(context.Background(), busTimeout)
	if err != nil {
		return nil, fmt.Errorf("connect to the message bus: %w", err)
	}
	return &systemBus{conn}, nil
}

func (b *systemBus) Names() (owned, activatable []string, err error) {
	err = errors.Join(b.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&owned),
		b.BusObject().Call("org.freedesktop.DBus.ListActivatableNames", 0).Store(&activatable))
	return owned, activatable, err
}

func (b *systemBus) Own(name string) error {
	reply, err := b.RequestName(name, dbus.NameFlagDoNotQueue)
	if err == nil && reply != dbus.RequestNameReplyPrimaryOwner {
		err = fmt.Errorf("the bus answered %v", reply)
	}
	if err != nil {
		return err
	}
	_, err = b.ReleaseName(name)
	return err
}

const (
	bootComplete = "boot-complete.target"
	// unitAnswer is how long systemd may take to tell of one unit.
	unitAnswer = 10 * time.Second
)

// A unitState tells what systemd says of a unit.
type unitState interface {
	Unit(ctx context.Context, name string) (health.Unit, error)
}

// checkUnits: a trial waits for these units to be active, and ends at once with
// one that systemd does not load.
func checkUnits(c *config.Config, root string, ask func() (unitState, io.Closer, error)) (string, error) {
	names := slices.Clone(c.Health.Units)
	if c.Health.BootComplete && !slices.Contains(names, bootComplete) {
		names = append(names, bootComplete)
	}
	switch {
	case len(names) == 0:
		return "none", nil
	case !hasSystemd(root):
		return "", check.Fault("leave [health] units and boot_complete out, and check by [[health.commands]]",
			"%d units are to be healthy, and this device has no systemd to ask: every trial would be rolled back", len(names))
	}
	systemd, conn, err := ask()
	if err != nil {
		return "", check.Fault("install and start dbus: without it a trial cannot ask systemd for its units, and is rolled back", "%w", err)
	}
	defer conn.Close()
	var absent, idle, cures []string
	for _, name := range names {
		ctx, cancel := context.WithTimeout(context.Background(), unitAnswer)
		u, err := systemd.Unit(ctx, name)
		cancel()
		switch {
		case err != nil:
			return "", check.Fault("write the whole name of a unit to [health] units, such as app.service, and see whether systemd answers (\"busctl status org.freedesktop.systemd1\"); every trial would be rolled back", "%w", err)
		case u.LoadState != "loaded":
			absent = append(absent, fmt.Sprintf("%s (systemd says %s)", name, u.LoadState))
			cures = append(cures, loadable(name, u.LoadState))
		case !slices.Contains([]string{"active", "reloading", "refreshing"}, u.ActiveState):
			idle = append(idle, fmt.Sprintf("%s (%s)", name, u.ActiveState))
		}
	}
	switch {
	case len(absent) > 0:
		return "", check.Fault(strings.Join(cures, "; "), "every trial would be rolled back, for what is not loaded: %s", strings.Join(absent, ", "))
	case len(idle) == 0:
		return fmt.Sprintf("%d, all active", len(names)), nil
	case inTrial(c):
		return fmt.Sprintf("%d, all loaded; this trial waits for %s", len(names), strings.Join(idle, ", ")), nil
	}
	for _, unit := range idle {
		name, _, _ := strings.Cut(unit, " ")
		cures = append(cures, activated(name))
	}
	return "", check.Doubt(strings.Join(cures, "; "), "a trial in which that stays so would be rolled back; not active at this moment: %s", strings.Join(idle, ", "))
}

// loadable is what makes systemd load a unit.
func loadable(name, state string) string {
	switch state {
	case "not-found":
		return "install " + name + ", or correct its name in [health] units"
	case "masked":
		return "run \"systemctl unmask " + name + "\", or leave it out of [health] units"
	}
	return "see \"systemd-analyze verify " + name + "\""
}

// activated is what makes a unit that is loaded active.
func activated(name string) string {
	if name == bootComplete {
		return "let something start boot-complete.target, which nothing does by itself: Wants=boot-complete.target in [Unit] (\"systemctl edit updaterd\"); " +
			"what it is to wait for it has to require (\"systemctl enable systemd-boot-check-no-failures\"), or set boot_complete = false"
	}
	return "see \"systemctl status " + name + "\": it has to be started with the device, and to stay active (Type=oneshot needs RemainAfterExit=yes)"
}

// inTrial tells whether the system that runs is known to be in its trial.
func inTrial(c *config.Config) bool {
	_, status, err := lookAtBoot(c, machine.Claimed(schemeOf(c)))
	return err == nil && status.Trial
}

// askSystemd connects to systemd.
func askSystemd() (unitState, io.Closer, error) {
	bus, err := dialBus()
	if err != nil {
		return nil, nil, err
	}
	return health.NewBus(func(context.Context) (*dbus.Conn, error) { return bus.Conn, nil }), bus, nil
}
