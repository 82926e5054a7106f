// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"io"
	"os"
)

const (
	blockSize = 4 << 10
	// squashBlock is mksquashfs's default, in which RAUC's bundles are compressed.
	squashBlock = 128 << 10
	// digestSize is what a block costs in RAUC's index.
	digestSize = sha256.Size
)

// blockCost is what RAUC's block-hash-index lets a device fetch that has old.
type blockCost struct {
	// Index is the index itself, and Raw the distinct blocks that are not in old and not zero.
	Index, Raw int64
	// Squashed are the compressed squashfs blocks that those lie in.
	Squashed int64
}

type digest [16]byte

func digestOf(block []byte) digest {
	sum := sha256.Sum256(block)
	return digest(sum[:16])
}

// missingBlocks compares two images as RAUC does, which looks for blocks of 4 KiB anywhere in the old one.
func missingBlocks(old, new string) (blockCost, error) {
	have := map[digest]bool{digestOf(make([]byte, blockSize)): true}
	err := eachBlock(old, blockSize, func(block []byte) error {
		have[digestOf(block)] = true
		return nil
	})
	if err != nil {
		return blockCost{}, err
	}
	var cost blockCost
	var squashed bytes.Buffer
	packer, err := zlib.NewWriterLevel(&squashed, zlib.BestCompression)
	if err != nil {
		return blockCost{}, err
	}
	err = eachBlock(new, squashBlock, func(big []byte) error {
		fetched := false
		for off := 0; off < len(big); off += blockSize {
			block := big[off:min(off+blockSize, len(big))]
			cost.Index += digestSize
			if d := digestOf(block); !have[d] {
				have[d], fetched = true, true
				cost.Raw += int64(len(block))
			}
		}
		if !fetched {
			return nil
		}
		squashed.Reset()
		packer.Reset(&squashed)
		if _, err := packer.Write(big); err != nil {
			return err
		}
		if err := packer.Close(); err != nil {
			return err
		}
		cost.Squashed += int64(min(squashed.Len(), len(big)))
		return nil
	})
	return cost, err
}

// eachBlock calls f with each block of a file; the last may be shorter.
func eachBlock(path string, size int, f func([]byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	block := make([]byte, size)
	for {
		n, err := io.ReadFull(file, block)
		if n > 0 {
			if err := f(block[:n]); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}
