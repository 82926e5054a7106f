// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// What would be random in a file system is fixed, and so is its block size: below
// 512 MiB mke2fs would take 1 KiB, which ruins deltas.
const (
	fsUUID   = "6f6f7466-7300-4000-8000-757064617465"
	hashSeed = "73656564-0000-4000-8000-757064617465"
)

// rootFeatures leave out the journal, which a read-only file system does not
// need, and the checksums of metadata, so that normalise can set time stamps.
const rootFeatures = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,extra_isize"

// writeImage makes an ext4 image of a tree. fakeroot gives the files their owners.
func writeImage(ctx context.Context, t tree, image string, size int64) error {
	root, err := os.MkdirTemp("", "updaterd-root-*")
	if err != nil {
		return err
	}
	defer func() {
		// Directories may be without the right to write.
		_ = exec.Command("chmod", "-R", "u+rwX", root).Run()
		os.RemoveAll(root)
	}()
	r, w := io.Pipe()
	go func() { w.CloseWithError(t.writeTar(w)) }()
	const script = `tar -xpf - -C "$1" && shift && exec mke2fs "$@"`
	_, err = run(ctx, command{
		env:   []string{fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", epoch), "MKE2FS_CONFIG=/dev/null"},
		stdin: r,
		argv: []string{"fakeroot", "--", "sh", "-c", script, "sh", root, "-q", "-b", "4096", "-I", "256", "-N", "12288", "-m", "0",
			"-O", rootFeatures, "-U", fsUUID, "-E", "hash_seed=" + hashSeed + ",root_owner=0:0,lazy_itable_init=0", "-L", "rootfs",
			"-d", root, image, fmt.Sprintf("%dk", size>>10)},
	})
	r.CloseWithError(errors.New("the reader has ended"))
	if err != nil {
		if strings.Contains(err.Error(), "No space") || strings.Contains(err.Error(), "Could not allocate") {
			return fmt.Errorf("write %s: %d bytes of files do not fit an image of %d bytes: %w", image, t.size(), size, err)
		}
		return fmt.Errorf("write %s: %w", image, err)
	}
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := normalise(f, size, epoch); err != nil {
		return fmt.Errorf("write %s: %w", image, err)
	}
	return f.Close()
}

type readWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// normalise sets the time stamps of all inodes: mke2fs copies those of the
// directory it reads, of which one, the time of the last change, cannot be set.
func normalise(f readWriterAt, size int64, seconds uint32) error {
	super := make([]byte, 1024)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return fmt.Errorf("read superblock: %w", err)
	}
	le := binary.LittleEndian
	const roCompatMetadataChecksum, incompat64Bit = 0x400, 0x80
	if le.Uint16(super[0x38:]) != 0xef53 || le.Uint32(super[0x64:])&roCompatMetadataChecksum != 0 || le.Uint32(super[0x60:])&incompat64Bit != 0 {
		return errors.New("set time stamps: not an ext4 file system without metadata_csum and 64bit")
	}
	block := int64(1024) << le.Uint32(super[0x18:])
	inodes, perGroup := le.Uint32(super[0x00:]), le.Uint32(super[0x28:])
	inodeSize := int64(le.Uint16(super[0x58:]))
	if block < 1024 || block > 65536 || perGroup == 0 || perGroup > inodes || inodeSize < 256 || int64(inodes)*inodeSize > size {
		return errors.New("set time stamps: the superblock makes no sense")
	}
	table := make([]byte, int64(perGroup)*inodeSize)
	for group := range int64(inodes / perGroup) {
		desc := make([]byte, 32)
		// The descriptors follow the superblock's block.
		if _, err := f.ReadAt(desc, (1024/block+1)*block+group*32); err != nil {
			return fmt.Errorf("read group descriptor: %w", err)
		}
		at := int64(le.Uint32(desc[8:])) * block
		if _, err := f.ReadAt(table, at); err != nil {
			return fmt.Errorf("read inodes: %w", err)
		}
		for i := range int64(perGroup) {
			stampInode(table[i*inodeSize:(i+1)*inodeSize], seconds)
		}
		if _, err := f.WriteAt(table, at); err != nil {
			return fmt.Errorf("write inodes: %w", err)
		}
	}
	return nil
}

func stampInode(inode []byte, seconds uint32) {
	le := binary.LittleEndian
	if le.Uint16(inode) == 0 { // no mode: not in use
		return
	}
	for _, at := range []int{0x08, 0x0c, 0x10, 0x90} { // access, change, modification, creation
		le.PutUint32(inode[at:], seconds)
	}
	for _, at := range []int{0x84, 0x88, 0x8c, 0x94} { // the same, below a second
		le.PutUint32(inode[at:], 0)
	}
	le.PutUint32(inode[0x64:], 0) // generation
}
