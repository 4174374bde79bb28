// A small web application whose users upload files straight to OSS. It requests each upload from
// Upcall's issuer, is told of it by a hook, and shows it.
import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const { ISSUER_URL = "http://127.0.0.1:8082", ISSUER_KEY, HOOK_SECRET, PORT = "3000" } = process.env;
if (!ISSUER_KEY || !HOOK_SECRET) throw new Error("set ISSUER_KEY and HOOK_SECRET");

const page = readFileSync(new URL("page.html", import.meta.url));
const secret = Buffer.from(HOOK_SECRET.replace(/^whsec_/, ""), "base64");

// Yours is a database: put the id of each event that you are told of into a table with a unique
// key, in the transaction that does the work.
const waiting = new Map(); // issued, and not recorded yet; by upload id
const uploads = []; // recorded, the oldest first
const told = new Set(); // ids of events

const routes = {
  "GET /": (_, response) => response.writeHead(200, { "Content-Type": "text/html; charset=utf-8" }).end(page),
  "GET /uploads": (_, response) => json(response, 200, [...uploads, ...waiting.values()]),
  "POST /uploads": issue,
  "POST /hooks": hook,
};

// issue requests an upload for the page, which performs it. Our key stays here.
async function issue(request, response) {
  const file = JSON.parse(await read(request));
  const answer = await fetch(`${ISSUER_URL}/v1/uploads`, {
    method: "POST",
    headers: { Authorization: `Bearer ${ISSUER_KEY}`, "Content-Type": "application/json" },
    body: JSON.stringify({
      key: `inbox/${randomUUID()}/${file.name}`,
      content_type: file.type || "application/octet-stream",
      size: file.size,
      vars: { uid: "42" }, // who has logged in; the hook has it, too
    }),
  });
  const issued = await answer.json(); // or a problem: its detail says what the policy does not allow
  const { upload_id, key } = issued;
  if (answer.status === 201) waiting.set(upload_id, { upload_id, object_key: key, size: 0, mime_type: "", received_at: null });
  json(response, answer.status, issued);
}

// hook is told of uploads.
async function hook(request, response) {
  const body = await read(request);
  if (!verified(request.headers, body)) return response.writeHead(401).end("not verified");
  const { id, type, data } = JSON.parse(body);
  if (type === "upcall.upload.recorded.v1" && !told.has(id)) { // it may come twice
    told.add(id);
    const { upload_id, object_key, size, mime_type, received_at } = data;
    uploads.push({ upload_id, object_key, size, mime_type, received_at });
    waiting.delete(upload_id);
  }
  response.writeHead(204).end();
}

// verified tells deliveries from forgeries, as Standard Webhooks 1.0 says; with npm,
// standardwebhooks does the same in one call.
function verified(headers, body) {
  const { "webhook-id": id = "", "webhook-timestamp": timestamp = "", "webhook-signature": signatures = "" } = headers;
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) < 300)) return false;
  const mac = createHmac("sha256", secret).update(`${id}.${timestamp}.`).update(body);
  const want = Buffer.from(`v1,${mac.digest("base64")}`);
  return signatures.split(" ").some((signature) => {
    const given = Buffer.from(signature);
    return given.length === want.length && timingSafeEqual(given, want);
  });
}

async function read(request) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    if ((size += chunk.length) > 1 << 20) throw new SyntaxError("too large");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function json(response, status, value) {
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(value));
}

const server = createServer(async (request, response) => {
  try {
    const route = routes[`${request.method} ${request.url.split("?")[0]}`];
    if (route) await route(request, response);
    else response.writeHead(404).end();
  } catch (error) {
    const theirs = error instanceof SyntaxError;
    if (!theirs) console.error(error);
    json(response, theirs ? 400 : 502, { detail: theirs ? "this is not JSON" : "the issuer cannot be reached" });
  }
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`open http://127.0.0.1:${server.address().port}/`));
