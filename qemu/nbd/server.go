// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
)

// Numbers of the protocol, named as in its document.
const (
	nbdMagic        = 0x4e42444d41474943 // "NBDMAGIC"
	iHaveOpt        = 0x49484156454f5054 // "IHAVEOPT"
	optReplyMagic   = 0x3e889045565a9
	requestMagic    = 0x25609513
	simpleReply     = 0x67446698
	flagFixed       = 1 << 0
	flagNoZeroes    = 1 << 1
	optExportName   = 1
	optAbort        = 2
	optInfo         = 6
	optGo           = 7
	repAck          = 1
	repInfo         = 3
	repErrUnsup     = 1<<31 + 1
	infoExport      = 0
	transmitFlags   = 1<<0 | 1<<2 | 1<<3 // HAS_FLAGS, SEND_FLUSH, SEND_FUA
	flagFUA         = 1 << 0
	cmdRead         = 0
	cmdWrite        = 1
	cmdDisc         = 2
	cmdFlush        = 3
	errIO           = 5
	errInvalid      = 22
	maxOptionLength = 4096
	maxRequest      = 32 << 20
)

// A Server serves one disk on one listener to any number of clients, one after
// the other or together.
type Server struct {
	disk     *Disk
	listener net.Listener
	mu       sync.Mutex
	conns    map[net.Conn]bool
	done     sync.WaitGroup
}

// Serve starts to serve disk on a unix socket at path.
func Serve(disk *Disk, path string) (*Server, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("serve disk: %w", err)
	}
	s := &Server{disk: disk, listener: l, conns: map[net.Conn]bool{}}
	s.done.Add(1)
	go s.accept()
	return s, nil
}

// Close ends all connections and waits for them; the disk stays open.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.done.Wait()
	return err
}

func (s *Server) accept() {
	defer s.done.Done()
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.done.Add(1)
		go func() {
			defer s.done.Done()
			defer func() {
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
				c.Close()
			}()
			// The client is QEMU, which reports its side of any failure.
			if negotiate(c, s.disk.Size()) == nil {
				_ = transmit(c, s.disk)
			}
		}()
	}
}

func put(w io.Writer, values ...any) error {
	for _, v := range values {
		if err := binary.Write(w, binary.BigEndian, v); err != nil {
			return err
		}
	}
	return nil
}

func negotiate(c io.ReadWriter, size int64) error {
	if err := put(c, uint64(nbdMagic), uint64(iHaveOpt), uint16(flagFixed|flagNoZeroes)); err != nil {
		return err
	}
	var clientFlags uint32
	if err := binary.Read(c, binary.BigEndian, &clientFlags); err != nil {
		return err
	}
	for {
		var head struct {
			Magic  uint64
			Option uint32
			Length uint32
		}
		if err := binary.Read(c, binary.BigEndian, &head); err != nil {
			return err
		}
		if head.Magic != iHaveOpt || head.Length > maxOptionLength {
			return errors.New("malformed option")
		}
		if _, err := io.CopyN(io.Discard, c, int64(head.Length)); err != nil {
			return err
		}
		reply := func(kind uint32, data ...any) error {
			length := uint32(0)
			for _, d := range data {
				length += uint32(binary.Size(d))
			}
			return put(c, append([]any{uint64(optReplyMagic), head.Option, kind, length}, data...)...)
		}
		switch head.Option {
		case optExportName:
			err := put(c, uint64(size), uint16(transmitFlags))
			if err == nil && clientFlags&flagNoZeroes == 0 {
				err = put(c, [124]byte{})
			}
			return err
		case optGo, optInfo:
			if err := reply(repInfo, uint16(infoExport), uint64(size), uint16(transmitFlags)); err != nil {
				return err
			}
			if err := reply(repAck); err != nil {
				return err
			}
			if head.Option == optGo {
				return nil
			}
		case optAbort:
			_ = reply(repAck)
			return errors.New("client gave up")
		default:
			if err := reply(repErrUnsup); err != nil {
				return err
			}
		}
	}
}

// Lengths of the headers of a request and of a reply.
const (
	requestSize = 28
	replySize   = 16
)

// transmit answers requests. A reply goes out by one call: U-Boot reads an SD card
// in blocks of 512 bytes, and waits for each.
func transmit(c io.ReadWriter, disk *Disk) error {
	r := bufio.NewReaderSize(c, 64<<10)
	var request [requestSize]byte
	buf := make([]byte, replySize) // of a reply, with its data
	for {
		if _, err := io.ReadFull(r, request[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(request[:]) != requestMagic {
			return errors.New("malformed request")
		}
		flags, kind := binary.BigEndian.Uint16(request[4:]), binary.BigEndian.Uint16(request[6:])
		cookie := request[8:16]
		offset, length := binary.BigEndian.Uint64(request[16:]), binary.BigEndian.Uint32(request[24:])
		if kind == cmdDisc {
			return nil
		}
		buf = buf[:replySize]
		if kind == cmdRead || kind == cmdWrite {
			if length > maxRequest {
				return fmt.Errorf("request of %d bytes", length)
			}
			buf = slices.Grow(buf, int(length))[:replySize+length]
		}
		data := buf[replySize:]
		if kind == cmdWrite {
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
		}
		code, payload, powered := perform(disk, kind, flags&flagFUA != 0, offset, data)
		if !powered {
			// A device without power does not answer. Wait until QEMU is killed.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		binary.BigEndian.PutUint32(buf, simpleReply)
		binary.BigEndian.PutUint32(buf[4:], code)
		copy(buf[8:replySize], cookie)
		if _, err := c.Write(buf[:replySize+len(payload)]); err != nil {
			return err
		}
	}
}

func perform(disk *Disk, kind uint16, fua bool, offset uint64, buf []byte) (code uint32, payload []byte, powered bool) {
	outside := offset > uint64(disk.Size()) || uint64(len(buf)) > uint64(disk.Size())-offset
	var err error
	powered = true
	switch {
	case kind == cmdFlush:
		powered, err = disk.flush()
	case kind != cmdRead && kind != cmdWrite || outside:
		return errInvalid, nil, true
	case kind == cmdWrite:
		powered, err = disk.write(buf, int64(offset), fua)
	default:
		if disk.poweredOff() {
			return 0, nil, false
		}
		if _, err = disk.ReadAt(buf, int64(offset)); err == nil {
			payload = buf
		}
	}
	if err != nil {
		return errIO, nil, powered
	}
	return 0, payload, powered
}

// poweredOff is off for callers without the lock.
func (d *Disk) poweredOff() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off()
}
