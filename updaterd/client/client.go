// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	busName     = "org.updaterd.Updater1"
	managerPath = dbus.ObjectPath("/org/updaterd/Updater1")
	managerName = "org.updaterd.Updater1.Manager"
	jobName     = "org.updaterd.Updater1.Job"
)

// Options says where the daemon is. The zero value is right on a device.
type Options struct {
	// Address is the bus; "" is the system bus.
	Address string
	// Interactive lets polkit ask a person for a password.
	Interactive bool
}

// A Client is a connection to the bus. It may be used by many at once.
type Client struct {
	conn        *dbus.Conn
	interactive bool
	dispatched  chan struct{} // closed when dispatch has returned

	mu       sync.Mutex
	watching bool // the match rules are in place
	watchers map[*watcher]bool
}

// Connect connects to the bus. The daemon itself is first spoken to by the first request.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	order := dbus.WithSignalHandler(dbus.NewSequentialSignalHandler())
	var conn *dbus.Conn
	var err error
	if o.Address == "" {
		conn, err = dbus.ConnectSystemBus(order)
	} else {
		conn, err = dbus.Connect(o.Address, order)
	}
	if err != nil {
		return nil, &Error{Name: Unreachable, Message: "connect to the message bus: " + err.Error(), cause: err}
	}
	c := &Client{conn: conn, interactive: o.Interactive, dispatched: make(chan struct{}), watchers: map[*watcher]bool{}}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	go c.dispatch(signals)
	return c, nil
}

// Close disconnects. Jobs go on.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.dispatched
	return err
}

// Status returns the whole visible state of the device.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	d, err := c.properties(ctx, managerPath, managerName)
	if err != nil {
		return nil, err
	}
	status := d.status()
	if path := get[dbus.ObjectPath](d, "Job"); path != "" && path != "/" {
		if status.Job, err = c.jobStatus(ctx, path); err != nil {
			return nil, err
		}
	}
	return status, nil
}

// Check asks the channel what it offers. It installs nothing.
func (c *Client) Check(ctx context.Context) (*Channel, error) {
	var d dict
	if err := c.call(ctx, managerPath, managerName+".Check", &d); err != nil {
		return nil, err
	}
	return d.channel(), nil
}

// Inspect verifies the bundle at ref, an http(s) URL or an absolute path, or ""
// for what the channel offers, and tells what installing it would cost. It changes
// nothing.
func (c *Client) Inspect(ctx context.Context, ref string, o InstallOptions) (*Release, error) {
	var d dict
	err := c.call(ctx, managerPath, managerName+".Inspect", &d, ref, o.dict())
	if err != nil {
		return nil, err
	}
	return d.release(), nil
}

// Install starts a job for the bundle at ref, or with "" for what the channel
// offered at the last check. It returns once the bundle is verified and accepted;
// an error means that nothing was begun.
func (c *Client) Install(ctx context.Context, ref string, o InstallOptions) (*Job, error) {
	var path dbus.ObjectPath
	if err := c.call(ctx, managerPath, managerName+".Install", &path, ref, o.dict()); err != nil {
		return nil, err
	}
	return &Job{client: c, path: path, staysInstalled: o.NoActivate}, nil
}

// Job returns the job in hand, nil if there is none.
func (c *Client) Job(ctx context.Context) (*Job, error) {
	d, err := c.properties(ctx, managerPath, managerName)
	if err != nil {
		return nil, err
	}
	path := get[dbus.ObjectPath](d, "Job")
	if path == "" || path == "/" {
		return nil, nil
	}
	return &Job{client: c, path: path}, nil
}

// Activate makes the installed slot primary: the next start is its trial.
func (c *Client) Activate(ctx context.Context) error {
	return c.call(ctx, managerPath, managerName+".Activate", nil)
}

// Reboot starts an orderly reboot.
func (c *Client) Reboot(ctx context.Context) error {
	return c.call(ctx, managerPath, managerName+".Reboot", nil)
}

// Mark gives the verdict "good" or "bad" on a slot: "booted", "other", "a" or
// "b". It returns a sentence that says what that did.
func (c *Client) Mark(ctx context.Context, verdict, slot string) (string, error) {
	var message string
	err := c.call(ctx, managerPath, managerName+".Mark", &message, verdict, slot)
	return message, err
}

// History returns the last results, newest first; a limit of 0 is all that the
// daemon gives at once.
func (c *Client) History(ctx context.Context, limit uint32) ([]Result, error) {
	var dicts []dict
	if err := c.call(ctx, managerPath, managerName+".History", &dicts, limit); err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(dicts))
	for _, d := range dicts {
		results = append(results, d.result())
	}
	return results, nil
}

func (c *Client) properties(ctx context.Context, path dbus.ObjectPath, iface string) (dict, error) {
	var d dict
	err := c.call(ctx, path, "org.freedesktop.DBus.Properties.GetAll", &d, iface)
	return d, err
}

func (c *Client) jobStatus(ctx context.Context, path dbus.ObjectPath) (*JobStatus, error) {
	d, err := c.properties(ctx, path, jobName)
	if err != nil {
		return nil, err
	}
	return d.job(path), nil
}

// call sends a request and stores its answer in reply unless that is nil. The
// message is made here because godbus drops the flag for interactive requests.
func (c *Client) call(ctx context.Context, path dbus.ObjectPath, method string, reply any, args ...any) error {
	dot := strings.LastIndex(method, ".")
	msg := &dbus.Message{Type: dbus.TypeMethodCall, Body: args, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(busName),
		dbus.FieldPath:        dbus.MakeVariant(path),
		dbus.FieldInterface:   dbus.MakeVariant(method[:dot]),
		dbus.FieldMember:      dbus.MakeVariant(method[dot+1:]),
	}}
	if c.interactive {
		msg.Flags |= dbus.FlagAllowInteractiveAuthorization
	}
	if len(args) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(args...))
	}
	call := <-c.conn.SendWithContext(ctx, msg, make(chan *dbus.Call, 1)).Done
	if call.Err != nil || reply == nil {
		return wrap(ctx, call.Err)
	}
	if err := call.Store(reply); err != nil {
		return &Error{Name: Internal, Message: "read the answer of " + method + ": " + err.Error(), cause: err}
	}
	return nil
}
