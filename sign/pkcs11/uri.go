// SPDX-License-Identifier: Apache-2.0

// Package pkcs11 reads the URIs (RFC 7512) that name a key of a token:
//
//	pkcs11:token=release;object=signing?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/pin
//
// The token itself is spoken to by the program sigstore-kms-pkcs11.
package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Scheme begins a URI.
const Scheme = "pkcs11:"

// maxURI bounds a URI in bytes.
const maxURI = 4 << 10

// A URI names a key of a token. What is empty may have any value.
type URI struct {
	Token        string // label of the token
	Manufacturer string
	Model        string
	Serial       string
	SlotID       *uint64
	Object       string // label of the key
	ID           string // CKA_ID of the key, bytes
	ModulePath   string // library of the token
	PINSource    string // file with the PIN in the first line
	PINValue     string
}

// Parse reads a URI. An attribute that it does not know is an error: it may have
// been meant to tell two keys apart.
func Parse(s string) (*URI, error) {
	u, err := parse(s)
	if err != nil {
		return nil, fmt.Errorf("read PKCS#11 URI: %w", err)
	}
	return u, nil
}

func parse(s string) (*URI, error) {
	rest, found := strings.CutPrefix(s, Scheme)
	if !found || len(s) > maxURI {
		return nil, fmt.Errorf("%.40q is not %q and at most %d bytes", s, Scheme+"…", maxURI)
	}
	path, query, _ := strings.Cut(rest, "?")
	u := &URI{}
	if err := u.attributes(path, ";", u.path); err != nil {
		return nil, err
	}
	if err := u.attributes(query, "&", u.query); err != nil {
		return nil, err
	}
	if u.Object == "" && u.ID == "" {
		return nil, errors.New("neither object=LABEL nor id=%HEX says which key of the token it is")
	}
	if u.PINSource != "" && u.PINValue != "" {
		return nil, errors.New("pin-source and pin-value contradict each other")
	}
	return u, nil
}

// attributes reads NAME=VALUE, each name at most once.
func (u *URI) attributes(list, separator string, set func(name, value string) error) error {
	if list == "" {
		return nil
	}
	seen := make(map[string]bool)
	for a := range strings.SplitSeq(list, separator) {
		name, value, found := strings.Cut(a, "=")
		if !found || value == "" {
			// The attribute may be a PIN.
			return fmt.Errorf("attribute %.20q has no value", name)
		}
		if seen[name] {
			return fmt.Errorf("attribute %.20q is there twice", name)
		}
		seen[name] = true
		plain, err := url.PathUnescape(value)
		if err != nil || strings.ContainsRune(plain, 0) && name != "id" {
			return fmt.Errorf("attribute %.20q: its value is not well percent-encoded", name)
		}
		if err := set(name, plain); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) path(name, value string) error {
	switch name {
	case "token":
		u.Token = value
	case "manufacturer":
		u.Manufacturer = value
	case "model":
		u.Model = value
	case "serial":
		u.Serial = value
	case "object":
		u.Object = value
	case "id":
		u.ID = value
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return fmt.Errorf("slot-id %.20q is not a number", value)
		}
		u.SlotID = &n
	case "type":
		if value != "private" {
			return fmt.Errorf("type=%.20s: it has to be that of a private key; leave it out", value)
		}
	default:
		return fmt.Errorf("attribute %.40q is not one of token, manufacturer, model, serial, slot-id, object, id and type", name)
	}
	return nil
}

func (u *URI) query(name, value string) error {
	switch name {
	case "module-path":
		u.ModulePath = value
	case "pin-source":
		path, isURI := strings.CutPrefix(value, "file:")
		if strings.HasPrefix(value, "|") {
			return errors.New("pin-source: no program is run for a PIN; give a file")
		}
		if isURI {
			path = "/" + strings.TrimLeft(path, "/")
		}
		u.PINSource = path
	case "pin-value":
		u.PINValue = value
	default:
		return fmt.Errorf("attribute %.40q is not one of module-path, pin-source and pin-value", name)
	}
	return nil
}

// String is the URI again, which may have the PIN in it.
func (u *URI) String() string {
	var b strings.Builder
	b.WriteString(Scheme)
	separator := ""
	put := func(name, value string) {
		if value != "" {
			b.WriteString(separator + name + "=" + escape(value))
			separator = ";"
		}
	}
	put("token", u.Token)
	put("manufacturer", u.Manufacturer)
	put("model", u.Model)
	put("serial", u.Serial)
	if u.SlotID != nil {
		put("slot-id", strconv.FormatUint(*u.SlotID, 10))
	}
	put("object", u.Object)
	put("id", u.ID)
	first := true
	query := func(name, value string) {
		if value == "" {
			return
		}
		separator = "&"
		if first {
			separator, first = "?", false
		}
		b.WriteString(separator + name + "=" + escape(value))
	}
	query("module-path", u.ModulePath)
	query("pin-source", u.PINSource)
	query("pin-value", u.PINValue)
	return b.String()
}

// escape leaves only what needs no escape anywhere in a URI, and the slash, which
// the values here need none for.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
