// SPDX-License-Identifier: Apache-2.0

// Command agent runs in the guests of the QEMU tests. It opens the virtio-serial
// port org.updaterd.agent and does what the host asks through package agentproto.
// It is in no product image.
//
// Called as "agent hang" it does what a hung user space looks like, for the
// variant of an image that hangs in its trial.
package main
