package page

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/testing/toolchain"
)

// userTS uses the module as a page in TypeScript does. Each line after @ts-expect-error must not compile.
const userTS = `
import { Uploader, Upload, UploadError, retryDelay, type Issued, type Options, type State } from "./upcall-uploader.js";

const options: Options = {
  endpoint: "/uploads", headers: async () => ({ Authorization: "Bearer x" }), credentials: "include", atOnce: 4, tries: 3, longestWait: 60,
  partsAbove: 1 << 20, request: { key: (file) => "photos/" + file.name, vars: { uid: "42" } },
  issue: async (file, { path, body, signal, upload }): Promise<Issued> => {
    if (!file.size) throw new UploadError("issuer", "it is empty", 422);
    const response = await fetch(path, { method: "POST", body: JSON.stringify(body), signal });
    return upload.issued ?? await response.json();
  },
  onchange: (upload) => {
    const share: number = upload.loaded / upload.file.size, state: State = upload.state;
    console.log(share, state);
  },
};
const uploader = new Uploader(options);
const [first] = uploader.add(new DataTransfer().files, { vars: { uid: "7" } });
if (first) {
  const done: Upload = await first.finished;
  if (done.error?.kind === "unrecorded") uploader.retry([done]);
  const status = await uploader.status(done, 1);
  console.log(status?.status === "uploaded", retryDelay("3", 1).toFixed(), done.event?.["object_key"]);
  done.cancel();
}
// @ts-expect-error: there is no such option
new Uploader({ atonce: 4 });
// @ts-expect-error: the state is the uploader's
uploader.uploads[0]!.state = "done";
// @ts-expect-error: there is no such kind
new UploadError("lost", "");
`

// namesJS prints what the module exports and the members of its classes.
const namesJS = `
import * as module from "./upcall-uploader.js";
const members = (c) => Object.getOwnPropertyNames(c.prototype).filter((name) => name !== "constructor");
console.log(Object.keys(module).sort().join(" "));
for (const [c, names] of [[module.Upload, ["cancel", "retry"]], [module.Uploader, ["add", "retry", "cancel", "status", "ask"]]]) {
  for (const name of names) if (!members(c).includes(name)) console.log("no " + name);
}
`

// TestTypes compiles a program in TypeScript against the module's types, strictly, and holds that the module exports what they
// declare.
func TestTypes(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir,
		"--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline",
		"typescript@5.9.3")
	if out, err := install.CombinedOutput(); err != nil {
		toolchain.NotRun(t, fmt.Sprintf("npm install: %v: %s", err, out))
	}
	module, err := os.ReadFile("upcall-uploader.js")
	if err != nil {
		t.Fatal(err)
	}
	types, err := os.ReadFile("upcall-uploader.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"upcall-uploader.js": string(module), "upcall-uploader.d.ts": string(types), "user.ts": userTS,
		"names.js": namesJS, "package.json": `{"type":"module"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	compile := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "node_modules/typescript/bin/tsc"), "--noEmit", "--strict",
		"--noUncheckedIndexedAccess", "--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler",
		"--lib", "es2022,dom,dom.iterable",
		"user.ts")
	compile.Dir = dir
	if out, err := compile.CombinedOutput(); err != nil {
		t.Errorf("tsc: %v: %s", err, out)
	}
	names := exec.CommandContext(t.Context(), "node", "names.js")
	names.Dir = dir
	out, err := names.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "Upload UploadError Uploader retryDelay" {
		t.Errorf("%v: the module has %s", err, got)
	}
}
