// Package webhook makes the messages that applications get over HTTP, and signs them.
//
// A [Message] is a CloudEvent 1.0. [Sign] signs a request as Standard Webhooks 1.0 says. Both
// deliveries of hooks and the reply hook are such requests, so one receiver verifies either.
package webhook
