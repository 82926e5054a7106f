// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/bits"
	"os"
	"strings"

	"github.com/updaterd/updaterd/qemu/assets/gpt"
	"github.com/updaterd/updaterd/qemu/uboot"
)

// firstPartition is where the partitions begin; the environment is before it.
const firstPartition = 2 << 20

// A Disk describes the SD card of a board: GPT, environment, rootfs_a, rootfs_b,
// data, and bootloader_a and bootloader_b if there is a second stage.
type Disk struct {
	// Flavour gives SlotSize and DataSize their defaults.
	Flavour Flavour
	// SlotA and SlotB are images of root file systems; "" leaves a slot empty.
	SlotA, SlotB string
	// LoaderA and LoaderB are FITs of second stages. If there is one, both
	// partitions are, and the environment is that of a first stage.
	LoaderA, LoaderB string
	// SlotSize is the size of each slot; a little more than the flavour's images if 0.
	SlotSize int64
	// DataSize is the least size of the data partition, 64 MiB if 0. It gets
	// what is left, because the size of an SD card is a power of two.
	DataSize int64
	// EnvID is the canary of a factory image; "" leaves the environment unproven.
	EnvID string
	// Factory is the environment on the disk, U-Boot's default one if nil.
	Factory map[string]string
	// Env is set over it.
	Env map[string]string
	// NoEnv leaves both copies of the environment empty: U-Boot's defaults are in force.
	NoEnv bool
}

// loaderSize is the size of a second stage's partition.
const loaderSize = 1 << 20

// loaders reports whether the board has a second stage.
func (d *Disk) loaders() bool { return d.LoaderA != "" || d.LoaderB != "" }

// SlotSize is the default size of a slot for this flavour.
func (f Flavour) SlotSize() int64 { return f.ImageSize() + 8<<20 }

// Layout returns the partitions and the size of the disk.
func (d *Disk) Layout() (gpt.Table, error) {
	slot, data := d.SlotSize, d.DataSize
	if slot == 0 {
		slot = d.Flavour.SlotSize()
	}
	if data == 0 {
		data = 64 << 20
	}
	const align = 1 << 20
	if slot%align != 0 || data%align != 0 || slot < align || data < align || slot > 1<<40 || data > 1<<40 {
		return gpt.Table{}, fmt.Errorf("lay out disk: slots of %d and data of %d bytes: whole MiB are expected", slot, data)
	}
	// The second table needs a little room at the end.
	size := int64(1) << bits.Len64(uint64(firstPartition+2*slot+data+align-1))
	table := gpt.Table{Name: "updaterd", Size: size, Parts: []gpt.Part{
		{Name: "rootfs_a", Start: firstPartition, Size: slot},
		{Name: "rootfs_b", Start: firstPartition + slot, Size: slot},
		{Name: "data", Start: firstPartition + 2*slot, Size: size - align - firstPartition - 2*slot},
	}}
	if d.loaders() {
		// Of the room for data: the numbers of the other partitions stay as they are.
		at := &table.Parts[2]
		at.Size -= 2 * loaderSize
		end := at.Start + at.Size
		table.Parts = append(table.Parts,
			gpt.Part{Name: "bootloader_a", Start: end, Size: loaderSize}, gpt.Part{Name: "bootloader_b", Start: end + loaderSize, Size: loaderSize})
	}
	return table, nil
}

// Disk writes a raw disk image to path, as a sparse file.
func (b *Builder) Disk(ctx context.Context, d Disk, path string) (err error) {
	table, err := d.Layout()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write disk: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write disk %s: %w", path, err)
		}
	}()
	if err := f.Truncate(table.Size); err != nil {
		return err
	}
	if err := table.Write(f); err != nil {
		return err
	}
	if err := d.writeEnv(f); err != nil {
		return err
	}
	data, err := b.dataFS(ctx, table.Parts[2].Size)
	if err != nil {
		return err
	}
	for i, image := range []string{d.SlotA, d.SlotB, data, d.LoaderA, d.LoaderB} {
		if image == "" {
			continue
		}
		if err := copySparse(f, table.Parts[i], image); err != nil {
			return err
		}
	}
	return nil
}

// writeEnv writes both copies of the environment alike, the first as the newer one.
func (d *Disk) writeEnv(w io.WriterAt) error {
	if d.NoEnv {
		return nil
	}
	var over []string
	if d.loaders() {
		over = []string{uboot.FirstEnv}
	}
	env, err := uboot.Default(over...)
	if err != nil {
		return err
	}
	if d.Factory != nil {
		env = maps.Clone(d.Factory)
	}
	if d.EnvID != "" {
		env["env_id"] = d.EnvID
	}
	maps.Copy(env, d.Env)
	for i, offset := range []int64{uboot.EnvOffset, uboot.EnvOffset2} {
		data, err := uboot.Encode(env, uboot.EnvSize, byte(2-i))
		if err != nil {
			return err
		}
		if _, err := w.WriteAt(data, offset); err != nil {
			return err
		}
	}
	return nil
}

// copySparse writes an image into a partition and leaves holes where it is zero.
func copySparse(disk *os.File, p gpt.Part, image string) error {
	in, err := os.Open(image)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if info.Size() > p.Size {
		return fmt.Errorf("%s has %d bytes, partition %s has %d", image, info.Size(), p.Name, p.Size)
	}
	buf, zero := make([]byte, 64<<10), strings.Repeat("\x00", 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(in, buf)
		if n > 0 && string(buf[:n]) != zero[:n] {
			if _, err := disk.WriteAt(buf[:n], p.Start+at); err != nil {
				return err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// dataFS makes an empty ext4 file system, with a journal, for the data partition.
func (b *Builder) dataFS(ctx context.Context, size int64) (string, error) {
	dir, err := b.cached(ctx, "data", key(3, size), func(dir string) error {
		// The machine's own configuration must not have a say.
		config := dir + "/mke2fs.conf"
		if err := os.WriteFile(config, []byte("[fs_types]\n\text4 = {\n\t\tfeatures = has_journal\n\t}\n"), 0o644); err != nil {
			return err
		}
		_, err := run(ctx, command{
			env: []string{fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", epoch), "MKE2FS_CONFIG=" + config},
			argv: []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-J", "size=4", "-m", "0", "-L", "data", "-U", fsUUID,
				"-O", "has_journal,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,extra_isize",
				"-E", "hash_seed=" + hashSeed + ",root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1", dir + "/data.ext4", fmt.Sprintf("%dk", size>>10)},
		})
		return err
	})
	return dir + "/data.ext4", err
}
