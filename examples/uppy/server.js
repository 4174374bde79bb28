// The back end of the page: it decides who may upload, and passes the request on to the issuer with its own key.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const { ISSUER_URL = "http://127.0.0.1:8082", ISSUER_KEY, PORT = "3000", DIST = "dist/page.js" } = process.env;
if (!ISSUER_KEY) throw new Error("set ISSUER_KEY");

const files = {
  "/": ["text/html; charset=utf-8", readFileSync(new URL("index.html", import.meta.url))],
  "/dist/page.js": ["text/javascript; charset=utf-8", readFileSync(new URL(DIST, import.meta.url))],
};

async function pass(request, response, path) {
  let body;
  if (request.method === "POST") {
    let text = "";
    request.setEncoding("utf8"); // a character may be in two chunks
    for await (const chunk of request) if ((text += chunk).length > 64 << 10) return response.writeHead(413).end();
    let asked;
    try {
      asked = JSON.parse(text);
    } catch {
      return response.writeHead(400).end();
    }
    body = JSON.stringify({ ...asked, vars: { ...asked.vars, uid: "42" } }); // who has logged in, which the page does not decide
  }
  const answer = await fetch(ISSUER_URL + path, {
    method: request.method, body,
    headers: {
      Authorization: `Bearer ${ISSUER_KEY}`, "Content-Type": "application/json",
      ...(request.headers["idempotency-key"] && { "Idempotency-Key": request.headers["idempotency-key"] }),
    },
  });
  const headers = { "Content-Type": answer.headers.get("Content-Type"), "Cache-Control": "no-store" };
  if (answer.headers.get("Retry-After")) headers["Retry-After"] = answer.headers.get("Retry-After");
  response.writeHead(answer.status, headers).end(await answer.text());
}

const server = createServer(async (request, response) => {
  const file = request.method === "GET" && files[request.url];
  const path = request.url.replace(/^\/api/, "");
  if (file) return response.writeHead(200, { "Content-Type": file[0] }).end(file[1]);
  const issues = request.method === "POST" && /^\/v1\/uploads(\/multipart)?$/.test(path);
  if (!issues && !(request.method === "GET" && /^\/v1\/uploads\/[0-9a-f-]{36}$/.test(path))) return response.writeHead(404).end();
  try {
    await pass(request, response, path);
  } catch (error) {
    console.error(error);
    response.writeHead(502, { "Content-Type": "application/json" }).end('{"detail":"The issuer cannot be reached."}');
  }
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`open http://127.0.0.1:${server.address().port}/`));
