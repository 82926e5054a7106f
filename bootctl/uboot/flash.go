// SPDX-License-Identifier: Apache-2.0

package uboot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/updaterd/updaterd/bootctl/mtd"
)

// flash is what a flashPlace needs of an open MTD device.
type flash interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Info() mtd.Info
	Erase(offset, length int64) error
	Bad(offset int64) (bool, error)
	Unlock(offset, length int64) (restore func() error, err error)
}

func openFlash(path string, flags int) (flash, error) { return mtd.Open(path, flags) }

// flashPlace is a copy on raw flash. It begins at the first good erase block of
// its area, and goes on in the next good one.
//
// What lies behind the copy in its last block is read before the erase and
// written again with it, as U-Boot and its fw_setenv do (libubootenv does not).
// A power cut in between loses it, so there is a warning if there is anything.
type flashPlace struct {
	l    Location
	open func(path string, flags int) (flash, error)
	info mtd.Info
	area int64 // from l.Offset: whole erase blocks, spare ones for bad blocks included
}

// findFlash checks a location on raw flash.
func (sys system) findFlash(l Location) (*flashPlace, error) {
	d, err := sys.flash(l.Path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	info := d.Info()
	block := info.EraseSize
	if info.Kind != mtd.NOR && info.Kind != mtd.NAND {
		return nil, fmt.Errorf("%s is %v: U-Boot's environment can be on NOR flash and on NAND flash with one bit in a cell", l.Path, info.Kind)
	}
	sectorSize := l.SectorSize
	if sectorSize == 0 {
		sectorSize = block
	}
	sectors := l.Sectors
	if sectors == 0 {
		sectors = blocksFor(l.Size, sectorSize)
	}
	switch {
	case sectorSize%block != 0 || info.Kind == mtd.NAND && sectorSize != block:
		return nil, fmt.Errorf("the sector size %#x of the copy on %s is not the erase size of the flash, %#x: correct fw_env.config", sectorSize, l.Path, block)
	case l.Offset < 0:
		return nil, fmt.Errorf("the offset of the copy on %s is negative, which is for block devices: correct fw_env.config", l.Path)
	case l.Offset%sectorSize != 0:
		return nil, fmt.Errorf("the copy on %s begins at %#x, which is not the start of an erase block (%#x): correct fw_env.config", l.Path, l.Offset, sectorSize)
	case sectors > info.Size/sectorSize || l.Offset > info.Size-sectors*sectorSize:
		return nil, fmt.Errorf("%d sectors of %#x bytes from %#x lie outside of %s, which has %#x bytes: correct fw_env.config", sectors, sectorSize, l.Offset, l.Path, info.Size)
	case sectors*sectorSize < l.Size:
		return nil, fmt.Errorf("a copy of %#x bytes does not fit the %d sectors of %#x bytes on %s: correct fw_env.config", l.Size, sectors, sectorSize, l.Path)
	}
	return &flashPlace{l: l, open: sys.flash, info: info, area: sectors * sectorSize}, nil
}

func blocksFor(size, block int64) int64 { return (size + block - 1) / block }

func (p *flashPlace) String() string { return fmt.Sprintf("%s at %#x", p.l.Path, p.l.Offset) }

// clash refuses areas that overlap. As they begin and end with erase blocks,
// copies in one block are refused with that: erasing one would erase the other.
func (p *flashPlace) clash(other place) (string, error) {
	q, ok := other.(*flashPlace)
	if !ok || p.l.Offset+p.area <= q.l.Offset || q.l.Offset+q.area <= p.l.Offset {
		return "", nil
	}
	return "", fmt.Errorf("the copies at %#x and %#x of %s share an erase block of %#x bytes, so that both are lost when one is written", p.l.Offset, q.l.Offset, p.l.Path, p.info.EraseSize)
}

// shared reports whether something else lies in the last block of the copy.
func (p *flashPlace) shared() bool {
	d, err := p.open(p.l.Path, os.O_RDONLY)
	if err != nil {
		return false
	}
	defer d.Close()
	blocks, err := p.blocks(d)
	if err != nil {
		return false
	}
	rest, err := p.rest(d, blocks)
	return err == nil && !uniform(rest, 0xff) && !uniform(rest, 0)
}

// blocks are the offsets of the erase blocks that hold the copy: the first good
// ones of its area.
func (p *flashPlace) blocks(d flash) ([]int64, error) {
	need := int(blocksFor(p.l.Size, p.info.EraseSize))
	var good []int64
	for at := p.l.Offset; at < p.l.Offset+p.area && len(good) < need; at += p.info.EraseSize {
		bad, err := d.Bad(at)
		if err != nil {
			return nil, err
		}
		if !bad {
			good = append(good, at)
		}
	}
	if len(good) < need {
		return nil, fmt.Errorf("%w: of its %d erase blocks %d are needed, but only %d are good: enlarge the area (CONFIG_ENV_RANGE, and the number of sectors in fw_env.config)",
			ErrUnreadable, p.area/p.info.EraseSize, need, len(good))
	}
	return good, nil
}

// rest reads what lies behind the copy in its last block.
func (p *flashPlace) rest(d flash, blocks []int64) ([]byte, error) {
	behind := p.l.Size % p.info.EraseSize
	if behind == 0 {
		return nil, nil
	}
	rest := make([]byte, p.info.EraseSize-behind)
	_, err := d.ReadAt(rest, blocks[len(blocks)-1]+behind)
	return rest, err
}

func (p *flashPlace) read() ([]byte, error) {
	d, err := p.open(p.l.Path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	blocks, err := p.blocks(d)
	if err != nil {
		return nil, err
	}
	image := make([]byte, p.l.Size)
	for i, at := range blocks {
		from := int64(i) * p.info.EraseSize
		if _, err := d.ReadAt(image[from:min(from+p.info.EraseSize, p.l.Size)], at); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// write erases the blocks of the copy and programs them. From the first erased
// bit to the last programmed byte the checksum of this copy does not fit, so a
// cut anywhere leaves the other copy in force.
func (p *flashPlace) write(image []byte) (err error) {
	d, err := p.open(p.l.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	blocks, err := p.blocks(d)
	if err != nil {
		return err
	}
	rest, err := p.rest(d, blocks)
	if err != nil {
		return err
	}
	content := append(bytes.Clone(image), rest...)
	for i, at := range blocks {
		from := int64(i) * p.info.EraseSize
		if err := p.program(d, at, content[from:from+p.info.EraseSize]); err != nil {
			return err
		}
	}
	return nil
}

// program gives one erase block its content. Pages at the end that stay erased
// are not written, since whoever uses them later could not write them again.
func (p *flashPlace) program(d flash, at int64, content []byte) (err error) {
	if !p.l.NoLock {
		lock, err := d.Unlock(at, p.info.EraseSize)
		if err != nil {
			return err
		}
		defer func() {
			if lerr := lock(); err == nil {
				err = lerr
			}
		}()
	}
	if err := d.Erase(at, p.info.EraseSize); err != nil {
		return err
	}
	page := p.info.WriteSize
	used := blocksFor(int64(len(bytes.TrimRight(content, "\xff"))), page) * page
	_, err = d.WriteAt(content[:used], at)
	return err
}

// obsolete clears the flag of the copy, which only NOR flash can do: bits that
// are 1 become 0 without an erase. From flag 1 it is one bit, so a cut leaves
// either 1 or 0.
func (p *flashPlace) obsolete() (err error) {
	if !p.info.Bits {
		return errors.New("the flash cannot clear a bit of what was written before")
	}
	d, err := p.open(p.l.Path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	if !p.l.NoLock {
		lock, err := d.Unlock(p.l.Offset, p.info.EraseSize)
		if err != nil {
			return err
		}
		defer func() {
			if lerr := lock(); err == nil {
				err = lerr
			}
		}()
	}
	_, err = d.WriteAt([]byte{0}, p.l.Offset+headerRedundant-1)
	return err
}

// closing closes c and keeps its error, if it is the first.
func closing(c io.Closer, err *error) {
	if cerr := c.Close(); *err == nil {
		*err = cerr
	}
}
