// SPDX-License-Identifier: Apache-2.0

// Package update is the state machine of an A/B update: it decides what is
// done next, remembers why, and finds its way again after any power cut.
//
// Its contract: two durable records say everything. The boot environment
// (through bootctl) says what boots; the journal says why. Every step that
// matters is one atomic write of one of them, in the order that
// docs/state-machine.md gives, and Reconcile brings the two together at every
// start. If they disagree, the boot environment is right.
//
// It does not fetch, verify, decode or write images (Engine does), judge
// health (Health does), or speak D-Bus (the server does).
//
//	u, err := update.New(update.Options{DataDir: dir, Boot: env, Engine: engine, Health: checks, System: system})
//	go u.Run(ctx)
//	<-u.Ready()
//	id, err := u.Install(ctx, "https://example.com/v2.upb", update.InstallOptions{Reboot: true})
//	for range u.Watch(ctx) {
//		show(u.Snapshot())
//	}
package update
