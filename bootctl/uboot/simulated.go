// SPDX-License-Identifier: Apache-2.0

package uboot

import "os"

// A Disk is an open file or block device with copies of the environment.
type Disk = disk

// OpenStoreOn is [OpenStore] on what open opens: a disk that a test cuts the
// power of. flags are those of os.OpenFile.
func OpenStoreOn(config Config, lockFile string, open func(path string, flags int) (Disk, error)) (Store, error) {
	sys := realSystem()
	sys.disk = open
	sys.stat = func(path string) (os.FileInfo, error) {
		d, err := open(path, os.O_RDONLY)
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return d.Info()
	}
	return openStore(config, lockFile, sys)
}
