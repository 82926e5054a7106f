// SPDX-License-Identifier: Apache-2.0

package uboot

// A Disk is an open file or block device with copies of the environment.
type Disk = disk

// OpenStoreOn is [OpenStore] on what open opens: a disk that a test cuts the
// power of. flags are those of os.OpenFile.
func OpenStoreOn(config Config, lockFile string, open func(path string, flags int) (Disk, error)) (Store, error) {
	sys := realSystem()
	sys.disk = open
	return openStore(config, lockFile, sys)
}
