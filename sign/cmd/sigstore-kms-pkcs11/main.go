// SPDX-License-Identifier: Apache-2.0

// Sigstore-kms-pkcs11 signs with a key of a PKCS#11 token. It is run by
// updater-sign and updater-bundle for keys that begin with "pkcs11:", and by
// whatever else speaks sigstore's plugin protocol, such as cosign, for
// "pkcs11://": it gets its request as an argument, the message on standard input,
// and answers on standard output.
//
// It is a program of its own because a token's library can only be loaded by a
// dynamic one: so updater-sign and updater-bundle stay static, and whatever the
// library does, it does not do it in them.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"
	"golang.org/x/term"

	"github.com/updaterd/updaterd/sign/pkcs11"
)

// version is set by the Makefile.
var version = "unknown"

// pinVariable is that of updater-sign.
const pinVariable = "UPDATERD_KEY_PASSPHRASE"

func main() {
	runtime.LockOSThread() // modules need not bear several
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("sigstore-kms-pkcs11", version)
		return
	}
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "sigstore-kms-pkcs11 is run by other programs: updater-sign sign --key 'pkcs11:token=NAME;object=LABEL?module-path=FILE' ...")
		os.Exit(2)
	}
	if err := serve(os.Args, os.Stdin, os.Stdout); err != nil {
		if err := handler.WriteErrorResponse(os.Stdout, err); err != nil {
			fmt.Fprintln(os.Stderr, "sigstore-kms-pkcs11:", err)
		}
		os.Exit(1)
	}
}

func serve(args []string, stdin io.Reader, stdout io.Writer) error {
	if args[1] != common.ProtocolVersion {
		return fmt.Errorf("protocol %.20q, this program speaks %s; use programs of one version", args[1], common.ProtocolVersion)
	}
	request, err := handler.GetPluginArgs(args)
	if err != nil {
		return err
	}
	if request.InitOptions == nil || request.MethodArgs == nil {
		return errors.New("the request lacks initOptions or methodName")
	}
	uri, err := pkcs11.Parse(pkcs11.Scheme + request.InitOptions.KeyResourceID)
	if err != nil {
		return err
	}
	k, err := openKey(uri, func(token string) ([]byte, error) { return findPIN(uri, token) })
	if err != nil {
		return err
	}
	defer k.close()
	_, err = handler.Dispatch(stdout, stdin, request, k)
	return err
}

const maxPIN = 255

// findPIN takes the PIN from where the URI says, else from the environment, else
// from the terminal: standard input has the message.
func findPIN(uri *pkcs11.URI, token string) ([]byte, error) {
	switch {
	case uri.PINValue != "":
		return []byte(uri.PINValue), nil
	case uri.PINSource != "":
		return readPIN(uri.PINSource)
	}
	if pin, given := os.LookupEnv(pinVariable); given {
		return []byte(pin), nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("no terminal to ask for the PIN of token %s; use --passphrase-file, pin-source= in the URI, or %s", token, pinVariable)
	}
	defer tty.Close()
	fmt.Fprintf(tty, "PIN of token %s: ", token)
	defer fmt.Fprintln(tty)
	pin, err := term.ReadPassword(int(tty.Fd()))
	if err != nil {
		return nil, fmt.Errorf("read PIN: %w", err)
	}
	return pin, nil
}

func readPIN(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read PIN: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPIN+2))
	if err != nil {
		return nil, fmt.Errorf("read PIN: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(line) > maxPIN {
		return nil, fmt.Errorf("read PIN: the first line of %s is empty or longer than %d bytes", path, maxPIN)
	}
	return line, nil
}
