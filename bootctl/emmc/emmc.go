// SPDX-License-Identifier: Apache-2.0

package emmc

import (
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/updaterd/updaterd/bootctl"
)

const (
	// partitionConfig is the index of the register in EXT_CSD: bit 6 asks for an
	// acknowledge, bits 5 to 3 choose what is started, bits 2 to 0 what is accessed.
	partitionConfig = 179
	enableShift     = 3
	enableMask      = 7 << enableShift
)

// extCSD is the card's register file.
type extCSD [512]byte

// A card is what a Switch needs of an open eMMC.
type card interface {
	// ExtCSD reads the registers.
	ExtCSD() (*extCSD, error)
	// WriteByte writes one of them.
	SetByte(index, value byte) error
	Close() error
}

// A Switch is [bootctl.Switch] on the boot partitions of one eMMC.
type Switch struct {
	disk   string                // "/dev/mmcblk0"
	number map[bootctl.Slot]byte // 1 for boot0, 2 for boot1
	open   func(string) (card, error)
	kernel func() (release, version string, err error)
	// blank tells that a boot partition holds nothing.
	blank func(path string) (bool, error)
}

var _ bootctl.Switch = (*Switch)(nil)

var bootDevice = regexp.MustCompile(`^(/dev/mmcblk[0-9]+)boot([01])$`)

// Open takes the devices of the slots a and b, such as /dev/mmcblk0boot0 and
// /dev/mmcblk0boot1, or links to them. It does not touch the card.
func Open(a, b string) (*Switch, error) {
	s := &Switch{number: map[bootctl.Slot]byte{}, open: openCard, kernel: uname, blank: blank}
	for slot, path := range map[bootctl.Slot]string{bootctl.SlotA: a, bootctl.SlotB: b} {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		m := bootDevice.FindStringSubmatch(path)
		if m == nil {
			return nil, fmt.Errorf("%s is not a boot partition of an eMMC: name one such as /dev/mmcblk0boot0", path)
		}
		if s.disk != "" && s.disk != m[1] {
			return nil, fmt.Errorf("%s and %s are boot partitions of two cards: name both of one", a, b)
		}
		s.disk, s.number[slot] = m[1], m[2][0]-'0'+1
	}
	if s.number[bootctl.SlotA] == s.number[bootctl.SlotB] {
		return nil, fmt.Errorf("%s is named for both slots: name boot0 for one and boot1 for the other", a)
	}
	return s, nil
}

// Selected implements [bootctl.Switch].
func (s *Switch) Selected() (slot bootctl.Slot, err error) {
	err = s.with(func(c card) error {
		slot, _, err = s.read(c)
		return err
	})
	return slot, err
}

// Select implements [bootctl.Switch].
func (s *Switch) Select(slot bootctl.Slot) error {
	if !slot.Valid() {
		return fmt.Errorf("%.40q is not a slot: use a or b", slot)
	}
	return s.with(func(c card) error {
		now, config, err := s.read(c)
		if err != nil || now == slot {
			return err
		}
		device := fmt.Sprintf("%sboot%d", s.disk, s.number[slot]-1)
		switch empty, err := s.blank(device); {
		case err != nil:
			return err
		case empty:
			return fmt.Errorf("%s is empty: nothing would be started", device)
		}
		config = config&^enableMask | s.number[slot]<<enableShift
		// Commit point: one register of the card, which has the old value or the
		// new one after a power cut. Both boot partitions are whole at this time.
		if err := c.SetByte(partitionConfig, config); err != nil {
			return fmt.Errorf("write PARTITION_CONFIG of %s: %w", s.disk, err)
		}
		switch now, _, err = s.read(c); {
		case err != nil:
			return err
		case now != slot:
			return fmt.Errorf("%s starts boot%d still: its PARTITION_CONFIG does not change; see whether BOOT_CONFIG_PROT (178) locks it", s.disk, s.number[now]-1)
		}
		return nil
	})
}

// read returns the slot that is started and the register.
func (s *Switch) read(c card) (bootctl.Slot, byte, error) {
	csd, err := c.ExtCSD()
	if err != nil {
		return "", 0, fmt.Errorf("read EXT_CSD of %s: %w", s.disk, err)
	}
	config := csd[partitionConfig]
	enabled := config & enableMask >> enableShift
	for slot, number := range s.number {
		if number == enabled {
			return slot, config, nil
		}
	}
	// Enabling one here would change where the device starts from, to a
	// partition that nobody has said is good.
	return "", 0, fmt.Errorf("%s starts from no boot partition (PARTITION_CONFIG is %#02x): enable the one with the running bootloader, with \"mmc bootpart enable\"", s.disk, config)
}

func (s *Switch) with(do func(card) error) error {
	release, version, err := s.kernel()
	if err != nil {
		return err
	}
	if err := checkKernel(release, version); err != nil {
		return err
	}
	c, err := s.open(s.disk)
	if err != nil {
		return fmt.Errorf("open eMMC: %w", err)
	}
	defer c.Close()
	return do(c)
}
