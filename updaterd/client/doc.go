// SPDX-License-Identifier: Apache-2.0

// Package client drives updaterd over D-Bus.
//
// Its one contract: whatever updaterd answers comes back typed, and every error
// is an [*Error] with one of the stable names of docs/errors.md, or the error of
// the context. A job goes on in the daemon whether or not anybody looks: ending
// a context, or the program, cancels nothing but the waiting.
//
// It does not start the daemon (the bus does, where activation is installed), it
// never polls, and it does not retry a request.
//
//	c, err := client.Connect(ctx, client.Options{})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	job, err := c.Install(ctx, "https://example.org/v2.upb", client.InstallOptions{})
//	if err != nil {
//		return err
//	}
//	for status, err := range job.Progress(ctx) {
//		if err != nil {
//			return err
//		}
//		fmt.Println(status.Stage, status.Done, status.Total)
//	}
package client
