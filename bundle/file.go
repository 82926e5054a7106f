// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/updaterd/updaterd/sign"
)

// A File is a verified bundle on this machine. It keeps one descriptor from the
// verification on, and every table and chunk is authenticated when it is read,
// so whatever happens to the file meanwhile is an error and not an input.
type File struct {
	*Verified
	envelope []byte // that was verified
	file     *os.File
}

// Open verifies the head of a bundle, and that the file is exactly as long as
// the manifest says. What is in the payload is looked at by [File.Check] and
// [File.Apply].
func Open(path string, policy *sign.Policy) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	file, err := open(f, policy)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return file, nil
}

func open(f *os.File, policy *sign.Policy) (*File, error) {
	head, err := ReadHead(f)
	if err != nil {
		return nil, err
	}
	v, err := Verify(head, policy, time.Time{})
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if err := CheckSize(size, v.PayloadOffset+v.PayloadSize); err != nil {
		return nil, err
	}
	return &File{Verified: v, envelope: head[HeaderSize:], file: f}, nil
}

// CheckSize compares the length of a file with what its manifest accounts for.
func CheckSize(size, want int64) error {
	switch {
	case size < want:
		return fmt.Errorf("%w: %w: %d bytes, the manifest accounts for %d; get it again", ErrMalformed, ErrTruncated, size, want)
	case size > want:
		return fmt.Errorf("%w: %w: %d bytes, the manifest accounts for %d", ErrMalformed, ErrTrailing, size, want)
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// ReadHead reads the header and the envelope, and not a byte more.
func ReadHead(r io.Reader) ([]byte, error) {
	head := make([]byte, HeaderSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, headError("header", err)
	}
	n, err := ParseHeader(head)
	if err != nil {
		return nil, err
	}
	head = append(head, make([]byte, n)...)
	if _, err := io.ReadFull(r, head[HeaderSize:]); err != nil {
		return nil, headError("envelope", err)
	}
	return head, nil
}

func headError(what string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read %s: %w: %w: the file ends within it", what, ErrMalformed, ErrTruncated)
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// read reads a range of the payload; buf is used if it is large enough.
func (f *File) read(buf []byte, off, n int64) ([]byte, error) {
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(io.NewSectionReader(f.file, f.PayloadOffset+off, n), buf)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("read payload at %d: %w: the file was cut off after it was opened", off, ErrTruncated)
	}
	if err != nil {
		return nil, fmt.Errorf("read payload at %d: %w", off, err)
	}
	return buf, nil
}

// Chunks reads the chunk table of an image.
func (f *File) Chunks(img *Image) ([]Digest, error) {
	b, err := f.read(nil, img.Chunks.Offset, img.Chunks.Length)
	if err != nil {
		return nil, err
	}
	return ParseChunks(img, b)
}

// Table reads the table of a recipe.
func (f *File) Table(img *Image, r *Recipe) ([]Entry, error) {
	b, err := f.read(nil, r.Table.Offset, r.Table.Length)
	if err != nil {
		return nil, err
	}
	return ParseTable(img, r, b)
}
