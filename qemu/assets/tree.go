// SPDX-License-Identifier: Apache-2.0

package assets

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// A node is one file of a tree. Its kind is a type flag of package tar.
type node struct {
	kind     byte
	mode     int64
	uid, gid int
	link     string
	data     []byte
}

// A tree is a root file system in memory: paths without a leading slash. Owners
// and modes are what they say, whoever builds it.
type tree map[string]*node

// addTar adds what a tar file holds; later files replace earlier ones. Devices
// and sockets are left out: the guests have devtmpfs.
func (t tree) addTar(r io.Reader, want func(name string) bool) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" || want != nil && !want(name) {
			continue
		}
		n := &node{kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, link: h.Linkname}
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeSymlink:
		case tar.TypeReg:
			if n.data, err = io.ReadAll(tr); err != nil {
				return fmt.Errorf("read tar: %s: %w", name, err)
			}
		case tar.TypeLink:
			first, ok := t[strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")]
			if !ok {
				return fmt.Errorf("read tar: %s is a link to %s, which is not there", name, h.Linkname)
			}
			c := *first
			n = &c
		default:
			continue
		}
		t.set(name, n)
	}
}

// set puts a node at a path, through the links of a merged /usr (/lib -> usr/lib).
func (t tree) set(name string, n *node) {
	name = t.resolve(name)
	if old, ok := t[name]; ok && n.kind == tar.TypeDir && old.kind != tar.TypeReg {
		return // a package's directory does not replace a link or change an owner
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t[dir]; !ok {
			t[dir] = &node{kind: tar.TypeDir, mode: 0o755}
		}
	}
	t[name] = n
}

// resolve follows links among the directories above name.
func (t tree) resolve(name string) string {
	dir, base := path.Split(name)
	dir = strings.TrimSuffix(dir, "/")
	if dir == "" {
		return name
	}
	dir = t.resolve(dir)
	for range 8 {
		n, ok := t[dir]
		if !ok || n.kind != tar.TypeSymlink {
			break
		}
		target := n.link
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(dir), target)
		}
		dir = t.resolve(strings.TrimPrefix(path.Clean(target), "/"))
	}
	return path.Join(dir, base)
}

func (t tree) file(name string, mode int64, data []byte) {
	t.set(strings.TrimPrefix(name, "/"), &node{kind: tar.TypeReg, mode: mode, data: data})
}

func (t tree) symlink(name, target string) {
	t.set(strings.TrimPrefix(name, "/"), &node{kind: tar.TypeSymlink, mode: 0o777, link: target})
}

func (t tree) dir(name string, mode int64) {
	t.set(strings.TrimPrefix(name, "/"), &node{kind: tar.TypeDir, mode: mode})
}

// remove deletes what matches a pattern (path.Match), and everything below it.
func (t tree) remove(patterns ...string) {
	for _, p := range patterns {
		depth := strings.Count(p, "/") + 1
		for name := range t {
			parts := strings.SplitN(name, "/", depth+1)
			if len(parts) < depth {
				continue
			}
			if ok, err := path.Match(p, strings.Join(parts[:depth], "/")); err == nil && ok {
				delete(t, name)
			}
		}
	}
}

// size adds up the contents.
func (t tree) size() int64 {
	var n int64
	for _, f := range t {
		n += int64(len(f.data))
	}
	return n
}

// writeTar writes the tree in the order of its names, with one time stamp.
func (t tree) writeTar(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		n := t[name]
		h := &tar.Header{Typeflag: n.kind, Name: name, Mode: n.mode, Uid: n.uid, Gid: n.gid, Linkname: n.link,
			Size: int64(len(n.data)), ModTime: time.Unix(epoch, 0), Format: tar.FormatPAX}
		if n.kind == tar.TypeDir {
			h.Name += "/"
		}
		if n.kind != tar.TypeSymlink {
			h.Linkname = ""
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write tar: %s: %w", name, err)
		}
		if _, err := tw.Write(n.data); err != nil {
			return fmt.Errorf("write tar: %s: %w", name, err)
		}
	}
	return tw.Close()
}

// addDeb adds the files of a package.
func (t tree) addDeb(ctx context.Context, deb string, want func(name string) bool) error {
	out, err := run(ctx, command{argv: []string{"dpkg-deb", "--fsys-tarfile", deb}})
	if err != nil {
		return err
	}
	return t.addTar(bytes.NewReader(out), want)
}
