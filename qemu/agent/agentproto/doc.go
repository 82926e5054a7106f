// SPDX-License-Identifier: Apache-2.0

// Package agentproto is the conversation between a test on the host and the
// agent in a guest: run a command, write a file, read a file.
//
// Its contract: both ends share one byte stream that outlives restarts of the
// guest, so every frame begins with a mark at which a reader finds its place
// again, and a request that was lost in a restart ends with the caller's
// context. A frame is the mark, the length of the body in eight hexadecimal
// digits, and the body in JSON; it has at most MaxFrame bytes. Requests are
// answered in any order, as they finish.
//
// There is no authentication: whoever has the stream is root in the guest. It is
// for tests only and in no product image.
//
//	client := agentproto.NewClient(conn)
//	err := client.Ready(ctx)
//	result, err := client.Exec(ctx, agentproto.Command{Argv: []string{"uname", "-r"}})
package agentproto
