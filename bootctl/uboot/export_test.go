// SPDX-License-Identifier: Apache-2.0

package uboot

func OpenDisk(path string, flags int) (Disk, error) { return openDisk(path, flags) }

// Flash and Volume let tests put flash in memory under a store, and System more.
type (
	Flash  = flash
	Volume = volume
)

// System is what a store finds instead of the operating system. What is nil is
// the real one.
type System struct {
	Disk   func(path string, flags int) (Disk, error)
	Flash  func(path string, flags int) (Flash, error)
	Volume func(path string, flags int) (Volume, error)
	Sysfs  string
}

func OpenStoreIn(config Config, lock string, s System) (Store, error) {
	sys := realSystem()
	if s.Disk != nil {
		sys.disk = s.Disk
	}
	if s.Flash != nil {
		sys.flash = s.Flash
	}
	if s.Volume != nil {
		sys.volume = s.Volume
	}
	if s.Sysfs != "" {
		sys.sysfs = s.Sysfs
	}
	return openStore(config, lock, sys)
}
