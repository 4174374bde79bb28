package main

import (
	"fmt"
	"io"
)

// printCommands prints what is running and what to try.
func (l *loop) printCommands(out io.Writer) {
	fmt.Fprintf(out, `Everything is up until Ctrl-C. Open Events in the console, upload a file on the page, and see it and its hook:

  upload page   %[9]s/            API key %[13]s
  console       %[14]s/console/    key     %[15]s

The OSS emulator is at %[1]s, the receiver at %[2]s,
the issuer at %[9]s, and an application at %[10]s, which is told of each upload.
Each callback and each hook has a line below.

Request an upload, upload a file, and see the receiver's answer:

  export OSS_ENDPOINT=%[1]s OSS_REGION=%[3]s OSS_ACCESS_KEY_ID=%[4]s OSS_ACCESS_KEY_SECRET=%[5]s
  export UPCALL_CALLBACK_URL=%[2]s UPCALL_TOKEN_KEYS='%[6]s'
  export UPCALL_DATABASE_URL='%[8]s'
  go run ./cmd/issuer put --bucket %[7]s --key hello.txt --var uid=42
  go run ./cmd/issuer upload --bucket %[7]s --key docs/ -r docs

Or request an upload over HTTP, as an application does:

  KEY=%[13]s
  curl -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' %[9]s/v1/uploads \
    -d '{"key":"hello.txt","content_type":"text/plain","size":12,"vars":{"uid":"42"}}'

Have a receiver of your own told as well. The last command is a sample of one; examples/ has whole applications:

  export UPCALL_HOOKS_ALLOW_HTTP=true UPCALL_HOOKS_ALLOW_CIDRS=%[11]s
  echo "whsec_$(openssl rand -base64 32)" > mine.secret
  go run ./cmd/receiver hooks add --url http://127.0.0.1:8091/ --name mine --secret-file mine.secret
  go run ./cmd/receiver hooks listen --listen 127.0.0.1:8091 --secret-file mine.secret

See the rows, and the status of each issued upload:

  psql '%[8]s' -c 'SELECT * FROM upcall.upload_events'
  psql '%[8]s' -c 'SELECT * FROM upcall.upload_status'

See what the emulator sent and what it got back, and make it misbehave:

  curl %[1]s/_ossemu/callbacks
  curl -X PUT %[1]s/_ossemu/faults -d '{"corrupt_signature": true}'

Lose the next callback; OSS's event notification tells of the upload %[12]s later:

  curl -X PUT %[1]s/_ossemu/faults -d '{"drop": true, "count": 1}'

Callbacks and hooks:

`, l.ossURL, l.callbackURL, region, keyID, keySecret, tokenKeys, bucket, l.databaseURL, l.apiURL, l.appURL, thisMachine, notifyGrace,
		l.pageKey, l.adminURL, l.operatorKey)
}
