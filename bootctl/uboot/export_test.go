// SPDX-License-Identifier: Apache-2.0

package uboot

// Disk and OpenStoreOn let tests put a recording disk under a store.
type Disk = disk

func OpenStoreOn(config Config, lock string, open func(path string, flags int) (Disk, error)) (Store, error) {
	return openStore(config, lock, open)
}

func OpenDisk(path string, flags int) (Disk, error) { return openDisk(path, flags) }
