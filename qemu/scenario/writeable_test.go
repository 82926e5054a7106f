// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	bootuboot "github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/uboot"
)

// TestWriteableList starts a newer bootloader on a card whose environment holds
// the boot commands of an older one: only the variables of the boot contract are
// taken from the card.
func TestWriteableList(t *testing.T) {
	t.Parallel()
	w := workshopFor(t)
	loader, err := w.UBootWriteable(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	contract, err := uboot.Default()
	if err != nil {
		t.Fatal(err)
	}
	const old = "echo the commands of the older bootloader; reset"
	first := w.newDevice(t, assets.Disk{Flavour: assets.Small, EnvID: "factory", Env: map[string]string{
		"bootcmd": old, "altbootcmd": old, "boot_one": old, "boot_slot": "b", "upgrade_available": "1", "something": "else"}})
	dev, err := device.Open(loader, first.Path, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := dev.PowerOn(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"slot b cannot be loaded", "slot b cannot be loaded", "slot b cannot be loaded",
		"slot b failed, falling back to slot a", "slot b is marked bad", "slot b is marked bad"} {
		if _, err := dev.VM.Console.Expect(within(t, 2*time.Minute), text); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(dev.VM.Console.Text(), "older bootloader") {
		t.Error("boot commands on the card were used")
	}
	dev.PowerOff()
	env, copies, err := dev.Env()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"boot_slot": "a", "boot_bad": "b", "upgrade_available": "0", "bootcount": "0",
		"env_id": "factory", "bootcmd": contract["bootcmd"], "something": ""} {
		if env[name] != want {
			t.Errorf("%s = %q, want %q", name, env[name], want)
		}
	}
	if copies != 2 {
		t.Errorf("%d copies are intact", copies)
	}
	// What Linux changes, U-Boot takes over, also what is no longer set.
	begin := bootctl.Change{Primary: "b", Trial: bootctl.TrialBegin, NotBad: []bootctl.Slot{"b"}, EnvID: "by-linux"}
	if err := bootuboot.New(card{dev}).Apply(begin); err != nil {
		t.Fatal(err)
	}
	if err := dev.PowerOn(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.VM.Console.Expect(within(t, time.Minute), "slot b cannot be loaded"); err != nil {
		t.Fatal(err)
	}
	dev.PowerOff()
	if env, _, err = dev.Env(); err != nil || env["bootcount"] == "0" || env["boot_bad"] != "" || env["env_id"] != "by-linux" {
		t.Errorf("bootcount=%q boot_bad=%q env_id=%q, %v", env["bootcount"], env["boot_bad"], env["env_id"], err)
	}
}

// card is the environment on the card of a device that is off.
type card struct{ *device.Device }

func (card) Geometry() (size, copies int) { return uboot.EnvSize, 2 }
func (card) Traits() bootuboot.Traits     { return bootuboot.Traits{} }
func (card) Lock(bool) (func(), error)    { return func() {}, nil }
func (card) Where(i int) string           { return []string{"copy 1", "copy 2"}[i] }
func (card) Obsolete(int) error           { panic("not on a card") }
func (c card) ReadCopy(i int) ([]byte, error) {
	b := make([]byte, uboot.EnvSize)
	_, err := c.Disk.ReadAt(b, []int64{uboot.EnvOffset, uboot.EnvOffset2}[i])
	return b, err
}
func (c card) WriteCopy(i int, image []byte) error {
	return c.Disk.Medium(func(medium *os.File) error {
		_, err := medium.WriteAt(image, []int64{uboot.EnvOffset, uboot.EnvOffset2}[i])
		return err
	})
}
