// SPDX-License-Identifier: Apache-2.0

package emmc

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/updaterd/updaterd/bootctl"
)

// command is struct mmc_ioc_cmd of linux/mmc/ioctl.h.
type command struct {
	write, isACMD            int32
	opcode, arg              uint32
	response                 [4]uint32
	flags, blockSize, blocks uint32
	minSleep, maxSleep       uint32 // microseconds
	dataTimeout              uint32 // nanoseconds
	commandTimeout           uint32 // milliseconds
	_                        uint32
	data                     uint64 // address
}

const (
	// ioctlCommand is MMC_IOC_CMD, _IOWR(179, 0, struct mmc_ioc_cmd).
	ioctlCommand = 3<<30 | unsafe.Sizeof(command{})<<16 | 179<<8

	cmdSwitch     = 6
	cmdSendExtCSD = 8

	// What answer to expect, as linux/mmc/core.h numbers it: R1 or R1b, on a card's
	// own bus and on SPI, and that data follow.
	answerR1  = 1<<0 | 1<<2 | 1<<4 | 1<<7
	answerR1b = answerR1 | 1<<3 | 1<<10
	withData  = 1 << 5

	// The argument of cmdSwitch: mode "write byte", index, value, command set.
	writeByte = 3 << 24
	setNormal = 1
)

// kernelCard is a card of the kernel.
type kernelCard struct{ f *os.File }

// openCard opens the card's user area, never a boot partition: the kernel
// selects what it was opened for before it passes a command on.
func openCard(path string) (card, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return kernelCard{f}, nil
}

func (c kernelCard) Close() error { return c.f.Close() }

func (c kernelCard) ExtCSD() (*extCSD, error) {
	var csd extCSD
	cmd := sendExtCSD()
	cmd.data = uint64(uintptr(unsafe.Pointer(&csd)))
	err := c.send(&cmd)
	runtime.KeepAlive(&csd)
	return &csd, err
}

func (c kernelCard) SetByte(index, value byte) error {
	cmd := setByte(index, value)
	return c.send(&cmd)
}

func sendExtCSD() command {
	return command{opcode: cmdSendExtCSD, flags: answerR1 | withData, blockSize: uint32(len(extCSD{})), blocks: 1}
}

func setByte(index, value byte) command {
	return command{write: 1, opcode: cmdSwitch, arg: writeByte | uint32(index)<<16 | uint32(value)<<8 | setNormal, flags: answerR1b}
}

func (c kernelCard) send(cmd *command) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, c.f.Fd(), ioctlCommand, uintptr(unsafe.Pointer(cmd)))
	if errno != 0 {
		return os.NewSyscallError("MMC_IOC_CMD", errno)
	}
	return nil
}

// leastBoot is the least size of a boot partition.
const leastBoot = 128 << 10

func blank(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return bootctl.Blank(f, leastBoot)
}

func uname() (release, version string, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", "", os.NewSyscallError("uname", err)
	}
	return unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), nil
}
