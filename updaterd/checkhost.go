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
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/check"
	"github.com/updaterd/updaterd/updaterd/internal/config"
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
	const cure = "release a system with the new keys before (\"Changing keys\" in docs/signing.md); a device that was not updated until then takes no update any more"
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
