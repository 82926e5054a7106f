// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// A CK_ULONG is an unsigned long, which has the size of a pointer on every Unix.
type ulong = uintptr

// Places in CK_FUNCTION_LIST of PKCS#11 2.40 (pkcs11f.h), behind the version.
const (
	fInitialize        = 0
	fFinalize          = 1
	fGetSlotList       = 4
	fGetTokenInfo      = 6
	fOpenSession       = 12
	fLogin             = 18
	fGetAttributeValue = 24
	fFindObjectsInit   = 26
	fFindObjects       = 27
	fFindObjectsFinal  = 28
	fSignInit          = 42
	fSign              = 43
	functions          = 68
)

// Values of PKCS#11 2.40 and 3.0 (pkcs11t.h).
const (
	ckoCertificate = 1
	ckoPublicKey   = 2
	ckoPrivateKey  = 3

	ckaClass              = 0x0
	ckaLabel              = 0x3
	ckaValue              = 0x11
	ckaKeyType            = 0x100
	ckaID                 = 0x102
	ckaECPoint            = 0x181
	ckaAlwaysAuthenticate = 0x202

	ckkEC        = 0x3
	ckkECEdwards = 0x40

	ckmECDSA = 0x1041
	ckmEDDSA = 0x1057

	cksSerial           = 4
	ckuUser             = 1
	ckuContextSpecific  = 2
	ckfProtectedPath    = 0x100
	ckfUserPINFinalTry  = 0x20000
	ckfUserPINLocked    = 0x40000
	ckfTokenInitialized = 0x400
)

// A code is what a function of a module returned.
type code ulong

const (
	ckrAttributeSensitive = 0x11
	ckrAttributeInvalid   = 0x12
	ckrPINIncorrect       = 0xA0
	ckrPINLocked          = 0xA4
	ckrAlreadyLoggedIn    = 0x100
	ckrInitialized        = 0x191
)

var codes = map[code]string{
	0x5: "general error", 0x6: "function failed", 0x7: "bad arguments", 0x30: "device error", 0x31: "no memory left on the device",
	0x32: "the device was removed", 0x54: "function not supported", 0x60: "bad key handle", 0x63: "the key is of another type",
	0x68: "the key may not be used to sign", 0x70: "the token does not have this mechanism", ckrPINIncorrect: "the PIN is wrong",
	0xA1: "the PIN has a character that is not allowed", 0xA2: "the PIN is too short or too long", 0xA3: "the PIN has expired",
	ckrPINLocked: "the PIN is locked", 0xE0: "there is no token in the slot", 0xE1: "the token is not recognised", 0x101: "a PIN is needed",
	0x102: "the token has no PIN yet",
}

func (c code) Error() string {
	if text := codes[c]; text != "" {
		return fmt.Sprintf("%s (0x%x)", text, uintptr(c))
	}
	return fmt.Sprintf("error 0x%x", uintptr(c))
}

// A module is the library of a token.
type module struct{ list *functionList }

type functionList struct {
	version [2]byte
	call    [functions]uintptr // behind padding to the size of a pointer
}

// openModule loads a library. Whatever is in it runs in this process.
func openModule(path string) (*module, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load module: %w; give the library of the token with module-path=", err)
	}
	get, err := purego.Dlsym(lib, "C_GetFunctionList")
	if err != nil {
		return nil, fmt.Errorf("load module %s: it is no PKCS#11 module: %w", path, err)
	}
	m := &module{}
	if rv, _, _ := purego.SyscallN(get, uintptr(unsafe.Pointer(&m.list))); rv != 0 {
		return nil, fmt.Errorf("load module %s: %w", path, code(rv))
	}
	if m.list == nil || m.list.version[0] != 2 {
		return nil, fmt.Errorf("load module %s: it speaks another version of PKCS#11 than 2", path)
	}
	if err := m.call(fInitialize, 0); err != nil && !errors.Is(err, code(ckrInitialized)) {
		return nil, fmt.Errorf("start module %s: %w", path, err)
	}
	return m, nil
}

func (m *module) close() { _ = m.call(fFinalize, 0) }

// call calls a function of the module. Pointers among args are made in the call
// expression, so that what they point to stays where it is.
//
//go:uintptrescapes
func (m *module) call(function int, args ...uintptr) error {
	f := m.list.call[function]
	if f == 0 {
		return code(0x54)
	}
	if rv, _, _ := purego.SyscallN(f, args...); rv != 0 {
		return code(rv)
	}
	return nil
}

// maxSlots bounds what a module is asked for.
const maxSlots = 1 << 10

// slots are those with a token.
func (m *module) slots() ([]ulong, error) {
	var n ulong
	if err := m.call(fGetSlotList, 1, 0, uintptr(unsafe.Pointer(&n))); err != nil || n == 0 {
		return nil, err
	}
	list := make([]ulong, min(n, maxSlots))
	n = ulong(len(list))
	if err := m.call(fGetSlotList, 1, uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, err
	}
	return list[:min(n, ulong(len(list)))], nil
}

// tokenInfo is CK_TOKEN_INFO.
type tokenInfo struct {
	label, manufacturer [32]byte
	model, serial       [16]byte
	flags               ulong
	counts              [10]ulong
	versions            [4]byte
	time                [16]byte
}

func (m *module) token(slot ulong) (*tokenInfo, error) {
	info := new(tokenInfo)
	return info, m.call(fGetTokenInfo, slot, uintptr(unsafe.Pointer(info)))
}

func (m *module) openSession(slot ulong) (session ulong, err error) {
	err = m.call(fOpenSession, slot, cksSerial, 0, 0, uintptr(unsafe.Pointer(&session)))
	return session, err
}

// login with a nil pin has the token ask for it by itself.
func (m *module) login(session, user ulong, pin []byte) error {
	if pin == nil {
		return m.call(fLogin, session, user, 0, 0)
	}
	pin = append(pin, 0) // an empty one has an address, too
	return m.call(fLogin, session, user, uintptr(unsafe.Pointer(&pin[0])), uintptr(len(pin)-1))
}

// attribute is CK_ATTRIBUTE.
type attribute struct {
	kind   ulong
	value  unsafe.Pointer
	length ulong
}

func bytesOf(kind ulong, b []byte) attribute {
	return attribute{kind, unsafe.Pointer(unsafe.SliceData(b)), ulong(len(b))}
}

func number(kind, n ulong) attribute {
	return attribute{kind, unsafe.Pointer(&n), unsafe.Sizeof(n)}
}

// maxObjects is how many objects a search returns: more than one is too many.
const maxObjects = 16

func (m *module) find(session ulong, template ...attribute) ([]ulong, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, a := range template {
		pin.Pin(a.value)
	}
	if err := m.call(fFindObjectsInit, session, uintptr(unsafe.Pointer(&template[0])), uintptr(len(template))); err != nil {
		return nil, err
	}
	var found [maxObjects]ulong
	var n ulong
	err := m.call(fFindObjects, session, uintptr(unsafe.Pointer(&found)), maxObjects, uintptr(unsafe.Pointer(&n)))
	if e := m.call(fFindObjectsFinal, session); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	return found[:min(n, maxObjects)], nil
}

// maxAttribute bounds an attribute in bytes; the longest is a certificate.
const maxAttribute = 64 << 10

// attribute reads an attribute of an object; nil if it has none.
func (m *module) attribute(session, object, kind ulong) ([]byte, error) {
	a := attribute{kind: kind}
	err := m.call(fGetAttributeValue, session, object, uintptr(unsafe.Pointer(&a)), 1)
	if errors.Is(err, code(ckrAttributeInvalid)) || errors.Is(err, code(ckrAttributeSensitive)) {
		return nil, nil
	}
	if err != nil || a.length == 0 || a.length == ^ulong(0) {
		return nil, err
	}
	if a.length > maxAttribute {
		return nil, fmt.Errorf("attribute 0x%x has %d bytes, at most %d are taken", kind, a.length, maxAttribute)
	}
	b := make([]byte, a.length)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&b[0])
	a.value = unsafe.Pointer(&b[0])
	if err := m.call(fGetAttributeValue, session, object, uintptr(unsafe.Pointer(&a)), 1); err != nil {
		return nil, err
	}
	return b[:min(a.length, ulong(len(b)))], nil
}

func (m *module) number(session, object, kind ulong) (ulong, error) {
	b, err := m.attribute(session, object, kind)
	if err != nil || len(b) != int(unsafe.Sizeof(ulong(0))) {
		return ^ulong(0), err
	}
	return *(*ulong)(unsafe.Pointer(&b[0])), nil
}

// sign makes one signature. between is called when the key is chosen and before it
// is used: some keys want their PIN there.
func (m *module) sign(session, key, mechanism ulong, data []byte, between func() error) ([]byte, error) {
	how := struct {
		mechanism ulong
		parameter unsafe.Pointer
		length    ulong
	}{mechanism: mechanism}
	if err := m.call(fSignInit, session, uintptr(unsafe.Pointer(&how)), key); err != nil {
		return nil, err
	}
	if err := between(); err != nil {
		return nil, err
	}
	sig := make([]byte, 512)
	n := ulong(len(sig))
	if err := m.call(fSign, session, uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), uintptr(unsafe.Pointer(&sig[0])), uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, err
	}
	return sig[:min(n, ulong(len(sig)))], nil
}
